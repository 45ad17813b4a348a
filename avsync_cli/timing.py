"""Exact conversions between presentation times, the 25-fps grid, samples and mel steps.

Times are Fractions of a second on the file's own clock; the grid's origin is the presentation time
of the first picture that is shown, so a 25-fps file meets every tick exactly.
"""

import math
from fractions import Fraction

from avsync_cli.errors import ConfigError
from avsync_cli.spec import FRAME_MS, MEL_STEPS_PER_SECOND, SAMPLE_RATE_HZ, VIDEO_FPS

DELAY_STEP_MS = 200 / MEL_STEPS_PER_SECOND  # 2.5 ms: a fifth of a mel step
_FIFTHS_PER_FRAME = 5 * MEL_STEPS_PER_SECOND // VIDEO_FPS  # 16


def round_half_up(value: Fraction) -> int:
    """The nearest integer; halves go up, so that equal steps stay equal."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def tick_time(tick: int) -> Fraction:
    """Seconds from the grid's origin to a tick of the 25-fps grid."""
    return Fraction(tick, VIDEO_FPS)


def parse_time(value: str | float) -> float:
    """Seconds of a moment given as seconds, MM:SS or HH:MM:SS, the last with decimals. Raises ConfigError."""
    parts = str(value).strip().removesuffix("s").split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    whole = all(part.isdecimal() for part in parts[:-1])
    if not 1 <= len(numbers) <= 3 or not whole or not all(0 <= number < math.inf for number in numbers):
        raise ConfigError(f"{value!r}: is no moment; write seconds, MM:SS or HH:MM:SS, such as 00:01:05.5")
    if any(number >= 60 for number in numbers[1:]):
        raise ConfigError(f"{value!r}: minutes and seconds behind a colon are below 60")
    return math.fsum(number * 60.0**place for place, number in enumerate(reversed(numbers)))


def first_tick_from(time_s: float) -> int:
    """The first tick at or after a time given in decimals, such as 0.28: 0.28 s is tick 7."""
    return math.ceil(Fraction(str(time_s)) * VIDEO_FPS)


def sample_at(time_s: Fraction) -> int:
    """The 16-kHz sample nearest to a time from the grid's origin (negative before it)."""
    return round_half_up(time_s * SAMPLE_RATE_HZ)


def mel_step_at(frame: int, *, delay_ms: float = 0.0) -> int:
    """First mel step of the audio window of a video frame, in a sound that is to be heard `delay_ms` later.

    A frame is 3.2 mel steps; this floor is the one place where that is rounded, as the published
    evaluation does (`int(80 * i / 25)`). Delays count in fifths of a step (`DELAY_STEP_MS`): with them the
    windows' mean distance from their frames moves by just the delay.
    """
    fifths = _FIFTHS_PER_FRAME * frame - round(delay_ms / DELAY_STEP_MS)
    return fifths // 5


def lead_ms(lead_frames: float) -> float:
    """Audio lead in ms (ITU sign: positive = audio early) from the same in 25-fps frames."""
    return lead_frames * FRAME_MS
