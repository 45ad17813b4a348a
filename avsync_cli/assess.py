"""From scores to an answer: lead, confidence, uncertainty, or the reason why there is none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsync_cli.model import Calibration
from avsync_cli.report import Reason
from avsync_cli.scan import average_curve, count_windows, curve_features, find_peak
from avsync_cli.spec import (
    CANDIDATES,
    ENOUGH_CONFIDENCE,
    MIN_PASSAGES,
    MIN_SPEECH_FRAMES,
    MIN_USABLE_FRAMES,
    SPEECH_FLOOR_DB,
    SPEECH_MIN_SWING_DB,
    WINDOW_FRAMES,
)

Floats = NDArray[np.float32]


# Of the odds, for every e times as many offsets as 31: with it, the sound of other clips is given an offset
# no more often among 201 than among 31 (`tests/benchmarks/bench_range.py`).
RANGE_PRICE = 0.3


@dataclass(frozen=True)
class Answer:
    """What one face says, or all faces together; `windows` counts those with sound at `lead_frames`.

    `lead_frames` is None only where there is no peak at all; `reason` tells why it is not to be
    relied on, None where it is. `confidence` is the probability that it is within one frame.
    """

    curve: Floats  # [C]
    windows: int
    lead_frames: float | None
    confidence: float
    uncertainty_ms: float | None
    reason: Reason | None


def answer_scores(scores: Floats, calibration: Calibration) -> Answer:
    """Judge the scores [V, C] of one face, or of several together."""
    curve = average_curve(scores)
    windows = count_windows(scores, curve)
    peak = find_peak(curve)
    if peak is None:
        return Answer(curve, windows, None, 0.0, None, "too_short")
    confidence = _confidence(scores, curve, calibration)
    uncertainty_ms = calibration.spread_ms[0] + calibration.spread_ms[1] / np.sqrt(windows)
    reason: Reason | None = None
    if windows + WINDOW_FRAMES - 1 < MIN_USABLE_FRAMES:
        reason = "too_short"
    elif confidence < calibration.min_confidence:
        reason = "low_confidence"
    elif peak.at_edge:
        reason = "beyond_range"
    return Answer(curve, windows, peak.lead_frames, confidence, float(uncertainty_ms), reason)


def choose_answer(answers: list[Answer], together: Answer | None = None) -> int | None:
    """Which of the faces' answers to report; None for the one of all of them together.

    All together goes first where it can be relied on: with many shots, the surest single one may be
    sure by chance. Otherwise the surest reliable face, if most of what the reliable ones saw agrees
    with it to a frame.
    """
    if together is not None and together.reason is None:
        return None
    reliable = [answer for answer in answers if answer.reason is None]
    best = max(
        range(len(answers)), key=lambda place: (answers[place].reason is None, answers[place].confidence)
    )
    agreeing = sum(answer.windows for answer in reliable if agree(answer, answers[best]))
    if together is not None and 2 * agreeing <= sum(answer.windows for answer in reliable):
        return None
    return best


def is_enough(chosen: Answer | None, passages: list[Answer]) -> bool:
    """Whether an answer needs no more passages: it is sure, and what most of them say by themselves.

    A passage that is too short or too uncertain alone counts by its peak all the same: three that agree
    to a frame by chance, out of 31, are one in a hundred.
    """
    if chosen is None or chosen.reason is not None or chosen.confidence < ENOUGH_CONFIDENCE:
        return False
    agreeing = sum(agree(answer, chosen) for answer in passages)
    return agreeing >= MIN_PASSAGES and 3 * agreeing >= 2 * len(passages)


def has_speech(loudness_db: Floats) -> bool:
    """Whether sound of these levels [N] (`sound.loudness_db`) can be speech: loud enough, no steady tone.

    A cheap test that only turns away silence, hum and tones; it does not tell speech from music.
    """
    heard_db = loudness_db[np.isfinite(loudness_db)]
    if len(heard_db) == 0:
        return False
    swing_db = float(np.percentile(heard_db, 95) - np.percentile(heard_db, 5))
    return int((heard_db > SPEECH_FLOOR_DB).sum()) >= MIN_SPEECH_FRAMES and swing_db >= SPEECH_MIN_SWING_DB


def agree(one: Answer, other: Answer) -> bool:
    """Whether two answers name the same offset to one frame."""
    if one.lead_frames is None or other.lead_frames is None:
        return False
    return abs(one.lead_frames - other.lead_frames) <= 1.0


def _confidence(scores: Floats, curve: Floats, calibration: Calibration) -> float:
    """Of the calibration, which was fitted to 31 offsets; among more, chance finds a higher peak."""
    logit = float(np.dot(calibration.weights, curve_features(scores, curve)))
    logit -= RANGE_PRICE * float(np.log(max(1.0, len(curve) / CANDIDATES)))
    return float(1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30))))
