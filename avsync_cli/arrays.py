"""Pictures and sound that are arrays, and no file: checked as a file that holds them would be.

Pictures [H, W, 3] uint8 RGB; sound [S] or [C, S].
"""

import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any, Unpack

import av
import numpy as np
from numpy.typing import NDArray

from avsync_cli.check import (
    Asked,
    Engine,
    Progress,
    Seen,
    choose_engine,
    conclude,
    look_with,
    require_calibration,
)
from avsync_cli.container import MediaInfo
from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.gate import LimitError, refuse_sound
from avsync_cli.grid import TimedFrame, show_pictures
from avsync_cli.media import refuse_no_part
from avsync_cli.options import ArrayKeywords, CheckOptions
from avsync_cli.report import Report
from avsync_cli.scoring import Stopwatch
from avsync_cli.sound import Heard, MonoMixer, Recorder, Sound
from avsync_cli.spec import Wanted
from avsync_cli.timing import first_tick_from, tick_time

Seconds = Fraction | float  # an int is a float, too
TimedPicture = tuple[NDArray[np.uint8], Seconds]

_MOST_S = 1 << 63  # either way: no clock is there, and what is further off no float can hold
_FINEST_DECIMAL = -1000  # a power of ten
_LEAST_FPS = Fraction(1, 1000)
_LOUDEST = 8.0  # of floats: recordings may go beyond 1, numbers of 16 bits go beyond this


def check_arrays(
    frames: NDArray[np.uint8] | Iterable[TimedPicture],
    *,
    audio: NDArray[Any],
    sample_rate: int,
    fps: Seconds | None = None,
    audio_start_s: Seconds = 0,
    name: str = "arrays",
    options: CheckOptions | None = None,
    engine: Engine | None = None,
    model: str | Path | None = None,
    threads: int = 0,
    precision: Wanted = "auto",
    progress: Progress | None = None,
    **keywords: Unpack[ArrayKeywords],
) -> Report:
    """Check whether the mouth moves with the voice in pictures and sound that are arrays.

    `frames` are uint8 RGB pictures [N, H, W, 3], `fps` a second, the first at 0 s; or pairs of a picture
    [H, W, 3] and its time in s, later from one to the next, which are taken one by one (perhaps in another
    thread) and not kept. `audio` is [S] or [C, S], floats in -1..1 or int16, and begins at `audio_start_s` on
    the same clock. A time is exact as a Fraction, and as the decimals that a float is printed with. All of it
    is looked at, however long it is. The report calls it `name`.

    Options and models as for `check_file`, without `audio` and `audio_stream`. Raises ConfigError for arrays
    that are something else, MediaError where there are no pictures, no sound, or more than is allowed.
    """
    options = replace(options or CheckOptions(), **keywords)
    if options.audio is not None or options.audio_stream is not None:
        raise ConfigError(f"{name}: the sound is the array: there is no other and no audio_stream")
    refuse_no_part(options.start_s, options.end_s)
    pictures = _timed_pictures(frames, fps, name)
    first = next(pictures, None)
    if first is None:
        raise MediaError(f"{name}: there are no pictures", "no_video")
    heard_s = exact_time(audio_start_s, f"{name}: audio_start_s") - first[0]
    sound = _read_sound(audio, sample_rate, heard_s, name)
    engine = choose_engine(engine, model, threads=threads, precision=precision)
    calibration = require_calibration(engine)
    asked = Asked(Path(name), options, None, sound, engine, calibration, Stopwatch(), progress)
    info = _describe(frames, fps)
    counted = _Counted(chain([first], pictures), name)
    shown = show_pictures(
        counted.until(options.end_s),
        None,
        first_tick=first_tick_from(options.start_s),
        stop_tick=None if options.end_s is None else first_tick_from(options.end_s),
    )
    try:
        look = look_with(asked, shown, Heard(sound), info.duration_s)
    except LimitError as error:
        raise MediaError(f"{name}: {error}") from error
    if look is None:
        raise MediaError(f"{name}: there is no sound", "no_audio")
    report, _ = conclude(asked, info, None, Seen([look], counted.count))
    return replace(report, file=name, full=True)


def exact_time(value: Seconds, what: str) -> Fraction:
    """A time in s, of a float the decimals that it is printed with. Raises ConfigError."""
    try:
        if isinstance(value, Real | Decimal) and not isinstance(value, bool) and _is_moderate(value):
            return value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ArithmeticError):  # not a number
        pass
    raise ConfigError(f"{what}: {_shorten(value)} is no time in seconds")


def picture_frame(rgb: NDArray[np.uint8], what: str) -> av.VideoFrame:
    """A copy of a picture as a frame without a time. Raises ConfigError."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ConfigError(f"{what}: {_kind_of(rgb)} is no picture: it must be uint8 [H, W, 3], RGB")
    if min(rgb.shape[:2]) < 2:
        raise ConfigError(f"{what}: a picture of {rgb.shape[1]} x {rgb.shape[0]} pixels")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")


def float_channels(audio: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Sound as float32 [C, S] in -1..1. Raises ConfigError."""
    is_array = isinstance(audio, np.ndarray) and audio.ndim in (1, 2)
    if not is_array or not (audio.dtype == np.int16 or audio.dtype.kind == "f"):
        raise ConfigError(f"{what}: {_kind_of(audio)} is no sound: float or int16, [S] or [channels, S]")
    planes = np.atleast_2d(audio)
    if planes.shape[0] > planes.shape[1] > 0:
        raise ConfigError(
            f"{what}: [{planes.shape[0]}, {planes.shape[1]}] must be [channels, S]: turn it (.T)"
        )
    if audio.dtype == np.int16:
        return planes.astype(np.float32) / np.float32(32_768)
    samples = planes.astype(np.float32)
    if not np.isfinite(samples).all():
        raise ConfigError(f"{what}: there are samples that are no numbers (NaN or infinity)")
    if samples.size and float(np.abs(samples).max()) > _LOUDEST:
        raise ConfigError(f"{what}: samples of up to {np.abs(samples).max():g}: floats must lie in -1..1")
    return samples


def refuse_rate(sample_rate: int, channels: int, what: str) -> None:
    """Raises ConfigError for what is no rate in Hz, MediaError for one, or channels, beyond the limits."""
    if not isinstance(sample_rate, int | np.integer) or sample_rate <= 0:
        raise ConfigError(f"{what}: sample_rate {sample_rate!r}: must be a whole number of Hz above 0")
    try:
        refuse_sound(int(sample_rate), channels)
    except LimitError as error:
        raise MediaError(f"{what}: {error}") from error


class _Counted:
    """Pictures that are counted, and refused where the next is not later."""

    def __init__(self, pictures: Iterable[TimedFrame], name: str) -> None:
        self._pictures = pictures
        self._name = name
        self.count = 0

    def until(self, end_s: float | None) -> Iterator[TimedFrame]:
        """The frames, in seconds from the first one; no more of them than [0, end_s) needs."""
        origin_s = last_s = None
        stop_s = None if end_s is None else tick_time(first_tick_from(end_s))
        for time_s, frame in self._pictures:
            if last_s is not None and time_s <= last_s:
                words = f"is at {float(time_s):g} s, not later than the one before, at {float(last_s):g} s"
                raise ConfigError(f"{self._name}: picture {self.count} {words}")
            origin_s = time_s if origin_s is None else origin_s
            last_s = time_s
            self.count += 1
            yield time_s - origin_s, frame
            if stop_s is not None and time_s - origin_s > stop_s:
                return


def _timed_pictures(
    frames: NDArray[np.uint8] | Iterable[TimedPicture], fps: Seconds | None, name: str
) -> Iterator[TimedFrame]:
    """Frames and their times. Raises ConfigError, for a whole array at once."""
    if isinstance(frames, np.ndarray):
        if frames.ndim != 4:
            raise ConfigError(f"{name}: {_kind_of(frames)} are no pictures: uint8 [N, H, W, 3], RGB")
        step_s = 1 / _parse_fps(fps, name)
        return (
            (number * step_s, picture_frame(rgb, f"{name}: picture {number}"))
            for number, rgb in enumerate(frames)
        )
    if fps is not None:
        raise ConfigError(f"{name}: pairs of pictures and times have no fps")
    return _paired(frames, name)


def _paired(frames: Iterable[TimedPicture], name: str) -> Iterator[TimedFrame]:
    for number, pair in enumerate(frames):
        what = f"{name}: picture {number}"
        try:
            rgb, time_s = pair
        except (TypeError, ValueError):
            raise ConfigError(f"{what}: is no pair of a picture and its time in s") from None
        yield exact_time(time_s, what), picture_frame(rgb, what)


def _parse_fps(fps: Seconds | None, name: str) -> Fraction:
    if fps is None:
        raise ConfigError(f"{name}: an array of pictures needs fps")
    rate = exact_time(fps, f"{name}: fps")
    if rate <= 0:
        raise ConfigError(f"{name}: fps {fps}: must be above 0")
    if rate < _LEAST_FPS:
        raise ConfigError(f"{name}: fps {fps}: must be {float(_LEAST_FPS):g} or more")
    return rate


def _read_sound(audio: NDArray[Any], sample_rate: int, start_s: Fraction, name: str) -> Sound | None:
    """The sound, whose first sample is heard at `start_s` from the first picture on."""
    what = f"{name}: audio"
    samples = float_channels(audio, what)
    refuse_rate(sample_rate, len(samples), what)
    recorder, mixer = Recorder(), MonoMixer(len(samples), int(sample_rate))
    for first in range(0, samples.shape[1], sample_rate):
        recorder.add(mixer.mix(samples[:, first : first + sample_rate]))
    return recorder.sound(-start_s)


def _describe(frames: NDArray[np.uint8] | Iterable[TimedPicture], fps: Seconds | None) -> MediaInfo:
    if isinstance(frames, np.ndarray) and fps is not None:
        return MediaInfo(float(len(frames) / _parse_fps(fps, "")), float(fps))
    return MediaInfo(None, None)


def _is_moderate(value: Seconds | Decimal) -> bool:
    """Whether an exact fraction of it is made in no time, and a float can hold it."""
    is_fine = isinstance(value, Decimal) and value.adjusted() < _FINEST_DECIMAL
    return bool(-_MOST_S < value < _MOST_S) and not is_fine


def _shorten(value: object) -> str:
    """A value as in a program, in one short line."""
    try:
        return " ".join(reprlib.repr(value).split())
    except ValueError:  # a whole number of thousands of digits is not printed
        return "so large a number"


def _kind_of(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__}"
