"""How sure an answer is: features of its curve, turned into a probability by a student's calibration."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsync_cli.errors import ModelError
from avsync_cli.offsets import PEAK_HALF_WIDTH, average_curve, count_windows
from avsync_cli.spec import CANDIDATES, SAME_OFFSET_FRAMES

Floats = NDArray[np.float32]

CURVE_FEATURES = 6  # numbers that `curve_features` gives
_FIRST_FEATURES = 5  # that the first calibrations weigh; they say nothing of the others
# The log-odds of an answer fall by this times ln(offsets tried / 31). So the sound of other clips is given an
# offset no more often among 201 than among 31 (`tests/benchmarks/bench_range.py`).
RANGE_PRICE = 0.3
_PART_WINDOWS = 12  # of a part that is asked by itself: half a second
_SCATTER = 10.0  # of one window's score, about; only brings the features to the order of one
_LEVEL = 5.0  # of the mean score at a true peak, about; the same
_MOST = 1e6  # of any number of a calibration; NaN and infinity are not less


@dataclass(frozen=True)
class Calibration:
    """Turns a curve into a probability; fitted on clips that were not trained on.

    `weights` belong to `curve_features`. 90 % of the accepted answers are right to within
    spread_ms[0] + spread_ms[1] / sqrt(windows) of the student's zero, which itself is known to
    `zero_uncertainty_ms` in 90 of 100 cases. Hardly any face with its own voice has a confidence below
    `no_match_confidence`, once it has been seen for long enough. An answer is given from `min_confidence`
    on; from fewer windows than the first number of a pair in `short_confidence` from the second one on.
    """

    weights: tuple[float, ...]
    min_confidence: float
    spread_ms: tuple[float, float]
    no_match_confidence: float = 0.0
    short_confidence: tuple[tuple[int, float], ...] = ()
    zero_uncertainty_ms: float = 0.0

    def least_confidence(self, windows: int) -> float:
        """The confidence from which on an answer of so many windows is given."""
        return next((least for most, least in self.short_confidence if windows < most), self.min_confidence)

    def uncertainty_ms(self, windows: int) -> float:
        """What 90 % of the answers from so many windows are right to."""
        spread_ms = self.spread_ms[0] + self.spread_ms[1] / math.sqrt(windows)
        return math.hypot(spread_ms, self.zero_uncertainty_ms)


def read_calibration(values: dict[str, Any] | None, path: Path) -> Calibration | None:
    """The calibration that `path`, a student's `model.json`, declares as plain JSON `values`; None where it
    has none. Raises ModelError.
    """
    if values is None:
        return None
    try:
        weights = tuple(float(weight) for weight in values["weights"])
        if len(weights) == _FIRST_FEATURES:
            weights += (0.0,) * (CURVE_FEATURES - _FIRST_FEATURES)
        floor_ms, slope_ms = (float(value) for value in values["spread_ms"])
        least, no_match = float(values["min_confidence"]), float(values.get("no_match_confidence", 0.0))
        short = tuple((int(most), float(sure)) for most, sure in values.get("short_confidence", ()))
        numbers = (*weights, floor_ms, slope_ms, least, no_match, *(sure for _, sure in short))
        if len(weights) != CURVE_FEATURES or not all(abs(number) <= _MOST for number in numbers):
            raise ValueError("not the numbers that the confidence is made from")
        if min(floor_ms, slope_ms) < 0 or not all(0 <= p <= 1 for p in (least, no_match)):
            raise ValueError("not a spread and probabilities")
    except (AttributeError, KeyError, IndexError, OverflowError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its calibration cannot be read") from error
    return Calibration(weights, least, (floor_ms, slope_ms), no_match, short)


def judge_confidence(scores: Floats, curve: Floats, calibration: Calibration) -> float:
    """Probability that the peak of a curve [C] of the scores [V, C] is within one frame.

    The calibration was fitted to 31 offsets; among more, chance finds a higher peak.
    """
    logit = float(np.dot(calibration.weights, curve_features(scores, curve)))
    logit -= RANGE_PRICE * float(np.log(max(1.0, len(curve) / CANDIDATES)))
    return float(1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30))))


def curve_features(scores: Floats, curve: Floats) -> NDArray[np.float64]:
    """What the confidence is judged by: [6] constant, height, margin, log of windows, agreement, level.

    Height is the peak of the curve [31] of the scores [V, 31] over its median; margin the peak over the best
    rival that is no neighbour of it. Both are taken in units of the curve's scatter, which falls with the
    square root of the number of windows: a low peak is chance in a short clip and a find in a long one.
    Agreement is the share of the clip's parts of half a second whose own best offset is the same. Level is
    the mean score at the peak as it is: of another's voice some offset fits best, but none fits well.
    """
    best = int(np.nanargmax(curve))
    windows = max(1, count_windows(scores, curve))
    agreement, level = _agreement(scores, best), float(np.nanmean(scores[:, best])) / _LEVEL
    rivals = curve.copy()
    rivals[max(0, best - PEAK_HALF_WIDTH) : best + PEAK_HALF_WIDTH + 1] = np.nan
    if not np.isfinite(rivals).any():
        return np.array([1.0, 0.0, 0.0, np.log(windows), agreement, level])
    top, unit = float(curve[best]), _SCATTER / np.sqrt(windows)
    height, margin = top - float(np.nanmedian(curve)), top - float(np.nanmax(rivals))
    return np.array([1.0, height / unit, margin / unit, np.log(windows), agreement, level])


def _agreement(scores: Floats, best: int) -> float:
    """Share of the parts of the scores [V, 31] that peak within a frame of column `best`."""
    parts = np.array_split(scores, max(1, len(scores) // _PART_WINDOWS))
    curves = [curve for curve in map(average_curve, parts) if np.isfinite(curve).any()]
    agreeing = [abs(int(np.nanargmax(curve)) - best) <= SAME_OFFSET_FRAMES for curve in curves]
    return float(np.mean(agreeing)) if agreeing else 0.0
