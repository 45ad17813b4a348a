"""Inside a worker: load the models once, then check one file after the other, until nobody asks.

Run by `workers.Worker` in a process of its own. Requests come pickled; answers go as JSON, because a
worker that a hostile file has taken over must not be believed more than data is.
"""

import json
import math
import os
import pickle
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from avsync_cli.batch import limits
from avsync_cli.batch.records import FailureReason, FileError, Item
from avsync_cli.batch.remote import copy_address, is_address
from avsync_cli.errors import AvsyncError, MediaError
from avsync_cli.report import Report, error_report
from avsync_cli.spec import Tolerance, Wanted

Checker = Callable[[Path], Report]
Loader = Callable[[], Checker]  # run once in each worker; must be importable there, as all that is pickled

# After these what is left in the process is unknown, so that it must not go on.
SPENT: frozenset[FailureReason] = frozenset(("memory_limit", "failed"))
_IDLE_S = 600.0  # after which a worker without work gives its memory back


@dataclass(frozen=True)
class Settings:
    """What a worker is told when it begins. None: the default, which grows with the file."""

    load: Loader
    tolerance: Tolerance
    timeout_s: float | None = None
    cpu_s: float | None = None
    memory_bytes: int = limits.DEFAULT_MEMORY_MB * limits.MB
    copy_bytes: int = limits.DEFAULT_COPY_MB * limits.MB


def load_checker(model: str | None, tolerance: Tolerance, full: bool, precision: Wanted = "auto") -> Checker:
    """The checker of `avsync check`, on one thread. Raises ModelError."""
    import cv2

    from avsync_cli.check import check_file, load_engine
    from avsync_cli.errors import ModelError

    cv2.setNumThreads(1)
    engine = load_engine(model, threads=1, precision=precision)
    if engine.student.calibration is None:
        raise ModelError(f"{engine.student.name}: not calibrated, so it cannot say how sure it is")
    return partial(check_file, tolerance=tolerance, full=full, engine=engine)


def serve(descriptor: int, scratch: Path, parent: int) -> None:
    """Answer on the socket `descriptor` until it is closed or `parent` has ended."""
    try:
        _prepare(scratch, parent)
        _answer(Connection(descriptor), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _answer(pipe: Connection, scratch: Path) -> None:
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
    _limit_memory(settings.memory_bytes)
    with suppress(EOFError, ConnectionError):  # the scan is over
        while pipe.poll(_IDLE_S):
            item = pickle.loads(pipe.recv_bytes())
            try:
                tell(report=_check(item, check, settings, scratch, tell))
            except FileError as failure:
                tell(failure=[failure.reason, failure.message])
                if failure.reason in SPENT:
                    return
            signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Serve as the command line says: socket, folder for copies, process that asks."""
    descriptor, scratch, parent = sys.argv[1:]
    serve(int(descriptor), Path(scratch), int(parent))


def _check(
    item: Item, check: Checker, settings: Settings, scratch: Path, tell: Callable[..., None]
) -> dict[str, Any]:
    """The report of one file as JSON. Raises FileError."""
    path = Path(item.path)
    allow = partial(_allow, settings=settings, begun=(time.monotonic(), time.process_time()), tell=tell)
    try:
        if is_address(item.path):
            allow(limits.copy_time_s(item.size))
            path = copy_address(item, scratch, limit_bytes=settings.copy_bytes)
        allow(limits.OPENING_S)
        allow(limits.check_time_s(_declared_s(path), item.size))
        try:
            report = check(path)
        except MediaError as error:
            if isinstance(error.__cause__, MemoryError):
                raise MemoryError from error
            report = error_report(item.file, error, settings.tolerance)
    except FileError:
        raise
    except MemoryError as error:
        memory_mb = settings.memory_bytes // limits.MB
        raise FileError("memory_limit", f"needs more memory than the {memory_mb} MB it may") from error
    except Exception as error:
        raise FileError("failed", _name_bug(error)) from error
    finally:
        for copy in scratch.iterdir():
            copy.unlink()
    message = report.message.replace(str(path), item.file)
    return report.to_json() | {"file": item.file, "message": message}


def _allow(
    seconds: float, *, settings: Settings, begun: tuple[float, float], tell: Callable[..., None]
) -> None:
    """Tell how long the next step may take, and have the kernel see to it where the parent cannot.

    What the user set is for all steps of the file together; `begun` are the clock and the CPU time used
    when the file came.
    """
    if settings.timeout_s is not None:
        seconds = max(0.0, settings.timeout_s - (time.monotonic() - begun[0]))
    tell(allowed_s=seconds)
    seconds += limits.GRACE_S
    signal.setitimer(signal.ITIMER_REAL, seconds)
    cpu_s = time.process_time() + seconds if settings.cpu_s is None else begun[1] + settings.cpu_s
    _set_limit(resource.RLIMIT_CPU, math.ceil(cpu_s))


def _prepare(scratch: Path, parent: int) -> None:
    _set_limit(resource.RLIMIT_CORE, 0)
    with suppress(OSError):  # where memory runs out for all, a worker goes first
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    Thread(target=_leave_with, args=(parent, scratch), daemon=True).start()


def _leave_with(parent: int, scratch: Path) -> None:
    """End with the process that asked, even in the middle of a file: nobody is left to tell."""
    while os.getppid() == parent:
        time.sleep(0.5)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def _limit_memory(memory_bytes: int) -> None:
    """Let allocations far beyond the limit fail: the parent, who looks now and then, would be too late.

    Twice the limit, because a decoder that is refused memory calls the file damaged, and only the parent's
    word says what it was. Counted is what can be written to: space that is merely reserved costs nothing.
    """
    held = 0
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        held = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
    _set_limit(resource.RLIMIT_DATA, held + 2 * memory_bytes)


def _set_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _declared_s(path: Path) -> float | None:
    """The duration that a file declares; None where it does not, or cannot be opened."""
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        return None  # the check will say why


def _name_bug(error: Exception) -> str:
    """What failed and where: a record has no room for a traceback."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"


def _tell(pipe: Connection, **message: Any) -> None:  # noqa: ANN401 - JSON values
    pipe.send_bytes(json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii"))
