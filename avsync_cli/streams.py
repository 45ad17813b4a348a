"""Which streams of a file count, what they declare, and their frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from avsync_cli.errors import MediaError

_STILL_CODECS = frozenset(("bmp", "gif", "mjpeg", "png", "tiff", "webp"))


@dataclass(frozen=True)
class MediaInfo:
    """What the container declares; None where it does not."""

    duration_s: float | None
    fps: float | None


def main_audio(container: InputContainer, number: int | None = None) -> AudioStream | None:
    """The sound to check: the `number`-th of the file from 0, or the one marked as default, or the first.

    Raises MediaError where there is no such number, or its codec is not known.
    """
    if number is not None:
        if not 0 <= number < len(container.streams.audio):
            count = len(container.streams.audio)
            raise MediaError(
                f"{container.name}: audio stream {number}: the file has {count}, counted from 0", "no_audio"
            )
        stream = container.streams.audio[number]
        if stream.codec_context is None:
            raise MediaError(f"{container.name}: audio stream {number}: its codec is not known", "no_audio")
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


def describe(container: InputContainer, video: VideoStream | None) -> MediaInfo:
    """Duration and rate as declared."""
    duration_s = None if container.duration is None else container.duration / av.time_base
    rate = None if video is None else video.average_rate
    return MediaInfo(duration_s, None if rate is None else float(rate))


def decode_packets(packets: "Iterator[av.Packet[Any]]") -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode packet by packet, stepping over damaged ones; a file cut short ends where it ends."""
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame | av.AudioFrame):
                yield frame


def presentation_s(frame: av.VideoFrame, last_s: Fraction | None, step_s: Fraction) -> Fraction:
    """When a picture is to be shown, on the file's clock; one step after the last where it does not say."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is not None:
        return stamp * Fraction(frame.time_base or 0)
    return Fraction(0) if last_s is None else last_s + step_s
