"""The scan's whole story: sources -> files -> those without an answer -> workers -> the results file."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

from avsync_cli.batch.journal import Journal, open_journal
from avsync_cli.batch.limits import DEFAULT_COPY_MB, DEFAULT_MEMORY_MB, MB, count_jobs
from avsync_cli.batch.progress import Progress
from avsync_cli.batch.records import FileError, Item, make_record
from avsync_cli.batch.sources import Filter, examine, find_files
from avsync_cli.batch.worker import Loader, Settings, load_checker
from avsync_cli.batch.workers import Answer, Crew, LocalCrew
from avsync_cli.errors import ConfigError
from avsync_cli.model import identify_student
from avsync_cli.precision import choose_precision
from avsync_cli.report import ModelId
from avsync_cli.spec import DEFAULT_TOLERANCE, Precision, Tolerance, Wanted, parse_tolerance

if TYPE_CHECKING:
    from avsync_cli.batch.cluster import ClusterCrew

_LOOK_S = 0.5  # between two looks at an interrupt and the progress
_FILL_S = 0.1  # for skipping files before those in work are looked at
_LEAST_MEMORY_MB = 64
_MOST_MEMORY_MB = 1 << 20
_LONGEST_S = 1e8  # three years; timers of the system end not far beyond


@dataclass(frozen=True)
class Scanned:
    """What one run did. `unread` has a line for each folder or address whose files are not known."""

    files: int
    skipped: int
    answered: int
    unread: tuple[str, ...]
    interrupted: bool


@dataclass
class Interrupt:
    """Whether somebody asked to stop."""

    asked: bool = False


def scan_files(
    sources: Sequence[str],
    results: str | Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    outputs: Sequence[Path] = (),
    resume: bool = False,
    retry_errors: bool = False,
    tolerance: str | Tolerance = DEFAULT_TOLERANCE,
    full: bool = False,
    model: str | Path | None = None,
    precision: Wanted = "auto",
    jobs: int = 0,
    timeout_s: float | None = None,
    cpu_s: float | None = None,
    memory_mb: int = DEFAULT_MEMORY_MB,
    copy_mb: int = DEFAULT_COPY_MB,
    scheduler: str | None = None,
    show_progress: bool = False,
    load: Loader | None = None,
) -> Scanned:
    """Check all videos of `sources` (see `sources.find_files`) and append an answer for each to `results`.

    `outputs` are further files that are not to be scanned; `full` is as for `check_file`; `jobs` 0 takes what
    the machine has. `load` plugs another check in: a function that can be imported, called once in each
    worker, which returns one that makes a `Report` of a path. Raises ConfigError, ModelError or ScanError; a
    file that cannot be checked is an answer too. An interrupt lets the files in work finish, a second one
    does not.
    """
    limits = parse_tolerance(tolerance)
    if not all(s is None or 0 < s <= _LONGEST_S for s in (timeout_s, cpu_s)):
        raise ConfigError(f"times must be above 0 and at most {_LONGEST_S:.0e} s")
    if not _LEAST_MEMORY_MB <= memory_mb <= _MOST_MEMORY_MB or copy_mb < 1:
        most = f"{_LEAST_MEMORY_MB} MB and at most {_MOST_MEMORY_MB} MB"
        raise ConfigError(f"memory must be at least {most}, copies at least 1 MB")
    if scheduler is not None and jobs:
        raise ConfigError("--jobs is for this machine; with --scheduler the cluster's threads count")
    folder = None if model is None else str(Path(model).resolve())
    chosen = choose_precision(precision, model)  # here, for all machines: their answers are to be alike
    identity = ModelId(*identify_student(model, precision=chosen), chosen)
    settings = Settings(
        load=load or partial(load_checker, folder, limits, full, chosen),
        tolerance=limits,
        timeout_s=timeout_s,
        cpu_s=cpu_s,
        memory_bytes=memory_mb * MB,
        copy_bytes=copy_mb * MB,
    )
    own = frozenset(str(Path(path).resolve()) for path in (results, *outputs))
    with (
        open_journal(results, limits=limits, full=full, resume=resume or retry_errors) as journal,
        _hire(settings, scheduler, jobs or count_jobs(settings.memory_bytes), folder, chosen) as crew,
    ):
        found = find_files(sources, Filter(tuple(include), tuple(exclude), own))
        with Progress(len(found.items), shown=show_progress) as progress, _interruptible() as interrupt:
            scan = _Scan(
                journal, crew, progress, interrupt, identity, limits, full, accept_errors=not retry_errors
            )
            scan.run(iter(found.items.values()))
    return Scanned(len(found.items), scan.skipped, scan.answered, tuple(found.unread), interrupt.asked)


@dataclass
class _Scan:
    """The parts of a scan, and how many files it has dealt with."""

    journal: Journal
    crew: Crew
    progress: Progress
    interrupt: Interrupt
    model: ModelId
    limits: Tolerance
    full: bool
    accept_errors: bool
    skipped: int = 0
    answered: int = 0

    def run(self, coming: Iterator[Item]) -> None:
        """Keep the crew busy until all files are answered, or an interrupt came and those in work are."""
        told, more = False, True
        while more or self.crew.busy:
            more = more and not self.interrupt.asked and self._fill(coming)
            busy = self.crew.busy
            if self.interrupt.asked and busy and not told:
                told = True
                self.progress.note(f"finishing the {len(busy)} files in work; once more stops at once")
            at_once = not busy or (more and self.crew.room > 0)
            for item, answer in self.crew.collect(0 if at_once else _LOOK_S):
                self._write(item, answer if isinstance(answer, FileError) else _if_unchanged(item, answer))
            self.progress.show(self.crew.busy)

    def _fill(self, coming: Iterator[Item]) -> bool:
        """Hand out files while there is room, but not for long: those in work have to be watched.

        Returns whether there may be more.
        """
        until = monotonic() + _FILL_S
        while self.crew.room > 0 and monotonic() < until and not self.interrupt.asked:
            item = next(coming, None)
            if item is None:
                return False
            self._hand_out(item)
        return True

    def _hand_out(self, item: Item) -> None:
        try:
            item = examine(item)
        except FileError as failure:
            if not self._is_answered(item):
                self._write(item, failure)
            return
        if not self._is_answered(item):
            self.crew.submit(item)

    def _is_answered(self, item: Item) -> bool:
        answered = self.journal.has_answer(item, self.model.sha256, accept_errors=self.accept_errors)
        if answered:
            self.skipped += 1
            self.progress.skip()
        return answered

    def _write(self, item: Item, answer: Answer) -> None:
        record = make_record(item, answer, limits=self.limits, model=self.model, full=self.full)
        self.journal.append(record)
        self.answered += 1
        self.progress.count(record["status"])


def _if_unchanged(item: Item, answer: Answer) -> Answer:
    """The answer, unless the file was written to meanwhile; one that is gone by now was read whole."""
    try:
        now = examine(item)
    except FileError:
        return answer
    if (now.size, now.mtime) != (item.size, item.mtime):
        return FileError("changed", "was written to while it was checked")
    return answer


def _hire(
    settings: Settings, scheduler: str | None, jobs: int, model: str | None, precision: Precision
) -> "LocalCrew | ClusterCrew":
    if scheduler is None:
        return LocalCrew(settings, jobs=jobs)
    from avsync_cli.batch.cluster import ClusterCrew

    return ClusterCrew(scheduler, settings, model=model, precision=precision)


@contextmanager
def _interruptible() -> Iterator[Interrupt]:
    """Note the first Ctrl-C or SIGTERM; let the second one through as KeyboardInterrupt."""
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread hears signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
