"""Exact conversions between presentation times, the 25-fps grid, samples and mel steps.

Times are Fractions of a second on the file's own clock; the grid's origin is the presentation time
of the first picture that is shown, so a 25-fps file meets every tick exactly.
"""

import math
from fractions import Fraction

from avsync_cli.spec import FRAME_MS, MEL_STEPS_PER_SECOND, SAMPLE_RATE_HZ, VIDEO_FPS


def round_half_up(value: Fraction) -> int:
    """The nearest integer; halves go up, so that equal steps stay equal."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def tick_time(tick: int) -> Fraction:
    """Seconds from the grid's origin to a tick of the 25-fps grid."""
    return Fraction(tick, VIDEO_FPS)


def first_tick_from(time_s: float) -> int:
    """The first tick at or after a time given in decimals, such as 0.28: 0.28 s is tick 7."""
    return math.ceil(Fraction(str(time_s)) * VIDEO_FPS)


def sample_at(time_s: Fraction) -> int:
    """The 16-kHz sample nearest to a time from the grid's origin (negative before it)."""
    return round_half_up(time_s * SAMPLE_RATE_HZ)


def mel_step_at(frame: int) -> int:
    """First mel step of the audio window of a video frame.

    A frame is 3.2 mel steps; this floor is the one place where that is rounded, as the published
    evaluation does (`int(80 * i / 25)`).
    """
    return frame * MEL_STEPS_PER_SECOND // VIDEO_FPS


def lead_ms(lead_frames: float) -> float:
    """Audio lead in ms (ITU sign: positive = audio early) from the same in 25-fps frames."""
    return lead_frames * FRAME_MS
