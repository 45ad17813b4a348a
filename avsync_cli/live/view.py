"""Looking at pictures and sound of one epoch as they come, in pieces of a fixed length, each once."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from avsync_cli.check import Engine
from avsync_cli.confidence import Calibration
from avsync_cli.container import MediaInfo
from avsync_cli.findings import Findings, judge_looks, report_findings
from avsync_cli.grid import Picture, TimedFrame, show_pictures
from avsync_cli.live.backlog import Backlog, Waiting
from avsync_cli.report import Report, describe_reason
from avsync_cli.scoring import Desk, Look, Stopwatch
from avsync_cli.sound import Recorded
from avsync_cli.spec import FRAME_MS, MEL_STEPS_PER_SECOND, VIDEO_FPS, Tolerance
from avsync_cli.timing import tick_time
from avsync_cli.tracks import track_faces

_LATE_TICKS = VIDEO_FPS  # by which sound may be behind its pictures, before a verdict does without it
_SETTLE_TICKS = 5
_LEAST_TICKS = VIDEO_FPS  # behind a verdict, that another is made of at the end


@dataclass(frozen=True)
class Viewing:
    """What is looked at with what: a verdict every `every_ticks` on the last `window_ticks`."""

    engine: Engine
    calibration: Calibration
    limits: Tolerance
    range_frames: int
    every_ticks: int
    window_ticks: int

    @property
    def margin_ticks(self) -> int:
        """Of sound around a piece: what its scores need and no more, as everything waits for it."""
        student = self.engine.student
        reach = math.ceil(student.layout.reach_mel_steps * VIDEO_FPS / MEL_STEPS_PER_SECOND)
        return self.range_frames + reach + math.ceil(abs(student.zero_ms) / FRAME_MS) + 1


@dataclass(frozen=True)
class Verdict:
    """What [start_s, time_s), on the clock of what was pushed, says."""

    start_s: float
    time_s: float
    jumps: int  # of the clock before
    report: Report
    findings: Findings


class View:
    """One epoch: from its first frame on until there are no more, or the first of the next."""

    def __init__(
        self, viewing: Viewing, backlog: Backlog, first: Waiting, tell: Callable[[Verdict], None]
    ) -> None:
        self._viewing = viewing
        self._backlog = backlog
        self._first = first
        self._tell = tell
        self._next: Waiting | None = None
        self._due_tick = viewing.every_ticks  # up to which the next verdict looks
        self._sound = Recorded(first.epoch.recorder, first.time_s)
        engine = viewing.engine
        self._desk = Desk(
            self._sound,
            engine.student,
            viewing.range_frames,
            Stopwatch(),
            viewing.margin_ticks,
            viewing.every_ticks,
            far=False,
        )

    def look(self) -> Waiting | None:
        """Look at all of the epoch; the first frame of the next, if there is one."""
        models, layout = self._viewing.engine.faces, self._viewing.engine.student.layout
        pictures = self._judge(show_pictures(self._frames(), self._first.aspect, first_tick=0))
        for track in track_faces(
            pictures,
            models,
            crop=layout.crop,
            note_cut=self._desk.cuts.append,
            hand_on_ticks=self._viewing.every_ticks,
        ):
            self._desk.take(track)
        if self._backlog.is_closed:
            return None
        desk = self._desk
        desk.settle(at_end=True)
        if self._due_tick <= desk.end_tick:
            self._verdict(self._due_tick)
        if desk.end_tick - (self._due_tick - self._viewing.every_ticks) >= _LEAST_TICKS:
            self._verdict(desk.end_tick)
        return self._next

    def _frames(self) -> Iterator[TimedFrame]:
        """The frames of the epoch, in seconds from its first, each later than the one before."""
        each: Waiting | None = self._first
        last_s: Fraction | None = None
        while each is not None:
            if each.epoch is not self._first.epoch:
                self._next = each
                return
            if last_s is None or each.time_s > last_s:
                last_s = each.time_s
                yield each.time_s - self._first.time_s, each.frame
            each = self._backlog.take()

    def _judge(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Pass pictures on, and give the verdicts that are due, once their sound is there."""
        margin = self._viewing.margin_ticks
        for picture in self._desk.note(pictures):
            yield picture
            late = picture.tick - self._due_tick - margin
            if picture.tick % _SETTLE_TICKS and late not in (0, _LATE_TICKS):
                continue
            self._desk.settle()
            if late >= 0 and (late >= _LATE_TICKS or not self._is_waiting()):
                self._verdict(self._due_tick)

    def _is_waiting(self) -> bool:
        """Whether pieces that the next verdict is to rest on have no sound yet."""
        return any(each.end_tick <= self._due_tick for each in self._desk.waiting)

    def _verdict(self, end_tick: int) -> None:
        """Judge what was seen up to a tick; what is too old is forgotten."""
        viewing, desk = self._viewing, self._desk
        first_tick = max(0, end_tick - viewing.window_ticks)
        desk.forget(first_tick)
        pieces = tuple(piece for piece in desk.pieces if piece.first_tick < end_tick)
        findings = judge_looks([Look(first_tick, end_tick, pieces, tuple(desk.cuts))], viewing.calibration)
        report = report_findings("", MediaInfo(None, None), viewing.limits, findings, viewing.engine.student)
        if pieces and self._sound.heard_until() < first_tick:
            message = f"cannot tell: {describe_reason('no_audio')}"
            report = Report("", "undetermined", message, report.limits_ms, "no_audio", tracks=report.tracks)
        start_s, time_s = (float(self._first.time_s + tick_time(tick)) for tick in (first_tick, end_tick))
        self._tell(Verdict(start_s, time_s, self._first.epoch.jumps, report, findings))
        passed = max(0, desk.end_tick - self._viewing.margin_ticks - end_tick) // viewing.every_ticks
        self._due_tick = end_tick + (1 + passed) * viewing.every_ticks
