"""The gate in front of decoding: what a file claims to hold is compared with what is allowed.

Memory and time grow with what a header says, and a header of a few bytes can say anything. `MediaLimits`
names what is allowed; AVSYNC_LIMITS in the environment ("picture_pixels=40000000,streams=500") changes that.
"""

import ctypes
import functools
import os
import re
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from avsync_cli.errors import ConfigError, MediaError

LIMITS_VARIABLE = "AVSYNC_LIMITS"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|concat:|subfile,|pipe:|data:", re.IGNORECASE)
_BEGINNING_BYTES = 4096
_DECODER_BYTES = 100_000_000  # of pictures that threads hold beside those that the codec needs
_PIXEL_BYTES = 3  # twice as many where they have more than 8 bits
_USUAL_LAYOUTS = MappingProxyType(
    {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1", 16: "hexadecagonal"}
)
_PROBED = 3  # times as many pixels as allowed are let through when a file is only opened


@dataclass(frozen=True)
class MediaLimits:
    """What a file may claim at most (`least_...`: at least)."""

    picture_side: int = 16_384  # pixels
    picture_pixels: int = 24_000_000  # 5.7K; a decoder holds a dozen pictures
    picture_aspect: int = 16  # the longer side over the shorter, as shown
    least_sound_rate: int = 4_000  # Hz; slower sound is resampled into very much more
    sound_rate: int = 768_000  # Hz
    sound_channels: int = 64
    sound_ahead: int = 3_600  # seconds of sound that wait for their pictures
    streams: int = 256


class LimitError(ValueError):
    """A file claims more than is allowed; the text names the limit, but not the file."""


def read_limits() -> MediaLimits:
    """The limits that hold in this process. Raises ConfigError where AVSYNC_LIMITS cannot be read."""
    return parse_limits(os.environ.get(LIMITS_VARIABLE, ""))


@functools.cache
def parse_limits(text: str) -> MediaLimits:
    """Limits as "NAME=NUMBER,NAME=NUMBER"; those not named keep their default. Raises ConfigError."""
    names = [field.name for field in fields(MediaLimits)]
    chosen: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in names or not (value.isdecimal() and 0 < int(value) < 1 << 40):
            raise ConfigError(f"limit {part!r}: not NAME=NUMBER with one of {', '.join(names)}")
        chosen[name] = int(value)
    return replace(MediaLimits(), **chosen)


def refuse_other_sources(path: Path) -> None:
    """Refuse what is no file, and what only lists others. Raises MediaError."""
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, not a video")
    if not path.exists() and _ADDRESS.match(str(path)):
        raise MediaError(f"{path}: is an address, not a file; `avsync check` and `avsync scan` copy it first")
    if path.exists() and not path.is_file():
        raise MediaError(f"{path}: is a pipe, a socket or a device, not a file")
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except (OSError, ValueError):
        return  # whoever opens it says why
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"#EXTM3U", b"ffconcat version", b"[playlist]")):
        raise MediaError(f"{path}: a playlist: open its media")
    if b"<MPD" in beginning or b"<CompositionPlaylist" in beginning:
        raise MediaError(f"{path}: a playlist: open its media")


def refuse_streams(count: int) -> None:
    """Raises LimitError."""
    _refuse(count > read_limits().streams, f"{count} streams", "streams")


def refuse_picture(width: int, height: int, aspect: Fraction | None) -> None:
    """Refuse pictures of this size in pixels and aspect of one pixel. Raises LimitError."""
    limits, size = read_limits(), f"pictures of {width} x {height}"
    _refuse(max(width, height) > limits.picture_side, size, "picture_side")
    _refuse(width * height > limits.picture_pixels, size, "picture_pixels")
    if width and height:
        shape = width * (aspect or 1) / Fraction(height)
        too_long = max(shape, 1 / shape) > limits.picture_aspect if shape else True
        _refuse(too_long, f"{size} that are shown as {float(shape):.3g} : 1", "picture_aspect")


def refuse_sound(rate_hz: int, channels: int) -> None:
    """Raises LimitError."""
    limits = read_limits()
    _refuse(rate_hz < limits.least_sound_rate, f"sound at {rate_hz} Hz", "least_sound_rate")
    _refuse(rate_hz > limits.sound_rate, f"sound at {rate_hz} Hz", "sound_rate")
    _refuse(channels > limits.sound_channels, f"sound of {channels} channels", "sound_channels")


def refuse_sound_ahead(seconds: float) -> None:
    """Refuse to keep so much sound at once. Raises LimitError."""
    much = f"{seconds:.0f} s of sound that wait for their pictures"
    _refuse(seconds > read_limits().sound_ahead, much, "sound_ahead")


def guard_video(stream: VideoStream, *, threads: int) -> None:
    """Prepare the decoder of a stream: large pictures on few threads, none above the limits.

    Raises LimitError where the file declares larger ones; those that come undeclared cannot be decoded.
    """
    codec = stream.codec_context
    refuse_picture(codec.width, codec.height, stream.sample_aspect_ratio)
    is_deep = codec.format is not None and codec.format.components[0].bits > 8
    picture_bytes = (_PIXEL_BYTES << is_deep) * max(1, codec.width * codec.height)
    fitting = max(1, _DECODER_BYTES // picture_bytes)
    codec.thread_count = min(threads or os.cpu_count() or 1, fitting, 16)
    codec.thread_type = "AUTO"
    # Decoders count the padding of their buffers, too.
    most = read_limits().picture_pixels
    codec.options = codec.options | {"max_pixels": str(most + most // 8)}


def guard_audio(stream: AudioStream) -> None:
    """Raises LimitError."""
    codec = stream.codec_context
    layout = keep_layout(codec)
    if codec.sample_rate:  # else the first decoded sound will say
        refuse_sound(codec.sample_rate, layout.nb_channels)
    if " channels (" in layout.name:  # in an order of the file's own, as of PCM in MOV
        if layout.nb_channels not in _USUAL_LAYOUTS:
            raise LimitError(f"{layout.nb_channels} channels in an order of the file's own")
        codec.layout = _USUAL_LAYOUTS[layout.nb_channels]


def keep_layout(codec: "av.AudioCodecContext") -> av.AudioLayout:
    """The layout of a sound's channels, which may not be asked of PyAV in another way, nor its `channels`.

    PyAV 18 shares the list of channels in an order of the file's own with FFmpeg, and both free it: the heap
    is corrupted, with the first frame at the latest. So what is read here lives for ever, and no frame may
    have such an order.
    """
    layout = codec.layout
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout


def container_options() -> dict[str, str]:
    """Options with which a file is opened and looked at: nothing but this file, and no picture too large."""
    return {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(_formats()),
        "max_streams": str(read_limits().streams),
        # FFmpeg forgets the size of what is beyond, so that the gate could not name it.
        "max_pixels": str(_PROBED * read_limits().picture_pixels),
    }


def describe_unseen(stream: VideoStream) -> str:
    """Why no picture of a stream came out, as far as it can be told."""
    if stream.codec_context.width:
        return "no picture could be decoded"
    most = read_limits().picture_pixels
    return f"no picture could be decoded, or all are beyond the limit picture_pixels = {most}"


# What opens other files, by a list of their names or a pattern.
_LISTS = frozenset(
    (
        *("applehttp", "avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap"),
        *("sdp", "vapoursynth", "webm_dash_manifest"),
    )
)


@functools.cache
def _formats() -> list[str]:
    return sorted(name for name in av.formats_available if name not in _LISTS)


def _refuse(too_much: bool, what: str, limit: str) -> None:
    if too_much:
        value = getattr(read_limits(), limit)
        raise LimitError(f"{what}: the limit {limit} is {value} (AVSYNC_LIMITS={limit}=... sets it)")
