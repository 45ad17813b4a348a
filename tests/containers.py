"""Media in twelve containers whose sound has clicks at known pictures, and a meter of where they are."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from clips import click_track, find_clicks, read_barcode, write_clip
from numpy.typing import NDArray

from avsync_cli.media import open_media

RATE = 48_000
CLICKS_S = (0.5, 1.0, 1.5)
COARSE = Fraction(1, 25)
MILLI = Fraction(1, 1000)
VP8 = {"video_codec": "libvpx", "audio_codec": "libopus"}
MPEG2 = {"video_codec": "mpeg2video", "audio_codec": "mp2", "time_base": COARSE}
WINDOWS_MEDIA = {"video_codec": "wmv2", "audio_codec": "mp3", "time_base": MILLI}
CONTAINERS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mov": {"audio_codec": "pcm_s16le"},
    "mkv": {"audio_codec": "flac"},
    "webm": VP8,
    "ts": {},
    "m2ts": {"audio_codec": "ac3"},
    "flv": {"time_base": MILLI},
    "mpg": MPEG2,
    "wmv": WINDOWS_MEDIA,
    "ogv": VP8 | {"time_base": MILLI},
    "avi": {"video_codec": "mpeg4", "audio_codec": "mp3", "time_base": COARSE},
    "mxf": {"video_codec": "mpeg2video", "audio_codec": "pcm_s16le", "time_base": COARSE},
}


def write_clicks(
    path: Path, *, clicks_s: Iterable[float] = CLICKS_S, seconds: float = 2.0, **kind: Any
) -> Path:
    sound = click_track(clicks_s, seconds=seconds, rate=RATE)
    return write_clip(path, seconds=seconds, sound=sound, rate=RATE, **kind)


def look_and_listen(path: Path) -> tuple[list[int], NDArray[np.float64]]:
    """The numbers of the pictures, and the clicks in ms from the first picture on."""
    with open_media(path) as media:
        numbers = [read_barcode(picture.rgb) for picture in media.pictures()]
        sound = media.sound()
    assert sound is not None
    clicks_s = find_clicks(sound.samples, rate=16_000)
    return numbers, 1000 * (np.array(clicks_s) + sound.first_sample / 16_000)
