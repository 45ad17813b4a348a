"""Inside the worker: check a file to a page, or mend it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from avsync_cli.batch.fixing import fix_one, report_fix
from avsync_cli.batch.records import Item
from avsync_cli.batch.worker import Checker, load_calibrated
from avsync_cli.options import CheckOptions
from avsync_cli.report import Report
from avsync_cli.spec import Wanted

if TYPE_CHECKING:
    from avsync_cli.check import Engine, Progress

REPORT = "report.html"  # beside the video


@dataclass(frozen=True, slots=True)
class Task(Item):
    """A file to check, or, if `mend`, of which a copy is to be written beside it."""

    mend: bool = False


def load_work(model: str | None, options: CheckOptions, precision: Wanted, threads: int) -> Checker:
    """Called once in the worker. Raises ModelError."""
    engine = load_calibrated(model, precision, threads=threads)
    return partial(_work, options=options, engine=engine)


def _work(path: Path, *, item: Task, progress: "Progress", options: CheckOptions, engine: "Engine") -> Report:
    from avsync_cli.showing import check_to_page

    if item.mend:
        return _mend(path, options, engine)
    page = path.with_name(REPORT)
    return check_to_page(path, options=options, engine=engine, page=page, name=item.file, progress=progress)


def _mend(path: Path, options: CheckOptions, engine: "Engine") -> Report:
    """As the command that the report names: with `--segments` after an edit, `--resample` for a drift."""
    from avsync_cli.check import check_file
    from avsync_cli.fix import FixOptions

    check = partial(check_file, options=options, engine=engine)
    done = fix_one(path, check, FixOptions(segments=True, resample=True, overwrite=True))
    words = done.message.removesuffix(f", as {done.out}")
    words = words if done.container_note is None else f"{words}; {done.container_note}"
    return replace(report_fix(done), message=words)
