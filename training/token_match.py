"""The matching of `mtdvocalist-edge` and `vocalist-compact` before distillation: their encoders, two heads.

C clips, W video windows, A audio windows a clip; D: width; E: embedding. The encoders' keys are those of
`compact.CompactNet`, so a cross-modal network starts from them by name.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avsync_cli.errors import ConfigError
from avsync_cli.scan import score_offsets
from avsync_cli.spec import CANDIDATES, WINDOW_FRAMES, WINDOW_MEL_STEPS
from avsync_cli.timing import mel_step_at
from training.clips import Batch, LoadedClip
from training.compact import (
    COMPACT_NETWORKS,
    REACH_FRAMES,
    REACH_MEL_STEPS,
    AudioTokens,
    CompactDims,
    VideoTokens,
)
from training.config import WINDOW_NETWORK, MatchConfig, ModelConfig
from training.encoders import Embedded, Head, MatchNet
from training.matching import Validity
from training.validate import dot_score

_CONTEXT_FRAMES = REACH_FRAMES  # 6 mel steps are less than two frames
_CLIP_FRAMES = 512  # frames of a clip that are encoded at a time
_HEAD_KEYS: dict[str, Any] = {"embedding": 256, "dropout": 0.1, "gate": 12.0}


def make_match_net(config: MatchConfig) -> "MatchNet | TokenMatchNet":
    """The net that a configuration trains. Raises ConfigError for one that does not exist."""
    if config.network == WINDOW_NETWORK:
        return MatchNet(config.model)
    dims = COMPACT_NETWORKS.get(config.network)
    if dims is None:
        choices = ", ".join((WINDOW_NETWORK, *COMPACT_NETWORKS))
        raise ConfigError(f"network {config.network!r} is not one of {choices}")
    if replace(config.model, **_HEAD_KEYS) != ModelConfig(**_HEAD_KEYS):
        raise ConfigError(
            f"{config.network} has sizes of its own; [model] takes {', '.join(_HEAD_KEYS)} alone"
        )
    return TokenMatchNet(dims, config.model)


class TokenMatchNet(nn.Module):
    """Token encoders, and one embedding for the 5 or the 16 tokens of a window."""

    def __init__(self, dims: CompactDims, config: ModelConfig) -> None:
        super().__init__()
        self.video_encoder = VideoTokens(dims)
        self.audio_encoder = AudioTokens(dims)
        self.video_head = Head(WINDOW_FRAMES * dims.width, config)
        self.audio_head = Head(WINDOW_MEL_STEPS * dims.width, config)
        self.curve_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, crops: Tensor, lips: Tensor, mel: Tensor, batch: Batch) -> tuple[Embedded, Validity]:
        """Crops [C, F, 48, 96], lips [C, F, 40, 3] and mel [C, T, 80] as augmented, `batch` for the rest."""
        video = self.video_encoder(crops, lips.flatten(2))
        audio = self.audio_encoder(mel.mT.contiguous())
        video_windows = windows_of(video, batch.video_rows - REACH_FRAMES, WINDOW_FRAMES)
        audio_windows = windows_of(audio, batch.audio_steps - REACH_MEL_STEPS, WINDOW_MEL_STEPS)
        video_rows, video_gate = self.video_head(video_windows.flatten(0, 1))
        audio_rows, audio_gate = self.audio_head(audio_windows.flatten(0, 1))
        valid = batch.validity
        validity = Validity(with_context(valid.video), with_context(valid.audio), valid.context)
        return Embedded(video_rows, audio_rows, video_gate, audio_gate), validity

    def score_clip(self, clip: LoadedClip, *, max_frames: int | None = None) -> NDArray[np.float32]:
        """Scores [V, 31] of a clip, gate times cosine; at its ends the last frame and step are repeated."""
        crops, lips = clip.crops[:max_frames], clip.lips[:max_frames].astype(np.float32)
        first, windows = clip.mel.first_tick, len(crops) - WINDOW_FRAMES + 1
        ticks = np.arange(first, first + clip.mel.ticks)
        if max_frames is not None:
            ticks = ticks[ticks < clip.first_tick + max_frames]
        if windows < 1 or not len(ticks):
            return np.zeros((0, CANDIDATES), np.float32)
        with torch.inference_mode():
            video = self._video_rows(crops, lips, windows)
            audio = self._audio_rows(clip.mel.mel.astype(np.float32), ticks - clip.mel.origin_tick)
        return score_offsets(
            video, audio, first_tick_video=clip.first_tick, first_tick_audio=first, score=dot_score
        )

    def _video_rows(
        self, crops: NDArray[np.uint8], lips: NDArray[np.float32], windows: int
    ) -> NDArray[np.float32]:
        edge = (REACH_FRAMES, REACH_FRAMES)
        frames = torch.from_numpy(np.pad(crops, (edge, (0, 0), (0, 0)), "edge")).unsqueeze(0)
        points = torch.from_numpy(np.pad(lips, (edge, (0, 0), (0, 0)), "edge")).flatten(1).unsqueeze(0)
        tokens = [
            self.video_encoder(
                frames[:, start : start + _CLIP_FRAMES + 2 * REACH_FRAMES],
                points[:, start : start + _CLIP_FRAMES + 2 * REACH_FRAMES],
            )
            for start in range(0, len(crops), _CLIP_FRAMES)
        ]
        rows = torch.arange(windows).unsqueeze(0)
        embedding, gate = self.video_head(windows_of(torch.cat(tokens, 1), rows, WINDOW_FRAMES).squeeze(0))
        scaled: NDArray[np.float32] = (embedding * gate.unsqueeze(1)).numpy()
        return scaled

    def _audio_rows(self, mel: NDArray[np.float32], ticks: NDArray[np.int64]) -> NDArray[np.float32]:
        steps = np.array([mel_step_at(int(tick)) for tick in ticks])
        end = steps[-1] + WINDOW_MEL_STEPS + REACH_MEL_STEPS
        whole = torch.from_numpy(mel[np.arange(-REACH_MEL_STEPS, end).clip(0, len(mel) - 1)])
        tokens = self.audio_encoder(whole.T.contiguous().unsqueeze(0))
        embedding = self.audio_head(
            windows_of(tokens, torch.from_numpy(steps).unsqueeze(0), WINDOW_MEL_STEPS).squeeze(0)
        )[0]
        rows: NDArray[np.float32] = embedding.numpy()
        return rows


def windows_of(tokens: Tensor, starts: Tensor, length: int) -> Tensor:
    """Tokens [C, T, D] -> those of the windows that begin at `starts` [C, W]: [C, W, length * D].

    Starts outside the tokens are moved inside; whoever asks for them must not count them.
    """
    starts = starts.clamp(0, tokens.shape[1] - length)
    index = starts.unsqueeze(2) + torch.arange(length, device=tokens.device)  # [C, W, length]
    clip = torch.arange(len(tokens), device=tokens.device).view(-1, 1, 1)
    return tokens[clip, index].flatten(2)


def with_context(valid: Tensor) -> Tensor:
    """Of windows [C, W] those whose neighbours within the reach are real too."""
    outside = torch.zeros_like(valid[:, :_CONTEXT_FRAMES])
    padded = torch.cat([outside, valid, outside], dim=1)
    return padded.unfold(1, 2 * _CONTEXT_FRAMES + 1, 1).all(dim=2)
