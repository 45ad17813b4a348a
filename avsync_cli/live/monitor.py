"""A monitor: pictures and sound are pushed in as they come, verdicts on the last seconds come out.

Every picture is looked at once. Faces are followed, cut and encoded in pieces of `every_s`, each of which is
scored once against the sound around it; a verdict is made of the pieces of the last `window_s`. What is older
is dropped.
"""

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from avsync_cli.arrays import Seconds, exact_time, float_channels, picture_frame, refuse_rate
from avsync_cli.check import Engine, require_calibration
from avsync_cli.errors import ConfigError, MediaError, first_line
from avsync_cli.gate import LimitError
from avsync_cli.live.backlog import Backlog, Waiting
from avsync_cli.live.clock import JointClock
from avsync_cli.live.events import MonitorEvent, make_event
from avsync_cli.live.view import Verdict, View, Viewing
from avsync_cli.sound import MonoMixer
from avsync_cli.spec import (
    DEFAULT_TOLERANCE,
    MAX_RANGE_FRAMES,
    RANGE_FRAMES,
    VIDEO_FPS,
    Tolerance,
    parse_tolerance,
)

_KEPT_SOUND_S = 30  # that waits for pictures
_MOST_EVENTS = 1000  # that nobody takes
_PERIOD_S = (1.0, 10.0)
_MOST_WINDOW_S = 60.0


class Monitor:
    """Watches pictures and sound that are pushed in, and says every `every_s` how they stand.

    A verdict rests on the last `window_s` and tries audio leads and lags of up to `range_frames` frames;
    it comes as much later, and about 0.2 s. `tolerance` as for a check; with `delay_ms` the sound is
    taken to be heard so much later than it is pushed (below 0: earlier). With `waits`, `push_picture` waits
    while more pictures are pushed than can be looked at; otherwise some seconds of them are skipped.

    One thread may push pictures and the same or another one sound; events may be taken in a third. The work
    is done in a thread of the monitor's own. Use it as a context, or end it by `finish` or `close`. Raises
    ConfigError, and ModelError where the student is not calibrated.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tolerance: str | Tolerance = DEFAULT_TOLERANCE,
        range_frames: int = RANGE_FRAMES,
        window_s: float = 8.0,
        every_s: float = 2.0,
        delay_ms: float = 0.0,
        waits: bool = True,
    ) -> None:
        if not _PERIOD_S[0] <= every_s <= _PERIOD_S[1]:
            raise ConfigError(f"every {every_s:g} s: must be {_PERIOD_S[0]:g} to {_PERIOD_S[1]:g} s")
        if not every_s <= window_s <= _MOST_WINDOW_S:
            raise ConfigError(f"window {window_s:g} s: must be {every_s:g} to {_MOST_WINDOW_S:g} s")
        if not RANGE_FRAMES <= range_frames <= MAX_RANGE_FRAMES:
            raise ConfigError(f"range {range_frames}: must be {RANGE_FRAMES} to {MAX_RANGE_FRAMES} frames")
        if not math.isfinite(delay_ms):
            raise ConfigError(f"delay {delay_ms} ms: must be a number")
        self._viewing = Viewing(
            engine,
            require_calibration(engine),
            parse_tolerance(tolerance),
            range_frames,
            round(every_s * VIDEO_FPS),
            round(window_s * VIDEO_FPS),
        )
        self._delay_s = Fraction(str(delay_ms)) / 1000
        self._waits = waits
        self._clock = JointClock()
        self._backlog = Backlog()
        self._mixer: tuple[tuple[int, int], MonoMixer] | None = None
        self._events: deque[MonitorEvent] = deque(maxlen=_MOST_EVENTS)
        self._told = Condition()
        self._is_over = False  # no more events will come
        self._error: BaseException | None = None
        self._worker = Thread(target=self._work, name="avsync-monitor", daemon=True)
        self._worker.start()

    def push_picture(
        self, picture: NDArray[np.uint8] | av.VideoFrame, time_s: Seconds, *, aspect: Fraction | None = None
    ) -> None:
        """A picture, uint8 RGB [H, W, 3] (of which a copy is made) or a frame of PyAV, shown at a time in s.

        Its pixels are `aspect` times as wide as high. What is no later than the picture before is left out.
        Raises ConfigError for what is no picture, and what went wrong with those before.
        """
        self._refuse_end()
        shown_s = exact_time(time_s, "picture")
        frame = picture if isinstance(picture, av.VideoFrame) else picture_frame(picture, "picture")
        epoch = self._clock.place("picture", shown_s)
        if epoch is not None:
            self._backlog.put(Waiting(epoch, shown_s, frame, aspect), waits=self._waits)

    def push_sound(
        self, samples: NDArray[Any] | av.AudioFrame, time_s: Seconds, sample_rate: int | None = None
    ) -> None:
        """Sound whose first sample is heard at a time in s, on the pictures' clock.

        [S] or [C, S], floats in -1..1 or int16, at `sample_rate` Hz; or a frame of PyAV, which knows its
        rate. A time may be off by 10 ms from where the sound before ended; further off, there is a gap.
        Raises ConfigError for what is no sound.
        """
        self._refuse_end()
        heard_s = exact_time(time_s, "sound") + self._delay_s
        frame = samples if isinstance(samples, av.AudioFrame) else self._mix(samples, sample_rate)
        epoch = self._clock.place("sound", heard_s)
        if epoch is not None and frame.samples:
            own_pts = frame.pts
            try:
                epoch.recorder.add(frame, time_s=heard_s)
            except LimitError as error:
                raise MediaError(f"sound: {error}") from error
            frame.pts = own_pts
            epoch.recorder.forget(heard_s - _KEPT_SOUND_S)

    def skip_picture(self) -> None:
        """Count a picture that is not pushed, as there are too many."""
        self._backlog.skipped += 1

    def restart(self) -> None:
        """What is pushed next has nothing to do with what was before: another camera, a new connection."""
        self._clock.restart()

    def poll(self) -> list[MonitorEvent]:
        """The events since the last time; raises what went wrong."""
        with self._told:
            events = list(self._events)
            self._events.clear()
        if self._error is not None and not events:
            raise self._error
        return events

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for an event or the end; whether there is one of them now."""
        with self._told:
            return self._told.wait_for(lambda: bool(self._events) or self._is_over, timeout_s)

    def __iter__(self) -> Iterator[MonitorEvent]:
        """The events as they come, until the monitor ends."""
        while self.wait():
            events = self.poll()
            yield from events
            if not events and self._is_over:
                return

    @property
    def is_over(self) -> bool:
        """Whether nothing can be pushed any more: it was ended, or something went wrong in it."""
        return self._error is not None or self._backlog.is_over

    def finish(self) -> None:
        """Look at what was pushed to its end; its last events can be taken then."""
        self._backlog.end()
        self._worker.join()

    def close(self) -> None:
        """End at once: what waits is not looked at."""
        self._backlog.close()
        self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_end(self) -> None:
        if self._error is not None:
            raise self._error
        if self._backlog.is_over:
            raise ConfigError("the monitor has ended: nothing can be pushed")

    def _mix(self, samples: NDArray[Any], sample_rate: int | None) -> av.AudioFrame:
        planes = float_channels(samples, "sound")
        kind = (len(planes), sample_rate or 0)
        if self._mixer is None or self._mixer[0] != kind:
            refuse_rate(kind[1], kind[0], "sound")
            self._mixer = kind, MonoMixer(*kind)
        return self._mixer[1].mix(planes)

    def _work(self) -> None:
        """Look at one epoch after the other, in the monitor's own thread."""
        try:
            first = self._backlog.take()
            while first is not None:
                first = View(self._viewing, self._backlog, first, self._tell).look()
        except (LimitError, av.FFmpegError, MemoryError) as error:
            self._error = MediaError(f"monitor: {first_line(error)}")
        except BaseException as error:  # whatever it is, the one who pushes is to have it
            self._error = error
        finally:
            self._backlog.close()
            with self._told:
                self._is_over = True
                self._told.notify_all()

    def _tell(self, verdict: Verdict) -> None:
        event = make_event(
            verdict.report,
            verdict.findings,
            start_s=verdict.start_s,
            time_s=verdict.time_s,
            skipped=self._backlog.skipped,
            jumps=verdict.jumps,
        )
        with self._told:
            self._events.append(event)
            self._told.notify_all()
