"""`avsync scan --fix`: a copy beside each video that was found out of sync; goes on where it was ended.

A copy has its name only when it is whole and was checked, so one that is there is done.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from avsync_cli.batch.progress import ScanProgress
from avsync_cli.batch.records import FileError, Item, Record
from avsync_cli.batch.remote import is_address
from avsync_cli.batch.worker import Checker, load_checker
from avsync_cli.batch.workers import Crew
from avsync_cli.errors import ConfigError, MediaError, WriteError
from avsync_cli.fix import SYNCED, Fix, FixOptions, fix_file, name_targets
from avsync_cli.options import CheckOptions
from avsync_cli.playlists import is_playlist
from avsync_cli.report import Report
from avsync_cli.spec import Wanted

_LOOK_S = 0.5


def load_fixer(model: str | None, options: CheckOptions, precision: Wanted = "auto") -> Checker:
    """As `worker.load_checker`, but each file is fixed: its report is then that of the copy."""
    chosen = options.audio_stream if isinstance(options.audio_stream, int) else None  # else all are moved
    return partial(_fix, check=load_checker(model, options, precision), audio_stream=chosen)


def find_broken(records: Iterable[Record]) -> Iterator[Item]:
    """The files that are out of sync and have no copy yet; neither copies nor playlists are copied."""
    for record in records:
        path = Path(record["path"])
        if record["status"] != "out_of_sync" or is_address(record["path"]) or path.stem.endswith(SYNCED):
            continue
        has_copy = any(target.exists() for target in name_targets(path))
        if path.is_file() and not has_copy and not is_playlist(path):
            yield Item(record["file"], record["path"])


def fix_items(items: Iterable[Item], crew: Crew, progress: ScanProgress) -> Iterator[tuple[Item, str | None]]:
    """Fix each; yields it with why it was not fixed, or None."""
    coming = iter(items)
    more = True
    while more or crew.busy:
        while more and crew.room > 0:
            item = next(coming, None)
            more = item is not None
            if item is not None:
                crew.submit(item)
        for item, answer in crew.collect(_LOOK_S):
            status = "error" if isinstance(answer, FileError) else answer["status"]
            progress.count(status)
            why = answer.message if isinstance(answer, FileError) else answer["message"]
            yield item, None if status == "in_sync" else why
        progress.show(crew.busy)


def _fix(path: Path, *, check: Checker, audio_stream: int | None) -> Report:
    return report_fix(fix_one(path, check, FixOptions(audio_stream=audio_stream)))


def fix_one(path: Path, check: Checker, options: FixOptions) -> Fix:
    """As `fix_file`; whatever keeps this file from being mended is a MediaError, and its own."""
    try:
        return fix_file(path, check, options)
    except (ConfigError, WriteError) as error:
        raise MediaError(str(error)) from error


def report_fix(done: Fix) -> Report:
    """What became of a file as the report of its copy: in sync where that is what it is now."""
    report = done.after or done.before
    if report is None:
        raise MediaError(f"{done.file}: {done.message}")
    status = report.status if done.status != "refused" or report.status != "in_sync" else "undetermined"
    return Report(done.file, status, done.message, report.limits_ms, model=report.model, reason=report.reason)
