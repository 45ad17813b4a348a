"""Scores of cached clips by encoders of any kind: torch during training, ONNX for the figures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from avsync_cli.scan import score_offsets
from avsync_cli.spec import WINDOW_FRAMES
from training.clips import LoadedClip, video_windows
from training.encoders import MatchNet
from training.protocol import mean_accuracies

Floats = NDArray[np.float32]
EncodeVideo = Callable[[NDArray[np.uint8], Floats], Floats]  # crops [N, 48, 96], lips -> [N - 4, D]
EncodeAudio = Callable[[Floats], Floats]  # [A, 80, 16] -> [A, D]

_BATCH_WINDOWS = 256


@dataclass(frozen=True)
class Encoders:
    """The three functions of a student; `Student` of the tool has the same."""

    encode_video: EncodeVideo
    encode_audio: EncodeAudio
    score: Callable[[Floats, Floats], Floats]


def torch_encoders(net: MatchNet) -> Encoders:
    """The functions of a net in evaluation mode."""

    def encode_video(crops: NDArray[np.uint8], lips: Floats) -> Floats:
        rows = torch.arange(len(crops) - WINDOW_FRAMES + 1).unsqueeze(0)
        frames, points = video_windows(
            torch.from_numpy(crops).unsqueeze(0), torch.from_numpy(lips).unsqueeze(0), rows
        )
        pairs = zip(frames.split(_BATCH_WINDOWS), points.split(_BATCH_WINDOWS), strict=True)
        return torch.cat([net.encode_video(f.float(), p) for f, p in pairs]).numpy()

    def encode_audio(mels: Floats) -> Floats:
        return torch.cat(
            [net.encode_audio(part) for part in torch.from_numpy(mels).split(_BATCH_WINDOWS)]
        ).numpy()

    return Encoders(encode_video, encode_audio, dot_score)


def dot_score(video: Floats, audio: Floats) -> Floats:
    """Dot products [P] of embeddings [P, D]: the pair graph in numpy."""
    scores: Floats = np.einsum("pd,pd->p", video, audio)
    return scores


def score_clip(clip: LoadedClip, encoders: Encoders, *, max_frames: int | None = None) -> Floats:
    """Scores [V, 31] of a clip, or of its first `max_frames` frames and the sound around them."""
    crops, lips = clip.crops[:max_frames], clip.lips[:max_frames].astype(np.float32)
    first = clip.mel.first_tick
    ticks = np.arange(first, first + clip.mel.ticks)
    if max_frames is not None:
        ticks = ticks[ticks < clip.first_tick + max_frames]
    if len(crops) < WINDOW_FRAMES or not len(ticks):
        return np.zeros((0, 31), np.float32)
    mels = clip.mel.windows(ticks).astype(np.float32)
    with torch.inference_mode():
        video, audio = encoders.encode_video(crops, lips), encoders.encode_audio(mels)
    return score_offsets(
        video, audio, first_tick_video=clip.first_tick, first_tick_audio=first, score=encoders.score
    )


@dataclass(frozen=True)
class GroupFigures:
    """Figures of one domain or source: percent right by K, and over how many clips."""

    group: str
    clips: int
    percent: dict[str, float]


def group_figures(scored: Iterable[tuple[LoadedClip, Floats]]) -> list[GroupFigures]:
    """Figures of every domain, then of every source."""
    groups: dict[str, list[Floats]] = {}
    for clip, scores in scored:
        for name in (clip.entry.domain, f"{clip.entry.domain}: {clip.entry.source}"):
            groups.setdefault(name, []).append(scores)
    return [
        GroupFigures(name, len(members), mean_accuracies(members))
        for name, members in sorted(groups.items(), key=lambda item: (":" in item[0], item[0]))
    ]
