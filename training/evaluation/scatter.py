"""How far a domain's clips lie apart, and how much of it is the clips' own and not the student's noise.

The two halves of a clip share its offset but not the windows' noise: what both say alike is the clip's own.
"""

from dataclasses import dataclass

import numpy as np

from avsync_cli.offsets import average_curve, find_peak
from avsync_cli.spec import WINDOW_FRAMES
from training.evaluation.score_clips import Floats

MAX_LEAD_FRAMES = 2.5  # beyond it a lead is a wrong peak and says nothing of the clip's offset


@dataclass(frozen=True)
class Scatter:
    """Of `clips` clips: median and standard deviation of their leads in frames; correlation of the
    leads of their first and second halves, and the standard deviation that is the clips' own."""

    clips: int
    median_frames: float
    deviation_frames: float
    correlation: float
    own_deviation_frames: float


def measure_scatter(clips: list[Floats]) -> Scatter:
    """Scatter of clips given by their scores [V, 31]; at least three must have a peak near zero."""
    rows = []
    for scores in clips:
        middle = len(scores) // 2
        # The windows around the middle share pictures, so they are left to neither half.
        apart = WINDOW_FRAMES // 2
        leads = [_lead(part) for part in (scores, scores[: middle - apart], scores[middle + apart :])]
        if max(abs(lead) for lead in leads) <= MAX_LEAD_FRAMES:
            rows.append(leads)
    whole, first, second = np.array(rows).T
    correlation = float(np.corrcoef(first, second)[0, 1])
    shared = float(np.cov(first, second)[0, 1])
    return Scatter(
        len(rows), float(np.median(whole)), float(whole.std()), correlation, float(np.sqrt(max(0.0, shared)))
    )


def _lead(scores: Floats) -> float:
    """Audio lead in frames; infinite where there is no peak."""
    peak = find_peak(average_curve(scores))
    return float("inf") if peak is None else peak.lead_frames
