"""SMPTE timecode: the name of a picture, as editors and broadcasters say it (SMPTE ST 12-1)."""

import re
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from avsync_cli.container import main_video
from avsync_cli.decoder import open_container
from avsync_cli.errors import ConfigError
from avsync_cli.spec import VIDEO_FPS

_WRITTEN = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")
_DROPPED = {30: 2, 60: 4}  # numbers left out each minute but the tenth, by the numbers of a second


@dataclass(frozen=True)
class Timecode:
    """A first picture's number, and the rate at which pictures are numbered."""

    first: int
    rate: Fraction
    is_drop: bool = False

    def at(self, time_s: float) -> str:
        """The timecode of the picture that is shown at a time, in seconds from the first picture."""
        number = self.first + round(time_s * self.rate)
        counted = round(self.rate)
        if self.is_drop:
            number += _left_out(number, counted)
        seconds, frames = divmod(number, counted)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        separator = ";" if self.is_drop else ":"
        return f"{hours % 24:02}:{minutes:02}:{seconds:02}{separator}{frames:02}"


@dataclass(frozen=True)
class Clock:
    """How many pictures a second a file has, and their timecode where it is known."""

    rate: Fraction
    timecode: Timecode | None

    @property
    def counted(self) -> Timecode:
        """The timecode, counted from 0 where none is known."""
        return self.timecode or Timecode(0, self.rate)


def read_clock(path: Path, given: str | None = None) -> Clock:
    """A file's clock; `given` is the timecode of its first picture, else it is the file's own.

    Raises MediaError where the file cannot be opened, ConfigError where `given` is no timecode.
    """
    with open_container(path) as container:
        video = main_video(container)
        rate = Fraction(VIDEO_FPS) if video is None else Fraction(video.average_rate or VIDEO_FPS)
        own = None if video is None else video.metadata.get("timecode")
    if given is not None:
        return Clock(rate, parse_timecode(given, rate))
    with suppress(ConfigError):  # what a file says of itself may be nonsense
        return Clock(rate, None if own is None else parse_timecode(own, rate))
    return Clock(rate, None)


def parse_timecode(text: str, rate: Fraction) -> Timecode:
    """The timecode of a first picture, HH:MM:SS:FF, with ; before FF for drop frame. Raises ConfigError."""
    match = _WRITTEN.fullmatch(text.strip())
    counted = round(rate)
    if match is None or counted < 1:
        raise ConfigError(f"timecode {text!r}: is not HH:MM:SS:FF")
    hours, minutes, seconds, frames = (int(match[place]) for place in (1, 2, 3, 5))
    if minutes > 59 or seconds > 59 or frames >= counted:
        raise ConfigError(f"timecode {text!r}: there is no such picture at {float(rate):g} a second")
    is_drop = match[4] == ";" and counted in _DROPPED and rate.denominator != 1
    number = ((hours * 60 + minutes) * 60 + seconds) * counted + frames
    if is_drop:
        whole_minutes = hours * 60 + minutes
        number -= _DROPPED[counted] * (whole_minutes - whole_minutes // 10)
    return Timecode(number, rate, is_drop)


def _left_out(number: int, counted: int) -> int:
    """How many numbers were left out up to the picture of a number that counts without gaps."""
    dropped = _DROPPED[counted]
    ten_minutes = 600 * counted - 9 * dropped
    tens, rest = divmod(number, ten_minutes)
    minutes = max(0, (rest - dropped) // (60 * counted - dropped)) if rest >= dropped else 0
    return dropped * (9 * tens + minutes)
