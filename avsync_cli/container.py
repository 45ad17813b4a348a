"""Which streams of a file count, and what they declare."""

from dataclasses import dataclass

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from avsync_cli.errors import ConfigError, MediaError

AUTO_STREAM = "auto"
_STILL_CODECS = frozenset(("bmp", "gif", "mjpeg", "png", "tiff", "webp"))


@dataclass(frozen=True)
class MediaInfo:
    """What the container declares; None where it does not."""

    duration_s: float | None
    fps: float | None


def parse_audio_stream(value: str | int | None) -> str | int | None:
    """The number of a sound from 0 on, "auto", or None for the one marked as default. Raises ConfigError."""
    if value is None or value == AUTO_STREAM:
        return value
    if not str(value).isdecimal():
        raise ConfigError(
            f"audio stream {value!r}: neither {AUTO_STREAM} nor the number of a sound from 0 on"
        )
    return int(value)


def main_audio(container: InputContainer, number: int | None = None) -> AudioStream | None:
    """The sound to check: the `number`-th of the file from 0, or the one marked as default, or the first.

    Raises MediaError where there is no such number, or its codec is not known.
    """
    if number is not None:
        if not 0 <= number < len(container.streams.audio):
            count = len(container.streams.audio)
            raise MediaError(
                f"{_name(container)}: audio stream {number}: the file has {count}, counted from 0", "no_audio"
            )
        stream = container.streams.audio[number]
        if stream.codec_context is None:
            raise MediaError(f"{_name(container)}: audio stream {number}: its codec is not known", "no_audio")
        return stream
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    marked = [stream for stream in known if stream.disposition & Disposition.default]
    return next(iter(marked + known), None)


def main_video(container: InputContainer) -> VideoStream | None:
    """The largest moving picture whose codec is known; cover art is a still and does not count.

    Not every container marks it as such, so that codecs of stills count only where there is nothing else.
    """
    known = [
        s
        for s in container.streams.video
        if s.codec_context is not None and not s.disposition & Disposition.attached_pic
    ]
    moving = [s for s in known if s.codec_context.name not in _STILL_CODECS]
    return max(moving or known, key=lambda s: s.codec_context.width * s.codec_context.height, default=None)


def read_info(container: InputContainer, video: VideoStream | None) -> MediaInfo:
    """Duration and rate as declared."""
    duration_s = None if container.duration is None else container.duration / av.time_base
    rate = None if video is None else video.average_rate
    return MediaInfo(duration_s, None if rate is None else float(rate))


def _name(container: InputContainer) -> str:
    return container.name.removeprefix("file:")
