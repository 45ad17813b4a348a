"""From scores to an answer: lead, confidence, uncertainty, or the reason why there is none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsync_cli.confidence import Calibration, judge_confidence
from avsync_cli.offsets import average_curve, count_windows, find_peak, find_rival
from avsync_cli.report import Reason
from avsync_cli.spec import (
    ENOUGH_CONFIDENCE,
    MIN_NO_MATCH_WINDOWS,
    MIN_PASSAGES,
    MIN_USABLE_FRAMES,
    SAME_OFFSET_FRAMES,
    WINDOW_FRAMES,
)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What one face says, or all faces together; `windows` counts those with sound at `lead_frames`.

    `lead_frames` is None only where there is no peak at all; `reason` tells why it is not to be
    relied on, None where it is. `confidence` is the probability that it is within one frame.
    `rival_frames` is another lead that fits about as well in the same seconds, if there is one.
    """

    curve: Floats  # [C]
    windows: int
    lead_frames: float | None
    confidence: float
    uncertainty_ms: float | None
    reason: Reason | None
    rival_frames: float | None = None


def answer_scores(scores: Floats, calibration: Calibration) -> Answer:
    """Judge the scores [V, C] of one face, or of several together."""
    curve = average_curve(scores)
    windows = count_windows(scores, curve)
    peak = find_peak(curve)
    if peak is None:
        return Answer(curve, windows, None, 0.0, None, "too_short")
    confidence = judge_confidence(scores, curve, calibration)
    sure = confidence >= calibration.least_confidence(windows)
    rival = find_rival(scores, curve) if sure else None
    if rival is not None:
        confidence /= 2  # it may be the one as well as the other
    uncertainty_ms = calibration.uncertainty_ms(windows)
    reason: Reason | None = None
    if windows + WINDOW_FRAMES - 1 < MIN_USABLE_FRAMES:
        reason = "too_short"
    elif rival is not None:
        reason = "low_confidence"
    elif confidence < calibration.least_confidence(windows):
        nothing = windows >= MIN_NO_MATCH_WINDOWS and confidence < calibration.no_match_confidence
        reason = "no_match" if nothing else "low_confidence"
    elif peak.at_edge:
        reason = "beyond_range"
    return Answer(curve, windows, peak.lead_frames, confidence, uncertainty_ms, reason, rival)


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


def agree(one: Answer, other: Answer) -> bool:
    """Whether two answers name the same offset to one frame."""
    if one.lead_frames is None or other.lead_frames is None:
        return False
    return abs(one.lead_frames - other.lead_frames) <= SAME_OFFSET_FRAMES
