"""Reading a source into a monitor: in a thread of its own, and again where a connection is lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import takewhile
from threading import Event, Thread
from types import TracebackType
from typing import Any, Literal, Self

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from avsync_cli.container import main_audio, main_video
from avsync_cli.decoder import decode_packets, describe_fault, timed_packets
from avsync_cli.errors import MediaError
from avsync_cli.gate import guard_audio, guard_video
from avsync_cli.live.monitor import Monitor
from avsync_cli.live.source import Source, open_sound, open_source

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_MOST_BEHIND_S = 10.0
_MORE_S = 1.0  # than its own timeout, until a device that gives nothing has ended
_STEADY_PICTURES = 250  # after which a connection is no longer one that fails again and again


@dataclass(frozen=True)
class Note:
    """What became of the source; `message` says it in words."""

    kind: Literal["connected", "lost", "given_up"]
    message: str


class Pace:
    """Says which pictures of a live source to skip, so that a slow machine does not fall ever further behind.

    Sources come in bursts, as segments of HLS do: behind is who is later than the earliest picture was, by
    its own clock.
    """

    def __init__(self) -> None:
        self._last_s: Fraction | None = None
        self._least_s = 0.0  # from a picture's time to the moment that it came
        self._skip_until_s: float | None = None

    def is_to_skip(self, time_s: Fraction, now_s: float) -> bool:
        """Whether to skip the picture of a time that came at a moment."""
        apart_s = now_s - float(time_s)
        if self._last_s is None or abs(time_s - self._last_s) > 1:  # a jump of the clock, or a gap
            self._least_s, self._skip_until_s = apart_s, None
        self._last_s = time_s
        self._least_s = min(self._least_s, apart_s)
        behind_s = apart_s - self._least_s
        if self._skip_until_s is None and behind_s > _MOST_BEHIND_S:
            self._skip_until_s = float(time_s) + behind_s
        if self._skip_until_s is not None and float(time_s) >= self._skip_until_s:
            self._skip_until_s = None
        return self._skip_until_s is not None


class Reader:
    """Reads a source in a thread until it ends. `error` says why it could not be read, if so.

    A lost connection is opened again, `retries` times in a row (None: for ever).
    """

    def __init__(
        self,
        source: Source,
        monitor: Monitor,
        *,
        threads: int,
        retries: int | None,
        tell: Callable[[Note], None],
    ) -> None:
        self._source = source
        self._monitor = monitor
        self._threads = threads
        self._retries = retries
        self._tell = tell
        self._is_live = source.kind in ("network", "device")
        self._stop = Event()
        self._is_endless = False  # the connection that was there, or is
        self._thread = Thread(target=self._run, name="avsync-reader", daemon=True)
        self.error: BaseException | None = None
        self.pictures = self._connections = 0
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def reconnects(self) -> int:
        """How many times it was opened again."""
        return max(0, self._connections - 1)

    def stop(self, *, wait_s: float) -> None:
        """End soon; a source that gives nothing may keep its thread for longer than is waited for."""
        self._stop.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            self._read_all()
        except BaseException as error:  # whatever it is, the one who waits is to have it
            if not self._stop.is_set():
                self.error = error

    def _read_all(self) -> None:
        failures = 0
        while not self._stop.is_set():
            before = self.pictures
            try:
                words = self._read_once()
            except MediaError as error:
                # What cannot be opened at first has a wrong address; a file that fails will fail again.
                if not self._is_endless or self._monitor.is_over:
                    raise
                words = str(error)
            if words is None or self._stop.is_set():
                return
            failures = 1 if self.pictures - before >= _STEADY_PICTURES else failures + 1
            if self._retries is not None and failures > self._retries:
                self._tell(Note("given_up", f"{words}; not opened again"))
                return
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
            self._tell(Note("lost", f"{words}; opened again in {pause_s:g} s"))
            self._stop.wait(pause_s)
            self._monitor.restart()

    def _read_once(self) -> str | None:
        """Open the source and read it to its end: how the connection was lost, or None where it had an end.

        After an endless one, what has an end is not read: it is the same stream, which is over.
        """
        with open_source(self._source, self._stop) as container:
            is_endless = self._is_live and not (self._source.kind == "network" and container.duration)
            if self._is_endless and not is_endless:
                return None
            video = _find_video(self._source.name, container, threads=self._threads)
            if self._source.sound is not None:
                return self._read_both(container, video, self._source.sound)
            audio = _find_audio(self._source.name, container)
            self._note_connection(video, is_endless=is_endless)
            fault = self._push_all(container, video, audio, self._stop.is_set)
            return _describe_loss(self._source.name, fault, "the connection ended") if is_endless else None

    def _read_both(self, container: InputContainer, video: VideoStream, name: str) -> str:
        """The same for a camera's pictures and the sound of a microphone: both are lost with one of them."""
        with ExitStack() as opened:
            microphone = opened.enter_context(open_sound(self._source))
            audio = _find_audio(name, microphone)
            self._note_connection(video, is_endless=True)
            push = partial(self._push_all, microphone, None, audio)
            listener = Listener(opened.pop_all(), push, wait_s=self._source.timeout_s)
        with listener:
            is_over = listener.has_ended.is_set
            fault = self._push_all(container, video, None, lambda: self._stop.is_set() or is_over())
            is_deaf = is_over()
        if not is_deaf:
            return _describe_loss(self._source.name, fault, "the connection ended")
        if listener.error is not None:
            raise listener.error
        return _describe_loss(name, listener.fault, f"{name}: the sound ended")

    def _note_connection(self, video: VideoStream, *, is_endless: bool) -> None:
        self._is_endless = is_endless
        self._connections += 1
        self._tell(Note("connected", _describe(video)))

    def _push_all(
        self,
        container: InputContainer,
        video: VideoStream | None,
        audio: AudioStream | None,
        is_done: Callable[[], bool],
    ) -> av.FFmpegError | None:
        """Push pictures and sound of an open source to its end or until it `is_done`; what broke it off."""
        aspect = None if video is None else video.sample_aspect_ratio
        pace, faults = Pace(), list[av.FFmpegError]()
        packets = _noting_faults(timed_packets(container, video, audio), faults)
        for frame in decode_packets(takewhile(lambda _: not is_done(), packets)):
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None:
                continue
            time_s = stamp * Fraction(frame.time_base or 0)
            if isinstance(frame, av.AudioFrame):
                self._monitor.push_sound(frame, time_s)
                continue
            self.pictures += 1
            if self._is_live and pace.is_to_skip(time_s, time.monotonic()):
                self._monitor.skip_picture()
            else:
                self._monitor.push_picture(frame, time_s, aspect=aspect)
        return faults[0] if faults else None


class Listener:
    """Pushes the sound of a microphone in a thread of its own, which closes it, too: nobody else may.

    FFmpeg crashes where a container is closed that another thread reads. It is a context, at whose end it is
    told to end and waited for: little longer than `wait_s`, after which a device that gives nothing is lost.
    `fault` and `error` say what broke it off.
    """

    def __init__(
        self,
        opened: ExitStack,
        push: Callable[[Callable[[], bool]], av.FFmpegError | None],
        *,
        wait_s: float,
    ) -> None:
        self._opened, self._push, self._wait_s = opened, push, wait_s
        self._is_told = Event()
        self.has_ended = Event()
        self.fault: av.FFmpegError | None = None
        self.error: Exception | None = None
        self._thread = Thread(target=self._run, name="avsync-microphone", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._opened:
                self.fault = self._push(self._is_told.is_set)
        except Exception as error:
            self.error = error
        finally:
            self.has_ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_told.set()
        self._thread.join(self._wait_s + _MORE_S)


def _noting_faults(
    packets: "Iterator[av.Packet[Any]]", faults: list[av.FFmpegError]
) -> "Iterator[av.Packet[Any]]":
    """The same; why there are no more of them is noted, which who decodes them does not tell."""
    try:
        yield from packets
    except av.FFmpegError as fault:
        faults.append(fault)
        raise


def _describe_loss(name: str, fault: av.FFmpegError | None, otherwise: str) -> str:
    return otherwise if fault is None else f"{name}: {describe_fault(fault)}"


def _describe(video: VideoStream) -> str:
    rate = "" if video.average_rate is None else f", {float(video.average_rate):g} a second"
    codec = video.codec_context
    return f"pictures of {codec.width} x {codec.height}{rate}, {codec.name}"


def _find_video(name: str, container: InputContainer, *, threads: int) -> VideoStream:
    """The main pictures, ready to be decoded. Raises MediaError, and LimitError."""
    video = main_video(container)
    if video is None:
        raise MediaError(f"{name}: no video stream", "no_video")
    guard_video(video, threads=threads)
    return video


def _find_audio(name: str, container: InputContainer) -> AudioStream:
    """The main sound, likewise."""
    audio = main_audio(container)
    if audio is None:
        raise MediaError(f"{name}: no audio stream", "no_audio")
    guard_audio(audio)
    return audio
