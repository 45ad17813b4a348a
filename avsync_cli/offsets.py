"""The offset scan: scores of every window at C offsets, their curve and its peak.

C = 2 r + 1 for a range of r frames, 31 unless a wider one is asked for. Column j of scores and curves
belongs to an audio lead of j - r frames (ITU sign: positive = audio early): the sound that fits video
tick t is then heard at tick t - (j - r).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsync_cli.spec import CANDIDATES, RANGE_FRAMES, VIDEO_FPS

Floats = NDArray[np.float32]
Scorer = Callable[[Floats, Floats], Floats]  # video [P, D], audio [P, E] -> scores [P]

LEADS_FRAMES = np.arange(-RANGE_FRAMES, RANGE_FRAMES + 1)  # [31], of the usual range
_PAIRS_AT_ONCE = 1024  # the tokens of a pair may be 43 kB: a minute's would be 2 GB
PEAK_HALF_WIDTH = 2  # frames on each side that belong to a peak, not to its rivals
# A second peak that is nearly as high, in the same seconds, is that of an echo. Of 45 answered stretches of
# 1.6 s and more of validation clips none has one of 0.6; a voice of regular syllables may reach 0.66.
_RIVAL_HEIGHT = 0.72  # of the first peak's, over the median of the curve
_RIVAL_SHARE = 0.5  # of it that is there in the same seconds
_RIVAL_WINDOWS = 40  # fewer make second peaks by chance
WINDOWS_AT_ONCE = 1000  # averaged: copies of a film's scores would be several times as large as they


@dataclass(frozen=True)
class Peak:
    """The best offset of a curve: lead in frames (to a fraction), and whether it lies at the edge."""

    lead_frames: float
    at_edge: bool


def leads_of(columns: int) -> NDArray[np.int64]:
    """Audio leads in frames [C] of the columns of a curve."""
    return np.arange(columns) - columns // 2


def score_offsets(
    video: Floats,
    audio: Floats,
    *,
    first_tick_video: int,
    first_tick_audio: int,
    score: Scorer,
    range_frames: int = RANGE_FRAMES,
) -> Floats:
    """Score consecutive video windows [V, D] against the audio windows [A, E] at C offsets: [V, C].

    NaN where the sound has no such window: an offset is never scored against sound that is not there.
    """
    leads = leads_of(2 * range_frames + 1)
    scores = np.full((len(video), len(leads)), np.nan, np.float32)
    if len(video) == 0 or len(audio) == 0:
        return scores
    ticks = first_tick_video + np.arange(len(video))
    wanted = ticks[:, None] - leads - first_tick_audio  # [V, C] rows of `audio`
    pairs = np.argwhere((wanted >= 0) & (wanted < len(audio)))
    for first in range(0, len(pairs), _PAIRS_AT_ONCE):
        rows, columns = pairs[first : first + _PAIRS_AT_ONCE].T
        scores[rows, columns] = score(video[rows], audio[wanted[rows, columns]])
    return scores


def average_curve(scores: Floats) -> Floats:
    """Mean over all windows of how much each offset stands out: [V, C] -> [C].

    Every window's scores are taken relative to their own mean, and an offset whose sound is missing
    counts as that mean, neither for nor against. So in a short clip an offset that few windows speak
    for does not win by the luck of the few. NaN where no window has the offset.
    """
    sums, windows = np.zeros(scores.shape[1]), 0
    spoken_for = np.zeros(scores.shape[1], bool)
    for first in range(0, len(scores), WINDOWS_AT_ONCE):
        relative, present = take_relative(scores[first : first + WINDOWS_AT_ONCE])
        sums += relative.sum(axis=0)
        windows += int(present.any(axis=1).sum())
        spoken_for |= present.any(axis=0)
    curve: Floats = np.where(spoken_for, sums / max(1, windows), np.nan).astype(np.float32)
    return curve


def take_relative(scores: Floats) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores [V, C] less the mean of their window, 0 where there is none; and where there are some [V, C]."""
    present = np.isfinite(scores)
    filled = np.where(present, scores, 0).astype(np.float64)
    means = filled.sum(axis=1, keepdims=True) / np.maximum(present.sum(axis=1, keepdims=True), 1)
    return np.where(present, filled - means, 0), present


def count_windows(scores: Floats, curve: Floats) -> int:
    """How many of the windows [V, C] have sound at the best offset of their curve [C]."""
    if not np.isfinite(curve).any():
        return 0
    return int(np.isfinite(scores[:, int(np.nanargmax(curve))]).sum())


def find_peak(curve: Floats) -> Peak | None:
    """The highest point of a curve [C], refined by the parabola through its neighbours.

    None where the curve has no value at all. A peak with no neighbour on one side is at the edge: the
    true offset may lie beyond, so it is reported as such and not refined.
    """
    if not np.isfinite(curve).any():
        return None
    best, leads = int(np.nanargmax(curve)), leads_of(len(curve))
    if best in (0, len(curve) - 1) or not np.isfinite(curve[best - 1 : best + 2]).all():
        return Peak(float(leads[best]), at_edge=True)
    before, top, after = (float(value) for value in curve[best - 1 : best + 2])
    bend = before - 2 * top + after
    shift = 0.0 if bend == 0 else 0.5 * (before - after) / bend
    return Peak(float(leads[best]) + shift, at_edge=False)


def find_rival(scores: Floats, curve: Floats) -> float | None:
    """Lead in frames of a second peak of the curve [C] of scores [V, C] that nearly equals the first.

    None where there is none. Both must stand out in the same seconds: two offsets one after the other are an
    edit. A voice that is heard again, as loud, fits twice. Among more offsets than the usual ones none is
    looked for: there chance makes second peaks.
    """
    if count_windows(scores, curve) < _RIVAL_WINDOWS or len(curve) > CANDIDATES:
        return None
    best, median = int(np.nanargmax(curve)), float(np.nanmedian(curve))
    before, inner, after = curve[:-2], curve[1:-1], curve[2:]
    places = 1 + np.flatnonzero((inner >= before) & (inner >= after))  # never beside NaN
    rivals = places[np.abs(places - best) > PEAK_HALF_WIDTH]
    if len(rivals) == 0:
        return None
    rival = int(rivals[curve[rivals].argmax()])
    if curve[rival] - median < _RIVAL_HEIGHT * (curve[best] - median):
        return None
    heights = []
    for part in np.array_split(scores, max(1, len(scores) // VIDEO_FPS)):
        relative, _ = take_relative(part)
        means = relative.mean(axis=0)
        heights.append(means[[best, rival]] - np.median(means))
    both = float(np.min(heights, axis=1).mean())
    if both < _RIVAL_SHARE * float(np.mean(heights, axis=0)[0]):
        return None
    return float(leads_of(len(curve))[rival])
