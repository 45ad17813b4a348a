"""Encoders of networks in torch: each clip is encoded once for all its pairs.

N: frames; T: mel steps; P: pairs; V, A: video and audio windows; D: width. Of a recipe's network only the
cross-modal part runs on pairs.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avsync_cli.mel import MelTrack
from avsync_cli.spec import WINDOW_FRAMES, WINDOW_MEL_STEPS
from training.evaluation.score_clips import (
    Encoders,
    Floats,
    Ticks,
    dot_score,
    torch_encoders,
    window_encoders,
)
from training.networks.avst import Avst
from training.networks.compact import CompactNet
from training.networks.presets import PublishedNet
from training.networks.residual import ResidualNet, relate_pairs
from training.networks.token_match import TokenMatchNet
from training.networks.two_stream import TwoStream
from training.networks.window_match import MatchNet

Score = Callable[[Floats, Floats], Floats]

_STRETCH = 512  # frames that are encoded at a time
_BATCH_WINDOWS = 32  # windows of a published network, which encodes each by itself
_TWO_STREAM_WINDOWS = 256


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
        return _embed_video(network, tokens.encode_video(crops, lips, windows))

    def encode_audio(mel: MelTrack, ticks: Ticks) -> Floats:
        return _embed_audio(network, tokens.encode_audio(mel, ticks))

    return Encoders(encode_video, encode_audio, dot_score)


def residual_encoders(matching: TokenMatchNet, net: ResidualNet) -> Encoders:
    """The functions of a matching with its residual: a window is its tokens and then its embedding."""
    tokens = _by_clips(matching, dot_score)

    def encode_video(crops: NDArray[np.uint8], lips: Floats, windows: int) -> Floats:
        seen = tokens.encode_video(crops, lips, windows)
        return np.concatenate([seen.reshape(windows, -1), _embed_video(matching, seen)], axis=1)

    def encode_audio(mel: MelTrack, ticks: Ticks) -> Floats:
        heard = tokens.encode_audio(mel, ticks)
        return np.concatenate([heard.reshape(len(ticks), -1), _embed_audio(matching, heard)], axis=1)

    def score(video: Floats, audio: Floats) -> Floats:
        width = matching.video_head.embedding.out_features
        pairs = _beside(net, video[:, :-width]), _beside(net, audio[:, :-width])
        logits = net.scale * relate_pairs(net, *pairs).logits
        return dot_score(video[:, -width:], audio[:, -width:]) + _as_array(logits)

    return Encoders(encode_video, encode_audio, score)


def two_stream_encoders(net: TwoStream) -> Encoders:
    """The functions of a baseline in evaluation mode: a window is one embedding [D]."""
    device = next(net.parameters()).device

    def encode_video(crops: NDArray[np.uint8], _lips: Floats) -> Floats:
        frames = torch.from_numpy(crops)
        windows = torch.arange(len(frames) - WINDOW_FRAMES + 1).unsqueeze(1) + torch.arange(WINDOW_FRAMES)
        parts = (net.encode_video(frames[part].to(device)) for part in windows.split(_TWO_STREAM_WINDOWS))
        return torch.cat(list(parts)).cpu().numpy()

    def encode_audio(mels: Floats) -> Floats:
        windows = torch.from_numpy(mels)
        parts = (net.encode_audio(part.to(device)) for part in windows.split(_TWO_STREAM_WINDOWS))
        return torch.cat(list(parts)).cpu().numpy()

    return window_encoders(encode_video, encode_audio, score_embeddings)


def avst_encoders(net: Avst) -> Encoders:
    """The functions of AVST in evaluation mode: a window is its tokens, [5, D] or [16, D]."""

    def encode_video(crops: NDArray[np.uint8], _lips: Floats) -> Floats:
        frames = _beside(net, crops)
        rows = torch.arange(len(frames) - WINDOW_FRAMES + 1).unsqueeze(1) + torch.arange(WINDOW_FRAMES)
        return _as_array(torch.cat([net.encode_video(frames[part]) for part in rows.split(_BATCH_WINDOWS)]))

    def encode_audio(mels: Floats) -> Floats:
        windows = _beside(net, mels)
        return _as_array(torch.cat([net.encode_audio(part) for part in windows.split(_BATCH_WINDOWS)]))

    def score(video: Floats, audio: Floats) -> Floats:
        return _as_array(net.score_pairs(_beside(net, video), _beside(net, audio)))

    return window_encoders(encode_video, encode_audio, score)


def baseline_encoders(net: TwoStream | Avst) -> Encoders:
    """The functions of a baseline in evaluation mode."""
    return avst_encoders(net) if isinstance(net, Avst) else two_stream_encoders(net)


def score_embeddings(video: Floats, audio: Floats) -> Floats:
    """Scores [P] of pairs of embeddings [P, D] in the protocol: the closer, the higher."""
    scores: Floats = -np.linalg.norm(video - audio, axis=1)
    return scores


def _embed_video(network: TokenMatchNet, tokens: Floats) -> Floats:
    """Tokens [V, 5, D] of windows -> their embeddings, scaled by their gates."""
    embedding, gate = network.video_head(_beside(network, tokens).flatten(1))
    return _as_array(embedding * gate.unsqueeze(1))


def _embed_audio(network: TokenMatchNet, tokens: Floats) -> Floats:
    """Tokens [A, 16, D] of windows -> their unit embeddings."""
    return _as_array(network.audio_head(_beside(network, tokens).flatten(1))[0])


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
