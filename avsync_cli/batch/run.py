"""The scan's whole story: sources -> files -> those without an answer -> workers -> the results file."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Unpack

from avsync_cli.batch.fixing import find_broken, fix_items, load_fixer
from avsync_cli.batch.journal import Journal, open_journal, read_answers
from avsync_cli.batch.limits import count_jobs
from avsync_cli.batch.options import ScanKeywords, ScanOptions, combine_options
from avsync_cli.batch.overview import prepare_folder
from avsync_cli.batch.progress import ScanProgress
from avsync_cli.batch.records import FileError, Item, make_record
from avsync_cli.batch.sources import Filter, examine, find_files
from avsync_cli.batch.worker import Loader, Settings, load_checker
from avsync_cli.batch.workers import Answer, Crew, LocalCrew
from avsync_cli.contract import identify_student
from avsync_cli.machine import MB
from avsync_cli.options import CheckOptions
from avsync_cli.precision import choose_precision
from avsync_cli.report import ModelId
from avsync_cli.spec import Precision, Tolerance, Wanted
from avsync_cli.stops import hearing_stops

if TYPE_CHECKING:
    from avsync_cli.batch.cluster import ClusterCrew

_LOOK_S = 0.5  # between two looks at an interrupt and the progress
_FILL_S = 0.1  # for skipping files before those in work are looked at


@dataclass(frozen=True)
class Scanned:
    """What one run did. `unread` has a line for each folder or address whose files are not known."""

    files: int
    skipped: int
    answered: int
    unread: tuple[str, ...]
    interrupted: bool
    fixed: int = 0
    not_fixed: tuple[str, ...] = ()  # a line for each that could not be


@dataclass
class Interrupt:
    """Whether somebody asked to stop."""

    asked: bool = False


def scan_files(
    sources: Sequence[str],
    results: str | Path,
    *,
    scan: ScanOptions | None = None,
    options: CheckOptions | None = None,
    model: str | Path | None = None,
    precision: Wanted = "auto",
    show_progress: bool = False,
    load: Loader | None = None,
    **keywords: Unpack[ScanKeywords],
) -> Scanned:
    """Check all videos of `sources` (see `sources.find_files`) and append an answer for each to `results`.

    How to scan comes as `scan`, what is asked of each video as `options`; both may come as keywords of the
    same names, which go first. `load` plugs another check in: a function that can be imported, called once
    in each worker, which returns one that makes a `Report` of a path. Raises ConfigError, ModelError or
    ScanError; a file that cannot be checked is an answer too. An interrupt lets the files in work finish, a
    second one does not.
    """
    scan, options = combine_options(scan, options, keywords)
    limits, full = options.limits, options.full
    folder = None if model is None else str(Path(model).resolve())
    chosen = choose_precision(precision, model)  # here, for all machines: their answers are to be alike
    identity = ModelId(*identify_student(model, precision=chosen), chosen)
    pages = None if load is not None else scan.pages  # another check makes none
    if pages is not None:
        prepare_folder(pages)
    settings = Settings(
        load=load or partial(load_checker, folder, options, chosen, with_pages=pages is not None),
        tolerance=limits,
        timeout_s=scan.timeout_s,
        cpu_s=scan.cpu_s,
        memory_bytes=scan.memory_mb * MB,
        copy_bytes=scan.copy_mb * MB,
        pages=pages,
        follow_playlists=scan.follow_playlists,
    )
    own = frozenset(str(Path(path).resolve()) for path in (results, *scan.outputs))
    jobs = scan.jobs or count_jobs(settings.memory_bytes)
    with (
        open_journal(results, limits=limits, full=full, resume=scan.resume or scan.retry_errors) as journal,
        _hire(settings, scan.scheduler, jobs, folder, chosen) as crew,
    ):
        wanted = Filter(tuple(scan.include), tuple(scan.exclude), own, scan.follow_playlists)
        found = find_files(sources, wanted)
        with ScanProgress(len(found.items), shown=show_progress) as progress, _interruptible() as interrupt:
            accept = not scan.retry_errors
            run = _Scan(journal, crew, progress, interrupt, identity, limits, full, accept_errors=accept)
            run.run(iter(found.items.values()))
    scanned = Scanned(len(found.items), run.skipped, run.answered, tuple(found.unread), interrupt.asked)
    if not scan.fix or scanned.interrupted:
        return scanned
    fixer = replace(settings, load=partial(load_fixer, folder, options, chosen), pages=None)
    return _fix_found(scanned, Path(results), fixer, scan.jobs, show_progress=show_progress)


def _fix_found(
    scanned: Scanned, results: Path, settings: Settings, jobs: int, *, show_progress: bool
) -> Scanned:
    """Write the copies that are missing of all files that the results say are out of sync."""
    broken = list(find_broken(read_answers(results)))
    with (
        LocalCrew(settings, jobs=jobs or count_jobs(settings.memory_bytes)) as crew,
        ScanProgress(len(broken), shown=show_progress and bool(broken)) as progress,
        _interruptible() as interrupt,
    ):
        coming = takewhile(lambda _: not interrupt.asked, broken)
        ends = list(fix_items(coming, crew, progress))
    not_fixed = tuple(f"{item.file}: not fixed: {why}" for item, why in ends if why is not None)
    return replace(
        scanned, interrupted=interrupt.asked, fixed=len(ends) - len(not_fixed), not_fixed=not_fixed
    )


@dataclass
class _Scan:
    """The parts of a scan, and how many files it has dealt with."""

    journal: Journal
    crew: Crew
    progress: ScanProgress
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
        status = self.journal.find_status(item, self.model.sha256)
        if status is None or (status == "error" and not self.accept_errors):
            return False
        self.skipped += 1
        self.progress.skip(status)
        return True

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
    """Note the first Ctrl-C, SIGTERM or SIGHUP; let the second one through as KeyboardInterrupt."""
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread hears signals
        return
    with hearing_stops(note):
        yield interrupt
