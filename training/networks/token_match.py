"""The matching of `mtdvocalist-edge` and `vocalist-compact` before distillation: their encoders, two heads.

C clips, W video windows, A audio windows a clip; D: width; E: embedding. The encoders' keys are those of
`compact.CompactNet`, so a cross-modal network starts from them by name.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from avsync_cli.errors import ConfigError
from avsync_cli.spec import WINDOW_FRAMES, WINDOW_MEL_STEPS
from training.config import WINDOW_NETWORK, MatchConfig, ModelConfig
from training.networks.compact import (
    COMPACT_NETWORKS,
    REACH_FRAMES,
    REACH_MEL_STEPS,
    AudioTokens,
    CompactDims,
    VideoTokens,
)
from training.networks.window_match import Embedded, Head, MatchNet
from training.reach import Reach

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

    reach = Reach(REACH_FRAMES, REACH_MEL_STEPS)

    def __init__(self, dims: CompactDims, config: ModelConfig) -> None:
        super().__init__()
        self.video_encoder = VideoTokens(dims)
        self.audio_encoder = AudioTokens(dims)
        self.video_head = Head(WINDOW_FRAMES * dims.width, config)
        self.audio_head = Head(WINDOW_MEL_STEPS * dims.width, config)
        self.curve_scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, crops: Tensor, lips: Tensor, mel: Tensor, video_rows: Tensor, audio_steps: Tensor
    ) -> Embedded:
        """Crops [C, F, 48, 96], lips [C, F, 40, 3] and mel [C, T, 80], and where their windows begin: frames
        [C, W] and mel steps [C, A]."""
        video = self.video_encoder(crops, lips.flatten(2))
        audio = self.audio_encoder(mel.mT.contiguous())
        video_embedding, video_gate = self.video_head(
            windows_of(video, video_rows, WINDOW_FRAMES).flatten(0, 1)
        )
        audio_embedding, audio_gate = self.audio_head(
            windows_of(audio, audio_steps, WINDOW_MEL_STEPS).flatten(0, 1)
        )
        return Embedded(video_embedding, audio_embedding, video_gate, audio_gate)


def windows_of(tokens: Tensor, starts: Tensor, length: int) -> Tensor:
    """Tokens [C, T, D] -> those of the windows that begin at `starts` [C, W]: [C, W, length * D]."""
    index = starts.unsqueeze(2) + torch.arange(length, device=tokens.device)  # [C, W, length]
    clip = torch.arange(len(tokens), device=tokens.device).view(-1, 1, 1)
    return tokens[clip, index].flatten(2)
