"""Tokens of whole clips by a recipe's network, so that each clip is encoded once for all its pairs.

N: frames; T: mel steps; V, A: video and audio windows; D: width. Only the cross-modal part runs on pairs.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avsync_cli.mel import MelTrack
from avsync_cli.spec import WINDOW_FRAMES, WINDOW_MEL_STEPS
from training.compact import CompactNet
from training.encoders import MatchNet
from training.networks import PublishedNet
from training.token_match import TokenMatchNet
from training.validate import Encoders, Floats, Ticks, dot_score, torch_encoders

Score = Callable[[Floats, Floats], Floats]

_STRETCH = 512  # frames that are encoded at a time
_BATCH_WINDOWS = 32  # windows of a network that encodes each by itself


def network_encoders(network: PublishedNet | CompactNet) -> Encoders:
    """The functions of a network in evaluation mode: a window is its tokens, [5, D] or [16, D]."""

    def score(video: Floats, audio: Floats) -> Floats:
        logits = network.relate(_beside(network, video), _beside(network, audio)).logits
        return _as_array(logits)

    if isinstance(network, PublishedNet):
        return _by_windows(network, score)
    return _by_clips(network, score)


def match_encoders(network: MatchNet | TokenMatchNet) -> Encoders:
    """The functions of a matching's net in evaluation mode: a window is one embedding [D]."""
    if isinstance(network, MatchNet):
        return torch_encoders(network)
    tokens = _by_clips(network, dot_score)

    def encode_video(crops: NDArray[np.uint8], lips: Floats, windows: int) -> Floats:
        rows = _beside(network, tokens.encode_video(crops, lips, windows)).flatten(1)
        embedding, gate = network.video_head(rows)
        return _as_array(embedding * gate.unsqueeze(1))

    def encode_audio(mel: MelTrack, ticks: Ticks) -> Floats:
        rows = _beside(network, tokens.encode_audio(mel, ticks)).flatten(1)
        return _as_array(network.audio_head(rows)[0])

    return Encoders(encode_video, encode_audio, dot_score)


def _by_windows(network: PublishedNet, score: Score) -> Encoders:
    """Each window is encoded by itself, as the published encoders pad a window's ends."""

    def encode_video(crops: NDArray[np.uint8], lips: Floats, windows: int) -> Floats:
        rows = torch.arange(windows).unsqueeze(1) + torch.arange(WINDOW_FRAMES)  # [V, 5]
        frames, points = _beside(network, crops), _beside(network, lips).flatten(1)
        parts = [network.encode_video(frames[part], points[part]) for part in rows.split(_BATCH_WINDOWS)]
        return _as_array(torch.cat(parts))

    def encode_audio(mel: MelTrack, ticks: Ticks) -> Floats:
        mels = _beside(network, mel.windows(ticks).astype(np.float32))
        return _as_array(torch.cat([network.encode_audio(part) for part in mels.split(_BATCH_WINDOWS)]))

    return Encoders(encode_video, encode_audio, score)


def _by_clips(network: CompactNet | TokenMatchNet, score: Score) -> Encoders:
    """A token for every frame and mel step; at a clip's ends the last frame and step are repeated."""
    r, s = network.reach.frames, network.reach.mel_steps

    def encode_video(crops: NDArray[np.uint8], lips: Floats, windows: int) -> Floats:
        frames = windows + WINDOW_FRAMES - 1
        tokens = []
        for start in range(0, frames, _STRETCH):
            rows = np.arange(start - r, min(start + _STRETCH, frames) + r).clip(0, len(crops) - 1)
            points = _beside(network, lips[rows]).flatten(1).unsqueeze(0)
            tokens.append(network.video_encoder(_beside(network, crops[rows]).unsqueeze(0), points))
        return _windows(torch.cat(tokens, dim=1)[0], np.arange(windows), WINDOW_FRAMES)

    def encode_audio(mel: MelTrack, ticks: Ticks) -> Floats:
        steps = mel.starts(ticks)
        first, end = int(steps[0]), int(steps[-1]) + WINDOW_MEL_STEPS
        rows = np.arange(first - s, end + s).clip(0, len(mel.mel) - 1)
        mels = _beside(network, mel.mel[rows].astype(np.float32)).T.contiguous().unsqueeze(0)
        return _windows(network.audio_encoder(mels)[0], steps - first, WINDOW_MEL_STEPS)

    return Encoders(encode_video, encode_audio, score)


def _windows(tokens: Tensor, starts: NDArray[np.int64], length: int) -> Floats:
    """Tokens [T, D] -> those of the windows that begin at `starts` [W]: [W, length, D]."""
    windows: Floats = _as_array(tokens)[starts[:, None] + np.arange(length)]
    return windows


def _beside(network: nn.Module, array: NDArray[np.generic]) -> Tensor:
    """An array as a tensor where the network is."""
    return torch.from_numpy(array).to(next(network.parameters()).device)


def _as_array(tensor: Tensor) -> Floats:
    array: Floats = tensor.cpu().numpy()
    return array
