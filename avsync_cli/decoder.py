"""Open files, the packets in them, their frames and the times of these: all media is read here.

Files are damaged, or made to do harm. What goes wrong inside `open_container` becomes a MediaError that names
the file; packets that cannot be decoded are stepped over; a file that is cut short ends where it ends.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avsync_cli.edits import Edits, shown_at
from avsync_cli.errors import MediaError, first_line
from avsync_cli.gate import LimitError, container_options, refuse_other_sources, refuse_streams
from avsync_cli.pulse import beat
from avsync_cli.sound import Recorder, is_break
from avsync_cli.spec import MAX_HOLD_S, VIDEO_FPS

_WITHOUT_TIMES = ("avi", "gxf")  # of presentation
_TS_TURN = 1 << 33  # after which the clock of TS is 0 again
_TOLD_STREAM = re.compile(r"^  Stream #0:(\d+).*?: (\w+): (\w+)", re.MULTILINE)


@contextmanager
def open_container(path: str | Path, *, own_edits: bool = False) -> Iterator[InputContainer]:
    """Open a file; what goes wrong inside becomes a MediaError naming the file and the reason.

    With `own_edits` all of each track comes, on the track's own clock (see `edits`).
    """
    path = Path(path)
    refuse_other_sources(path)
    options = container_options() | ({"ignore_editlist": "1"} if own_edits else {})
    try:
        # As text, bytes that are no UTF-8 become "?": a damaged tag must not make a file unreadable.
        # With its protocol in front a name with a colon is a name, too.
        container = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: {first_line(error)}") from error
    with naming_faults(container, str(path)):
        yield container


@contextmanager
def naming_faults(container: InputContainer, name: str) -> Iterator[None]:
    """Within it what goes wrong becomes a MediaError that names the container, which is closed at its end."""
    with container:
        try:
            refuse_streams(len(container.streams))
            yield
        except (av.FFmpegError, MemoryError, LimitError) as error:
            raise MediaError(f"{name}: {describe_fault(error)}") from error


def describe_fault(error: Exception) -> str:
    """What an error says; FFmpeg's `ExitError` is that of a source that gives nothing for too long."""
    return "nothing came in time" if isinstance(error, av.error.ExitError) else first_line(error)


def read_packets(container: InputContainer, *streams: Stream | None) -> "Iterator[av.Packet[Any]]":
    """Packets of some streams, or of all, as they stand in the file. Raises FFmpegError.

    The last of each stream is empty, and asks its decoder for the rest. What begins before the clock of TS is
    0, as AAC does, comes from the end of that clock, a day later: it is put back.
    """
    wanted = [stream for stream in streams if stream is not None]
    is_over, first = False, None
    while not is_over:
        try:
            for packet in container.demux(*wanted):
                is_over = not packet.size
                beat()
                if container.format.name == "mpegts" and packet.pts is not None and packet.dts is not None:
                    first = packet.dts if first is None else first
                    if packet.dts - first > _TS_TURN // 2:
                        packet.pts, packet.dts = packet.pts - _TS_TURN, packet.dts - _TS_TURN
                yield packet
            return
        except IndexError:
            continue  # a stream begins within the file (see `find_unseen`)


def find_unseen(container: InputContainer) -> list[str]:
    """Kinds and codecs of streams that begin within the file, once it was read: PyAV does not show them."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # else nothing is told
    try:
        told = container.dumps_format()  # type: ignore[attr-defined]  # PyAV's types lack it
    finally:
        av.logging.set_level(level)
    streams = {int(number): f"{kind.lower()} ({codec})" for number, kind, codec in _TOLD_STREAM.findall(told)}
    return [stream for number, stream in sorted(streams.items()) if number >= len(container.streams)]


def timed_packets(container: InputContainer, *streams: Stream | None) -> "Iterator[av.Packet[Any]]":
    """As `read_packets`, those of pictures without the times of presentation that are made up for them.

    AVI and GXF keep none, nor does MXF whose index does not tell the order. Of pictures that are decoded in
    another order than shown, FFmpeg transposes them. GXF counts its sound in fields, which are too long: only
    the first time is kept.
    """
    is_made_up, counts_fields = container.format.name in _WITHOUT_TIMES, container.format.name == "gxf"
    heard = set[int]()
    for packet in read_packets(container, *streams):
        if packet.stream.type == "video":
            if container.format.name == "mxf" and packet.is_keyframe:
                is_made_up = packet.pts == packet.dts and packet.stream.codec_context.has_b_frames
            if is_made_up:
                packet.pts = None
        elif counts_fields and packet.stream.type == "audio":
            if packet.stream_index in heard:
                packet.pts = packet.dts = None
            heard.add(packet.stream_index)
        yield packet


def decode_packets(
    packets: "Iterator[av.Packet[Any]]", edits: Mapping[int, Edits] = MappingProxyType({})
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode packet by packet, stepping over damaged ones; a file cut short ends where it ends.

    Of tracks that have `edits`, by their ID, only what is shown comes, when it is shown.
    """
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
                yield from _show(frame, edits.get(packet.stream.id, ()))


def _show(frame: av.VideoFrame | av.AudioFrame, edits: Edits) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """What is shown of a frame, stamped with when it is: nothing, all, or a sound's part in each edit."""
    if not edits or frame.pts is None:
        yield frame
        return
    unit_s = Fraction(frame.time_base or 1)
    time_s = frame.pts * unit_s
    if isinstance(frame, av.AudioFrame):
        for edit in edits:
            ends_s = (edit.media_s - time_s, edit.media_s + edit.seconds - time_s)
            first, end = (min(frame.samples, max(0, round(at_s * frame.sample_rate))) for at_s in ends_s)
            if first < end:
                part = _cut_samples(frame, first, end)
                shown_s = edit.shown_s + time_s - edit.media_s + Fraction(first, frame.sample_rate)
                part.time_base, part.pts = unit_s, round(shown_s / unit_s)
                yield part
        return
    moment_s = shown_at(edits, time_s)
    if moment_s is not None:
        frame.pts = round(moment_s / unit_s)
        yield frame


def _cut_samples(frame: av.AudioFrame, first: int, end: int) -> av.AudioFrame:
    if end - first == frame.samples:
        return frame
    width = 1 if frame.format.is_planar else len(frame.layout.channels)
    every: NDArray[Any] = frame.to_ndarray()
    samples = np.ascontiguousarray(every[:, first * width : end * width])
    part = av.AudioFrame.from_ndarray(samples, format=frame.format.name, layout=frame.layout)
    part.sample_rate = frame.sample_rate
    return part


def seek_key(container: InputContainer, stream: Stream, time_s: Fraction) -> bool:
    """Go to the last keyframe at or before a time, on the file's clock; False where the file refuses."""
    try:
        container.seek(math.floor(time_s / Fraction(stream.time_base or 1)), stream=stream)
    except (av.FFmpegError, OverflowError):
        return False
    return True


def packet_s(packet: "av.Packet[Any]") -> Fraction | None:
    """When a packet is to be shown or heard, on the file's clock, or read where it does not say."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * Fraction(packet.time_base or 0)


class PictureClock:
    """When the pictures of an open file are to be shown, in seconds from the first of all."""

    def __init__(self, container: InputContainer, video: VideoStream | None) -> None:
        # Instead of stamps: see `timed_packets`.
        self._counts = container.format.name in (*_WITHOUT_TIMES, "mxf")
        self._step_s = 1 / Fraction((video and video.average_rate) or VIDEO_FPS)
        self._soon_s = min(self._step_s, MAX_HOLD_S)
        self._last_s: Fraction | None = None
        self.delay_s = Fraction(0)  # by how much decoding times are later than the pictures are to be shown
        self.origin_s: Fraction | None = None  # of the first picture, on the file's clock
        self.decoded_pictures = 0
        self.starts_anew_s: float | None = None  # where a clock was seen to jump, first of all
        self.jumped = False  # among the pictures of this pass, which is to end there

    @property
    def next_s(self) -> Fraction | None:
        """When the next picture is due, on the file's clock; None before the first of this pass.

        Soon, even if pictures are rare on average: a file may stop for minutes between others.
        """
        return None if self._last_s is None else self._last_s + self._soon_s

    def begin_pass(self) -> None:
        """The next picture may be any."""
        self._last_s, self.jumped = None, False

    def time_picture(self, frame: av.VideoFrame, *, earliest_s: Fraction | None = None) -> Fraction | None:
        """None for a picture that is not to be shown: too early, no later than the last, or past a jump.

        `earliest_s` is on the file's clock.
        """
        if self.decoded_pictures == 0 and self._counts and frame.pts is None and frame.dts is not None:
            self.delay_s = frame.dts * Fraction(frame.time_base or 0)
        self.decoded_pictures += 1
        time_s, last_s = self._stamp_s(frame), self._last_s
        if last_s is not None and is_break(time_s, last_s):
            self.jumped = True
            self.note_jump(last_s + self._step_s)
            return None
        if (earliest_s is not None and time_s < earliest_s) or (last_s is not None and time_s <= last_s):
            return None
        self._last_s = time_s
        if self.origin_s is None:
            self.origin_s = time_s
        return time_s - self.origin_s

    def jumps_at(self, frame: av.AudioFrame, recorder: Recorder) -> bool:
        """Whether a sound has nothing to do with what `recorder` has: no more is to be heard."""
        if not recorder.is_break(frame):
            return False
        self.note_jump(recorder.until_s)
        return True

    def _stamp_s(self, frame: av.VideoFrame) -> Fraction:
        """On the file's clock; one step after the last where a picture does not say."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is not None:
            time_s = stamp * (frame.time_base or Fraction(0))
            return time_s - self.delay_s if self.delay_s else time_s
        return Fraction(0) if self._last_s is None else self._last_s + self._step_s

    def note_jump(self, at_s: Fraction | None) -> None:
        """That a clock jumps, at a time on the file's clock."""
        found_s = max(0.0, float((at_s or 0) - (self.origin_s or 0)))
        self.starts_anew_s = min(found_s, math.inf if self.starts_anew_s is None else self.starts_anew_s)
