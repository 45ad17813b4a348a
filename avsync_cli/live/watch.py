"""The watch: a source is read into a monitor, and what comes of it is told until it ends."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any

from avsync_cli.errors import EXIT_IN_SYNC, EXIT_OUT_OF_SYNC, EXIT_UNDETERMINED
from avsync_cli.live.events import MonitorEvent
from avsync_cli.live.hysteresis import Change, Hysteresis
from avsync_cli.live.monitor import Monitor
from avsync_cli.live.reading import Note, Reader
from avsync_cli.live.source import Source
from avsync_cli.report import Status
from avsync_cli.spec import WATCH_SCHEMA_VERSION, Tolerance

_LOOK_S = 0.2  # from one look at what is new to the next
_END_S = 1.0  # that a source is given to end


@dataclass(frozen=True)
class Watched:
    """What a watch came to: its exit code, as of a check, and the verdict that counted last, if any."""

    exit_code: int
    status: Status | None
    message: str


Happening = MonitorEvent | Change | Note | Watched


def watch_source(
    source: Source,
    monitor: Monitor,
    limits: Tolerance,
    tell: Callable[[Happening], None],
    *,
    threads: int = 1,
    retries: int | None = None,
    for_s: float | None = None,
) -> Watched:
    """Watch a source until it ends or `for_s` have passed; `tell` hears all that happens, in this thread.

    The exit code is 1 if the verdict that counts was ever out of sync, 0 if it was in sync, and 3 if there
    was none. Raises what keeps the source from being read, and what goes wrong in the monitor.
    """
    notes: SimpleQueue[Note] = SimpleQueue()
    held = Hysteresis(limits)
    end = None if for_s is None else time.monotonic() + for_s
    reader = Reader(source, monitor, threads=threads, retries=retries, tell=notes.put)
    try:
        while not reader.is_over and (end is None or time.monotonic() < end):
            monitor.wait(_LOOK_S)
            _tell_all(notes, monitor, held, tell)
        is_over = reader.is_over
        reader.stop(wait_s=_END_S)
        if reader.error is not None:
            _tell_all(notes, monitor, held, tell)
            raise reader.error
        if is_over:
            monitor.finish()
        else:
            monitor.close()
        _tell_all(notes, monitor, held, tell)
    finally:
        reader.stop(wait_s=0)
    watched = Watched(_exit_code(held), held.status, _describe_end(held, reader))
    tell(watched)
    return watched


def told_of(happening: Happening, source: Source) -> dict[str, Any]:
    """What happened as JSON values: one line of `avsync watch --json`."""
    head = {"schema_version": WATCH_SCHEMA_VERSION, "source": source.name, "at": _now()}
    if isinstance(happening, Note):
        return head | {"kind": happening.kind, "message": happening.message}
    if isinstance(happening, Watched):
        return head | {"kind": "end"} | asdict(happening)
    if isinstance(happening, Change):
        before = {"kind": "change", "previous": happening.previous}
        return head | before | happening.event.to_json()
    return head | {"kind": "verdict"} | happening.to_json()


def _tell_all(
    notes: SimpleQueue[Note], monitor: Monitor, held: Hysteresis, tell: Callable[[Happening], None]
) -> None:
    for note in _drain(notes):
        tell(note)
    for event in monitor.poll():
        tell(event)
        change = held.take(event)
        if change is not None:
            tell(change)


def _drain(notes: SimpleQueue[Note]) -> Iterator[Note]:
    while True:
        try:
            yield notes.get_nowait()
        except Empty:
            return


def _exit_code(held: Hysteresis) -> int:
    if "out_of_sync" in held.seen:
        return EXIT_OUT_OF_SYNC
    return EXIT_IN_SYNC if "in_sync" in held.seen else EXIT_UNDETERMINED


def _describe_end(held: Hysteresis, reader: Reader) -> str:
    words = "no verdict counted" if held.status is None else f"{held.status.replace('_', ' ')} at the end"
    if held.status == "in_sync" and "out_of_sync" in held.seen:
        words += ", and out of sync before"
    times = "once" if reader.reconnects == 1 else f"{reader.reconnects} times"
    again = f"; opened again {times}" if reader.reconnects else ""
    return f"{words}; {reader.pictures} pictures{again}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
