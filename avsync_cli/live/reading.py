"""Reading a source into a monitor: in a thread of its own, and again where a connection is lost."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from threading import Event, Thread
from typing import Literal

import av
from av.container import InputContainer

from avsync_cli.container import main_audio, main_video
from avsync_cli.decoder import decode_packets, timed_packets
from avsync_cli.errors import MediaError
from avsync_cli.gate import guard_audio, guard_video
from avsync_cli.live.monitor import Monitor
from avsync_cli.live.source import Source, open_sound, open_source

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_MOST_BEHIND_S = 10.0
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
        self._left_open: list[ExitStack] = []
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
            before, connected = self.pictures, self._connections
            try:
                is_finite, words = self._read_once(unless_finite=connected > 0), "the connection ended"
            except MediaError as error:
                if self._connections == 0:
                    raise  # what cannot be opened at first has a wrong address
                is_finite, words = False, str(error)
            if is_finite or self._source.kind in ("file", "pipe") or self._stop.is_set():
                return
            failures = 1 if self.pictures - before >= _STEADY_PICTURES else failures + 1
            if self._retries is not None and failures > self._retries:
                self._tell(Note("given_up", f"{words}; not opened again"))
                return
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
            self._tell(Note("lost", f"{words}; opened again in {pause_s:g} s"))
            self._stop.wait(pause_s)
            self._monitor.restart()

    def _read_once(self, *, unless_finite: bool) -> bool:
        """Open the source and read it to its end; whether it has one, which is no lost connection.

        It is not read `unless_finite`, where it has an end by now.
        """
        with ExitStack() as stack:
            container = stack.enter_context(open_source(self._source, self._stop))
            is_finite = self._source.kind == "network" and bool(container.duration)
            if is_finite and unless_finite:
                return True
            microphone = None
            if self._source.sound is not None:
                microphone = stack.enter_context(open_sound(self._source))
            _require_streams(self._source.name, container, microphone)
            self._connections += 1
            self._tell(Note("connected", _describe(container)))
            ended = Event()
            if microphone is None:
                self._push_all(container, ended)
                return is_finite
            listener = _Listener(partial(self._push_all, microphone, ended), ended)
            # Registered last, so that it comes first: nobody reads what is closed then.
            stack.callback(self._end_listening, listener, stack)
            self._push_all(container, ended)
            listener.raise_loss(str(self._source.sound))
            return is_finite

    def _end_listening(self, listener: "_Listener", opened: ExitStack) -> None:
        """A microphone that keeps its thread waiting is left open, as closing it then would crash."""
        if not listener.stop(wait_s=self._source.timeout_s):
            self._left_open.append(opened.pop_all())

    def _push_all(self, container: InputContainer, ended: Event) -> None:
        """Push the main picture and sound of an open source to its end, or until this watch or `ended` is."""
        video, audio = main_video(container), main_audio(container)
        if video is not None:
            guard_video(video, threads=self._threads)
        if audio is not None:
            guard_audio(audio)
        aspect = None if video is None else video.sample_aspect_ratio
        pace = Pace()
        for frame in decode_packets(timed_packets(container, video, audio)):
            if self._stop.is_set() or ended.is_set():
                return
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


class _Listener:
    """The thread that pushes the sound of a microphone beside a camera; `ended` when either is lost."""

    def __init__(self, push: Callable[[], None], ended: Event) -> None:
        self._push, self._ended = push, ended
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, name="avsync-microphone", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._push()
        except Exception as error:
            self._error = error
        finally:
            self._ended.set()

    def raise_loss(self, name: str) -> None:
        """To be called when the pictures are over: raises what ended the sound before them."""
        if self._error is not None:
            raise self._error
        if self._ended.is_set():
            raise MediaError(f"{name}: the sound ended")

    def stop(self, *, wait_s: float) -> bool:
        """Whether it reads no more."""
        self._ended.set()
        self._thread.join(wait_s)
        return not self._thread.is_alive()


def _describe(container: InputContainer) -> str:
    video = main_video(container)
    if video is None:
        return "connected"
    rate = "" if video.average_rate is None else f", {float(video.average_rate):g} a second"
    codec = video.codec_context
    return f"pictures of {codec.width} x {codec.height}{rate}, {codec.name}"


def _require_streams(name: str, container: InputContainer, microphone: InputContainer | None) -> None:
    """Raises MediaError where there are no pictures, or no sound beside them."""
    if main_video(container) is None:
        raise MediaError(f"{name}: no video stream", "no_video")
    if main_audio(microphone or container) is None:
        raise MediaError(f"{name}: no audio stream", "no_audio")
