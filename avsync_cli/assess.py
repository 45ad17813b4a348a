"""From scores to an answer: lead, confidence, uncertainty, or the reason why there is none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsync_cli.media import Sound
from avsync_cli.model import Calibration
from avsync_cli.report import Reason
from avsync_cli.scan import average_curve, curve_features, find_peak
from avsync_cli.spec import (
    CANDIDATES,
    MIN_SPEECH_FRAMES,
    MIN_USABLE_FRAMES,
    SAMPLES_PER_FRAME,
    SPEECH_FLOOR_DB,
    SPEECH_MIN_SWING_DB,
    WINDOW_FRAMES,
)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What one face says, or all faces together.

    `lead_frames` is None only where there is no peak at all; `reason` tells why it is not to be
    relied on, None where it is. `confidence` is the probability that it is within one frame.
    """

    curve: Floats  # [31]
    windows: int
    lead_frames: float | None
    confidence: float
    uncertainty_ms: float | None
    reason: Reason | None


def answer_scores(scores: Floats, calibration: Calibration) -> Answer:
    """Judge the scores [V, 31] of one face, or of several together."""
    windows = len(scores)
    curve = average_curve(scores) if windows else np.full(CANDIDATES, np.nan, np.float32)
    peak = find_peak(curve)
    if peak is None:
        return Answer(curve, windows, None, 0.0, None, "too_short")
    confidence = _confidence(curve, windows, calibration)
    uncertainty_ms = calibration.spread_ms[0] + calibration.spread_ms[1] / np.sqrt(windows)
    reason: Reason | None = None
    if windows + WINDOW_FRAMES - 1 < MIN_USABLE_FRAMES:
        reason = "too_short"
    elif confidence < calibration.min_confidence:
        reason = "low_confidence"
    elif peak.at_edge:
        reason = "beyond_range"
    return Answer(curve, windows, peak.lead_frames, confidence, float(uncertainty_ms), reason)


def choose_answer(answers: list[Answer]) -> Answer:
    """The surest of several answers; one that can be relied on goes before any that cannot."""
    return max(answers, key=lambda answer: (answer.reason is None, answer.confidence))


def has_speech(sound: Sound, ticks: NDArray[np.int64]) -> bool:
    """Whether the sound at these ticks can be speech at all: loud enough, and not a steady tone.

    A cheap test that only turns away silence, hum and tones; it does not tell speech from music.
    """
    starts = ticks * SAMPLES_PER_FRAME - sound.first_sample
    starts = starts[(starts >= 0) & (starts + SAMPLES_PER_FRAME <= len(sound.samples))]
    if len(starts) == 0:
        return False
    frames = np.lib.stride_tricks.sliding_window_view(sound.samples, SAMPLES_PER_FRAME)[starts]
    level_db = 10 * np.log10(np.maximum(np.mean(np.square(frames, dtype=np.float64), axis=1), 1e-12))
    swing_db = float(np.percentile(level_db, 95) - np.percentile(level_db, 5))
    return int((level_db > SPEECH_FLOOR_DB).sum()) >= MIN_SPEECH_FRAMES and swing_db >= SPEECH_MIN_SWING_DB


def _confidence(curve: Floats, windows: int, calibration: Calibration) -> float:
    logit = float(np.dot(calibration.weights, curve_features(curve, windows)))
    return float(1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30))))
