"""The paper's protocol: how often the best of 31 offsets lies within a frame of the truth.

V video windows. Scores [V, 31] are those of `avsync_cli.offsets`: column j belongs to an audio lead of
j - 15 frames, NaN where the sound has no such window, at either end of the clip.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from avsync_cli.offsets import LEADS_FRAMES, average_curve
from avsync_cli.spec import RANGE_FRAMES, SAME_OFFSET_FRAMES, WINDOW_FRAMES

LENGTHS = (5, 7, 9, 11, 13, 15)  # frames, K

Floats = NDArray[np.float32]


def averaged_scores(scores: Floats, frames: int) -> Floats:
    """Scores of K = `frames` frames: means over K - 4 neighbouring windows, [V, 31] -> [V - K + 5, 31].

    A stretch of K frames is compared only with K frames of sound that lie wholly inside the clip, so
    a mean with a missing window is missing.
    """
    windows = frames - WINDOW_FRAMES + 1
    if len(scores) < windows:
        return scores[:0]
    neighbours = np.lib.stride_tricks.sliding_window_view(scores, windows, axis=0)  # [V', 31, windows]
    means: Floats = neighbours.mean(axis=2, dtype=np.float64).astype(np.float32)
    return means


def accuracy(scores: Floats, frames: int, *, truth_frames: int = 0) -> float | None:
    """Share of a clip's stretches of K frames that are right; None where none can be judged."""
    means = averaged_scores(scores, frames)
    judged = np.isfinite(means[:, truth_frames + RANGE_FRAMES])
    if not judged.any():
        return None
    found = LEADS_FRAMES[np.nanargmax(means[judged], axis=1)]
    return float(np.mean(np.abs(found - truth_frames) <= SAME_OFFSET_FRAMES))


def clip_is_right(scores: Floats, *, truth_frames: int = 0) -> bool | None:
    """Whether the whole clip's curve, as the tool averages it, peaks within a frame of the truth."""
    curve = average_curve(scores)
    if not np.isfinite(curve).any():
        return None
    found = int(LEADS_FRAMES[np.nanargmax(curve)])
    return abs(found - truth_frames) <= SAME_OFFSET_FRAMES


def competing_scores(scores: Floats) -> Floats:
    """Scores [V, 31] less what their sound scores with the windows around: log of the mean of e^score.

    Sound that resembles every mouth of a clip then wins nothing by it, as the windows compete for the sound
    too. So a window is no longer judged by its own 5 frames alone: this is not the paper's protocol.
    """
    windows, columns = scores.shape
    shape = (windows, windows + columns - 1)
    by_sound = np.full(shape, -np.inf)  # row: window; column: sound, which is the same along a diagonal of it
    sounds = np.arange(windows)[:, None] + np.arange(columns)[::-1]
    np.put_along_axis(by_sound, sounds, np.where(np.isfinite(scores), scores, -np.inf), axis=1)
    heard = np.isfinite(by_sound).sum(axis=0)
    levels = logsumexp(by_sound, axis=0) - np.log(np.maximum(heard, 1))
    competing: Floats = (scores - levels[sounds]).astype(np.float32)
    return competing


def mean_accuracies(clips: list[Floats]) -> dict[str, float]:
    """Mean over clips of each figure in percent: "5" .. "15" and "clip"; absent where none counts."""
    figures: dict[str, list[float]] = {}
    for scores in clips:
        for frames in LENGTHS:
            _add(figures, str(frames), accuracy(scores, frames))
        _add(figures, "clip", clip_is_right(scores))
    return {name: 100 * float(np.mean(values)) for name, values in figures.items()}


def _add(figures: dict[str, list[float]], name: str, value: float | None) -> None:
    if value is not None:
        figures.setdefault(name, []).append(float(value))
