"""The protocol as the published code counts it: for comparison with published figures, and for nothing else.

It differs from `protocol` in what it does at a clip's ends. V video windows: those of the clip but for the
last, which it leaves out. Scores [V, 31] are in the order of `avsync_cli.offsets`: column j is an audio lead
of j - 15.

- For K > 5 all V windows stay; at the ends the mean is over the fewer neighbours that there are.
- Sound outside the clip is hidden on the left in the first 15 windows, on the right in the last 15. In a
  clip of less than 30 windows a window that is among both is hidden on the left alone: its candidates on the
  right are scored with a mel of zeros, and may win.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from avsync_cli.mel import MelTrack
from avsync_cli.offsets import LEADS_FRAMES
from avsync_cli.spec import MEL_BINS, RANGE_FRAMES, SAME_OFFSET_FRAMES, WINDOW_FRAMES, WINDOW_MEL_STEPS
from training.data.clips import LoadedClip
from training.evaluation.protocol import LENGTHS
from training.evaluation.score_clips import Encoders, Floats


def published_scores(clip: LoadedClip, scores: Floats, encoders: Encoders) -> Floats:
    """What the published code would have of a clip's scores [W, 31]: [V, 31], NaN where it hides them."""
    start, end = clip.run
    first = start - clip.first_tick
    windows = max(0, min(end - clip.first_tick, len(scores)) - first - 1)
    if not windows:
        return scores[:0]
    kept = scores[first : first + windows].copy()
    sounds = _sounds(windows)
    inside = (sounds >= 0) & (sounds < windows)
    kept[~inside] = np.nan
    if windows < 2 * RANGE_FRAMES:
        silent = silence_scores(clip, encoders, first + windows)[first:]
        kept = np.where(inside, kept, silent[:, None])
    return hide_outside(kept)


def hide_outside(scores: Floats) -> Floats:
    """Scores [V, 31] of all candidates, with NaN for those that the published code hides."""
    windows = len(scores)
    sounds, rows = _sounds(windows), np.arange(windows)[:, None]
    on_the_left = (rows < RANGE_FRAMES) & (sounds < 0)
    on_the_right = (rows >= max(RANGE_FRAMES, windows - RANGE_FRAMES)) & (sounds >= windows)
    hidden: Floats = np.where(on_the_left | on_the_right, np.nan, scores).astype(np.float32)
    return hidden


def published_accuracy(scores: Floats, frames: int) -> float | None:
    """Share of the V windows that are right with K = `frames` frames; None where there is no window.

    A candidate that one of the neighbours hides cannot win. Of equal scores the sound that comes first wins.
    """
    windows, half = len(scores), (frames - WINDOW_FRAMES) // 2
    if not windows:
        return None
    means = np.stack(
        [scores[max(0, row - half) : row + half + 1].mean(axis=0, dtype=np.float64) for row in range(windows)]
    )
    earliest_first = np.where(np.isnan(means), -np.inf, means)[:, ::-1]
    found = LEADS_FRAMES[::-1][earliest_first.argmax(axis=1)]
    return float(np.mean(np.abs(found) <= SAME_OFFSET_FRAMES))


def published_figures(clips: list[Floats]) -> dict[str, float]:
    """Mean over clips in percent, by K: "5" .. "15"; absent where no clip has a window."""
    figures = {}
    for frames in LENGTHS:
        values = [value for scores in clips if (value := published_accuracy(scores, frames)) is not None]
        if values:
            figures[str(frames)] = 100 * float(np.mean(values))
    return figures


@torch.no_grad()
def silence_scores(clip: LoadedClip, encoders: Encoders, windows: int) -> Floats:
    """Scores [V] of a clip's first V video windows with a mel of zeros."""
    nothing = MelTrack(np.zeros((WINDOW_MEL_STEPS, MEL_BINS), np.float32), 0, 0, 1)
    video = encoders.encode_video(clip.crops, clip.lips.astype(np.float32), windows)
    sound = encoders.encode_audio(nothing, nothing.all_ticks)
    return encoders.score(video, np.repeat(sound, len(video), axis=0))


def _sounds(windows: int) -> NDArray[np.int64]:
    """The audio window [V, 31] of each candidate: that of a lead of 15 frames comes 15 earlier."""
    return np.arange(windows)[:, None] - LEADS_FRAMES
