"""Inside a worker: load the models once, then check one file after the other, until nobody asks.

Run by `workers.Worker` in a process of its own. Requests come pickled; answers go as JSON, because a
worker that a hostile file has taken over must not be believed more than data is.
"""

import json
import math
import os
import pickle
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from avsync_cli.batch import limits
from avsync_cli.batch.overview import INDEX, PAGES, page_name
from avsync_cli.batch.process import Channel, begin, forget_time, limit_memory, limit_time, wait_for_end
from avsync_cli.batch.records import FailureReason, FileError, Item
from avsync_cli.batch.remote import copy_address, is_address
from avsync_cli.errors import AvsyncError, MediaError
from avsync_cli.machine import MB
from avsync_cli.options import CheckOptions
from avsync_cli.playlists import is_playlist, join_playlist
from avsync_cli.pulse import beat, hear_pulse
from avsync_cli.report import Report, error_report
from avsync_cli.spec import Tolerance, Wanted

if TYPE_CHECKING:
    from avsync_cli.check import Engine, Progress

Checker = Callable[..., Report]  # of a path; with what else `Settings` says
Loader = Callable[[], Checker]  # run once in each worker; must be importable there, as all that is pickled

# After these what is left in the process is unknown, so that it must not go on.
SPENT: frozenset[FailureReason] = frozenset(("memory_limit", "failed"))
_TELLING = Lock()  # signs of life come from any thread
_IDLE_S = 600.0  # after which a worker without work gives its memory back
_TELL_S = 0.2  # between two words about how far a check is


@dataclass(frozen=True)
class Settings:
    """What a worker is told when it begins. None: the default, which grows with the file.

    `pages` is the folder to which the check writes a page of each file: it is then called with the keywords
    of `showing.check_to_page`. If it is `watched`, it is called with its `item` and a function for its
    `progress`, which becomes the worker's `share`. With `follow_playlists` what an HLS playlist names is
    joined to a file as large as a copy may be, and that is checked.
    """

    load: Loader
    tolerance: Tolerance
    timeout_s: float | None = None
    cpu_s: float | None = None
    memory_bytes: int = limits.DEFAULT_MEMORY_MB * MB
    copy_bytes: int = limits.DEFAULT_COPY_MB * MB
    pages: Path | None = None
    follow_playlists: bool = False
    watched: bool = False


def load_checker(
    model: str | None, options: CheckOptions, precision: Wanted = "auto", *, with_pages: bool = False
) -> Checker:
    """The checker of `avsync check`, on one thread, or `showing.check_to_page`. Raises ModelError."""
    from avsync_cli.check import check_file

    engine = load_calibrated(model, precision, threads=1)
    if with_pages:
        from avsync_cli.showing import check_to_page

        return partial(check_to_page, options=options, engine=engine)
    return partial(check_file, options=options, engine=engine)


def load_calibrated(model: str | None, precision: Wanted, *, threads: int) -> "Engine":
    """The models, on so many threads, OpenCV too. Raises ModelError."""
    import cv2

    from avsync_cli.check import load_engine, require_calibration

    cv2.setNumThreads(threads)
    engine = load_engine(model, threads=threads, precision=precision)
    require_calibration(engine)
    return engine


def serve(channel: int, scratch: Path, parent: int) -> None:
    """Answer on the channel of that number until it is closed or `parent` has ended."""
    try:
        begin()
        Thread(target=_leave_with, args=(parent, scratch), daemon=True).start()
        _answer(Channel(channel), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _answer(pipe: Channel, scratch: Path) -> None:
    tell = partial(_tell, pipe)
    import av  # noqa: F401 - now, so that it does not count for the first file

    try:
        settings: Settings = pickle.loads(pipe.recv_bytes())
        check = settings.load()
    except AvsyncError as error:
        tell(unusable=str(error), exit_code=error.exit_code)
        return
    except Exception as error:
        tell(unusable=f"a worker cannot load its check: {_name_bug(error)}", exit_code=AvsyncError.exit_code)
        return
    limit_memory(settings.memory_bytes)
    with suppress(EOFError, ConnectionError):  # the scan is over
        while pipe.poll(_IDLE_S):
            item = pickle.loads(pipe.recv_bytes())
            try:
                tell(report=_check(item, check, settings, scratch, tell))
            except FileError as failure:
                tell(failure=[failure.reason, failure.message])
                if failure.reason in SPENT:
                    return
            forget_time()


def main() -> None:
    """Serve as the command line says: channel, folder for copies, process that asks."""
    channel, scratch, parent = sys.argv[1:]
    serve(int(channel), Path(scratch), int(parent))


def _check(
    item: Item, check: Checker, settings: Settings, scratch: Path, tell: Callable[..., None]
) -> dict[str, Any]:
    """The report of one file as JSON. Raises FileError."""
    path = Path(item.path)
    if settings.pages is not None:
        page = settings.pages / PAGES / page_name(item.path)
        page.unlink(missing_ok=True)  # that of an earlier answer
        check = partial(check, page=page, name=item.file, home=f"../{INDEX}")
    if settings.watched:
        check = partial(check, item=item, progress=_tell_share(tell))
    allow = partial(_allow, settings=settings, begun=(time.monotonic(), time.process_time()), tell=tell)
    try:
        if is_address(item.path):
            allow(limits.copy_time_s(item.size))
            path = copy_address(item, scratch, limit_bytes=settings.copy_bytes)
        try:
            path = _join(path, settings, scratch, allow)
            allow(limits.OPENING_S)
            hear_pulse(partial(tell, goes_on=True))
            beat()
            allow(limits.file_time_s(path, item.size if path == Path(item.path) else None))
            report = check(path)
        except MediaError as error:
            if isinstance(error.__cause__, MemoryError):
                raise MemoryError from error
            report = error_report(item.file, error, settings.tolerance)
    except FileError:
        raise
    except MemoryError as error:
        memory_mb = settings.memory_bytes // MB
        raise FileError("memory_limit", f"needs more memory than the {memory_mb} MB it may") from error
    except Exception as error:
        raise FileError("failed", _name_bug(error)) from error
    finally:
        hear_pulse(None)
        for copy in scratch.iterdir():
            copy.unlink()
    message = report.message.replace(str(path), item.file)
    return report.to_json() | {"file": item.file, "message": message}


def _join(path: Path, settings: Settings, scratch: Path, allow: Callable[[float], None]) -> Path:
    """The file to check: what a playlist names, joined, where such are followed. Raises MediaError."""
    if not settings.follow_playlists or not is_playlist(path):
        return path
    joined = scratch / "joined"
    allow(limits.copy_time_s(settings.copy_bytes))
    join_playlist(path, joined, limit_bytes=settings.copy_bytes)
    return joined


def _allow(
    seconds: float, *, settings: Settings, begun: tuple[float, float], tell: Callable[..., None]
) -> None:
    """Tell how long the next step may take, and have the system see to it where the parent cannot.

    What the user set is for all steps of the file together; `begun` are the clock and the CPU time used
    when the file came.
    """
    if settings.timeout_s is not None:
        seconds = max(0.0, settings.timeout_s - (time.monotonic() - begun[0]))
    tell(allowed_s=seconds)
    seconds += limits.GRACE_S
    cpu_s = time.process_time() + seconds if settings.cpu_s is None else begun[1] + settings.cpu_s
    limit_time(seconds, cpu_s=cpu_s)


def _tell_share(tell: Callable[..., None]) -> "Progress":
    """Tell how much of the check is done, None where that is not known, but not at every picture."""
    told_s = -math.inf

    def note(done_s: float, total_s: float | None) -> None:
        nonlocal told_s
        share = min(1.0, max(0.0, done_s / total_s)) if total_s else None
        if share == 1.0 or time.monotonic() - told_s >= _TELL_S:
            told_s = time.monotonic()
            tell(share=share)

    return note


def _leave_with(parent: int, scratch: Path) -> None:
    """End with the process that asked, even in the middle of a file: nobody is left to tell."""
    wait_for_end(parent)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def _name_bug(error: Exception) -> str:
    """What failed and where: a record has no room for a traceback."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"


def _tell(pipe: Channel, **message: Any) -> None:  # noqa: ANN401 - JSON values
    with _TELLING:
        pipe.send_bytes(json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii"))
