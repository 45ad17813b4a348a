"""What may be asked of a check, apart from the models that it is asked of."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from avsync_cli.container import parse_audio_stream
from avsync_cli.errors import ConfigError
from avsync_cli.speakers import AUTO, parse_speaker
from avsync_cli.spec import (
    DEFAULT_TOLERANCE,
    EVERY_S,
    MAX_RANGE_FRAMES,
    MIN_EVERY_S,
    RANGE_FRAMES,
    Tolerance,
    parse_tolerance,
)


@dataclass(frozen=True)
class CheckOptions:
    """How a file is to be checked. Raises ConfigError where that cannot be done.

    `tolerance` as for `spec.parse_tolerance`. `audio` checks against a separate sound file, which begins
    with the first picture; `audio_stream` against the sound of that number, from 0, or with "auto" against
    one that has a voice where that marked as default has none. `start_s` and `end_s` restrict the check to
    a part. What is longer than `WHOLE_S` is looked at in places, as many as it takes,
    unless `full`. Offsets of up to `range_frames` frames are tried. `speaker` is "auto" (the faces that
    speak), "all" or the number of a face, from 1 in the order of `tracks`, which implies `full`; the
    timeline has a point for every `every_s` seconds.
    """

    tolerance: str | Tolerance = DEFAULT_TOLERANCE
    audio: str | Path | None = None
    audio_stream: str | int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    full: bool = False
    range_frames: int = RANGE_FRAMES
    speaker: str | int = AUTO
    every_s: float = EVERY_S

    def __post_init__(self) -> None:
        parse_tolerance(self.tolerance)
        parse_speaker(str(self.speaker))
        parse_audio_stream(self.audio_stream)
        if self.audio is not None and self.audio_stream is not None:
            raise ConfigError("audio and audio_stream are two sounds to check against: give one of them")
        if not MIN_EVERY_S <= self.every_s < math.inf:
            raise ConfigError(
                f"every {self.every_s:g} s: a timeline needs stretches of {MIN_EVERY_S:g} s and more"
            )
        if not RANGE_FRAMES <= self.range_frames <= MAX_RANGE_FRAMES:
            raise ConfigError(
                f"range {self.range_frames}: must be {RANGE_FRAMES} to {MAX_RANGE_FRAMES} frames"
            )

    @property
    def limits(self) -> Tolerance:
        return parse_tolerance(self.tolerance)


class ArrayKeywords(TypedDict, total=False):
    """The same as keywords of `check_arrays`, which is given its sound."""

    tolerance: str | Tolerance
    start_s: float
    end_s: float | None
    full: bool
    range_frames: int
    speaker: str | int
    every_s: float


class CheckKeywords(ArrayKeywords, total=False):
    """The same as keywords of `check_file`."""

    audio: str | Path | None
    audio_stream: str | int | None
