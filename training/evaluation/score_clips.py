"""Scores of cached clips by encoders of any kind: torch during training, ONNX for the figures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from avsync_cli.mel import MelTrack
from avsync_cli.model import Student
from avsync_cli.offsets import score_offsets
from avsync_cli.spec import CANDIDATES, WINDOW_FRAMES
from training.data.clips import LoadedClip, video_windows
from training.evaluation.protocol import mean_accuracies
from training.networks.window_match import MatchNet

Floats = NDArray[np.float32]
Ticks = NDArray[np.int64]

ALL_CLIPS = "all"

_BATCH_WINDOWS = 256
_SCORED_WINDOWS = 32  # video windows that are scored at a time: 32 * 31 pairs


@dataclass(frozen=True)
class Encoders:
    """The three functions of a student, whatever a window is encoded into.

    `encode_video` takes the crops [N, 48, 96] (or RGB) and lips [N, 40, 3] of a whole clip and how many
    windows V are wanted, from the first on; `encode_audio` a whole mel and the ticks [A] of the windows
    wanted. So encoders that look beyond a window have what lies there. `score` takes P video and P audio
    windows. `zero_ms` is the audio lead that they see where all is in sync.
    """

    encode_video: Callable[[NDArray[np.uint8], Floats, int], Floats]
    encode_audio: Callable[[MelTrack, Ticks], Floats]
    score: Callable[[Floats, Floats], Floats]
    zero_ms: float = 0.0


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

    return window_encoders(encode_video, encode_audio, dot_score)


def student_encoders(student: Student) -> Encoders:
    """The functions of an exported student."""

    def encode_video(crops: NDArray[np.uint8], lips: Floats, windows: int) -> Floats:
        frames = windows + WINDOW_FRAMES - 1 + student.layout.reach_frames
        return student.encode_video(crops[:frames], lips[:frames])[:windows]

    return Encoders(encode_video, student.encode_audio, student.score, student.zero_ms)


def window_encoders(
    encode_video: Callable[[NDArray[np.uint8], Floats], Floats],
    encode_audio: Callable[[Floats], Floats],
    score: Callable[[Floats, Floats], Floats],
) -> Encoders:
    """The functions of encoders that look at windows alone.

    They take crops [N, 48, 96] and lips -> [N - 4, D], and mels [A, 80, 16] -> [A, D].
    """

    def first_windows(crops: NDArray[np.uint8], lips: Floats, windows: int) -> Floats:
        frames = windows + WINDOW_FRAMES - 1
        return encode_video(crops[:frames], lips[:frames])

    def sounds(mel: MelTrack, ticks: Ticks) -> Floats:
        return encode_audio(mel.windows(ticks).astype(np.float32))

    return Encoders(first_windows, sounds, score)


def dot_score(video: Floats, audio: Floats) -> Floats:
    """Dot products [P] of embeddings [P, D]: the pair graph in numpy."""
    scores: Floats = np.einsum("pd,pd->p", video, audio)
    return scores


def score_clip(clip: LoadedClip, encoders: Encoders, *, max_frames: int | None = None) -> Floats:
    """Scores [V, 31] of a clip, or of its first `max_frames` frames and the sound around them."""
    windows = len(clip.crops[:max_frames]) - WINDOW_FRAMES + 1
    mel = clip.mel.delayed(encoders.zero_ms)
    first, ticks = mel.first_tick, mel.all_ticks
    if max_frames is not None:
        ticks = ticks[ticks < clip.first_tick + max_frames]
    if windows < 1 or not len(ticks):
        return np.zeros((0, CANDIDATES), np.float32)
    with torch.inference_mode():
        video = encoders.encode_video(clip.crops, clip.lips.astype(np.float32), windows)
        audio = encoders.encode_audio(mel, ticks)
        scores = [
            score_offsets(
                video[start : start + _SCORED_WINDOWS],
                audio,
                first_tick_video=clip.first_tick + start,
                first_tick_audio=first,
                score=encoders.score,
            )
            for start in range(0, windows, _SCORED_WINDOWS)
        ]
    return np.concatenate(scores)


@dataclass(frozen=True)
class GroupFigures:
    """Figures of one domain or source: percent right by K, and over how many clips."""

    group: str
    clips: int
    percent: dict[str, float]


def group_figures(
    scored: Iterable[tuple[LoadedClip, Floats]], *, with_all: bool = False
) -> list[GroupFigures]:
    """Figures of every domain, then of every source; "all" is a group too where it is asked for."""
    groups = gather_groups(scored, with_all=with_all)
    return [GroupFigures(name, len(members), mean_accuracies(members)) for name, members in groups.items()]


def gather_groups(
    scored: Iterable[tuple[LoadedClip, Floats]], *, with_all: bool = False
) -> dict[str, list[Floats]]:
    """The scores of every domain's clips, then of every source's, by the groups' names."""
    groups: dict[str, list[Floats]] = {}
    for clip, scores in scored:
        names = [clip.entry.domain, f"{clip.entry.domain}: {clip.entry.source}"]
        for name in names + [ALL_CLIPS] * with_all:
            groups.setdefault(name, []).append(scores)
    return dict(sorted(groups.items(), key=lambda item: (":" in item[0], item[0])))
