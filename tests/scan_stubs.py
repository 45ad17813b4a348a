"""Checks that take no models, plugged into a scan: what a file says is what happens to its worker.

Run as a program it scans a folder with them:

    python tests/scan_stubs.py FOLDER RESULTS [--resume] [--jobs N] [--log FILE]
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from avsync_cli.batch import limits
from avsync_cli.batch.run import scan_files
from avsync_cli.batch.worker import Checker
from avsync_cli.errors import MediaError, ModelError
from avsync_cli.report import Report
from avsync_cli.spec import DEFAULT_TOLERANCE, TOLERANCES

PROGRAM = Path(__file__)
LIMITS = TOLERANCES[DEFAULT_TOLERANCE]


def load_stub(log: Path | None = None) -> Checker:
    """A check that does what the file says. To `log` it adds the process that loaded it."""
    if log is not None:
        with log.open("a") as lines:
            lines.write(f"{os.getpid()}\n")
    return _check


def load_hasty_stub() -> Checker:
    """In a worker that ends itself soon after its file's time is over."""
    limits.GRACE_S = 0.5
    return _check


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that ended and was not asked how does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def load_nothing() -> Checker:
    raise ModelError("no such model")


def load_and_die() -> Checker:
    os._exit(7)


def _check(path: Path) -> Report:
    """Do what the words in the file say: "lead 80", "sleep 0.1 lead 0", "hang", "exit 3", ..."""
    lead_ms = 0.0
    words = iter(path.read_text().split())
    for word in words:
        if word == "lead":
            lead_ms = float(next(words))
        elif word == "sleep":
            time.sleep(float(next(words)))
        elif word == "exit":
            os._exit(int(next(words)))
        elif word == "say":
            Connection(os.dup(int(sys.argv[1]))).send_bytes(bytes.fromhex(next(words)))
        elif word == "grow":
            path.write_text(path.read_text() + " ")
        elif word == "touch":
            Path(next(words)).touch()
        elif word == "wait-for":
            mark = Path(next(words))
            while not mark.exists():
                time.sleep(0.01)
        else:
            DEEDS[word]()
    return Report(
        file=str(path),
        status="in_sync" if LIMITS.contains(lead_ms) else "out_of_sync",
        message=f"checked by {os.getpid()}",
        limits_ms=(LIMITS.latest_ms, LIMITS.earliest_ms),
        audio_lead_ms=lead_ms,
        confidence=0.9,
        duration_s=10.0,
    )


def _spin() -> None:
    while True:
        pass


def _swell() -> None:
    """Grow by 20 MB at a time, all of it touched."""
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20) * 20))
        time.sleep(0.01)


def _refuse() -> None:
    raise MediaError("no sound in it", "no_audio")


DEEDS: dict[str, Callable[[], object]] = {
    "hang": partial(time.sleep, 3600),
    "spin": _spin,
    "segfault": partial(ctypes.string_at, 0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "swell": _swell,
    "leap": lambda: bytearray(1 << 40),
    "divide": lambda: 1 / 0,
    "refuse": _refuse,
}


def write_files(folder: Path, *words: str) -> list[Path]:
    """One file for each text, 000.mp4 and so on."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:03}.mp4" for number in range(len(words))]
    for path, text in zip(paths, words, strict=True):
        path.write_text(text)
    return paths


def wait_until(true: Callable[[], bool], *, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


if __name__ == "__main__":
    from scan_stubs import load_stub as load  # by the name under which workers can import it

    jobs = int(sys.argv[sys.argv.index("--jobs") + 1]) if "--jobs" in sys.argv else 2
    log = Path(sys.argv[sys.argv.index("--log") + 1]) if "--log" in sys.argv else None
    resume = "--resume" in sys.argv
    done = scan_files([sys.argv[1]], sys.argv[2], resume=resume, load=partial(load, log), jobs=jobs)
    sys.exit("interrupted" if done.interrupted else 0)
