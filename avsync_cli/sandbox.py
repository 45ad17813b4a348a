"""Check files in a process apart, so that one that crashes it, swells or never ends is only its own error.

The child is this very command line again. It tells over a pipe, file by file, what it answered, and its
parent prints that: once told an answer is given, and never twice. Where the child dies its parent answers for
the file in work and starts another child, which goes on behind it. So a crash costs a start, and what is
printed is the same with and without.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from math import inf
from threading import Lock
from typing import TextIO

from avsync_cli.batch.limits import still_time_s
from avsync_cli.batch.process import limit_memory
from avsync_cli.errors import EXIT_INTERRUPTED, ConfigError
from avsync_cli.machine import MB, resident_bytes
from avsync_cli.pulse import PatientClock, hear_pulse
from avsync_cli.report import LostReason
from avsync_cli.scratch import make_scratch, sweep_scratch

_VARIABLE = "AVSYNC_SANDBOX"  # of a child: where to tell its answers, and the file to begin with
_WATCH_S = 0.02  # in which a process that swells grows by 20 MB
CHECK_MEMORY_MB = 580  # 4K in 10 bits takes 510; what takes more is ended before it has 600
AUDIO_MEMORY_MB = 2048  # with a sound file of its own, which is kept whole
_TELLING = Lock()  # signs of life come from any thread

Lost = Callable[[int, LostReason, str], None]  # place of the file, why there is no answer, in words


@dataclass(frozen=True)
class Bounds:
    """What one file may take. None: as long as it lasts."""

    timeout_s: float | None
    memory_mb: int

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not 0 < self.timeout_s <= 1e8:
            raise ConfigError(f"--timeout {self.timeout_s:g}: must be above 0")
        if not 64 <= self.memory_mb <= 1 << 20:
            raise ConfigError(f"--memory {self.memory_mb}: must be 64 to {1 << 20} MB")


def is_child() -> bool:
    return _VARIABLE in os.environ


def first_file() -> int:
    """The place of the file that this process is to begin with."""
    return int(os.environ[_VARIABLE].partition(":")[2]) if is_child() else 0


class _Held(StringIO):
    """What is printed, kept; to who asks it is the stream that it stands for."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()


@contextmanager
def answer_file() -> Iterator[list[int]]:
    """Within it a file is answered and its exit code put into the list. A child prints through its parent."""
    code: list[int] = []
    if not is_child():
        yield code
        sys.stdout.flush()
        return
    _tell({"begins": True})
    streams = sys.stdout, sys.stderr
    held = _Held(sys.stdout), _Held(sys.stderr)
    sys.stdout, sys.stderr = held
    try:
        yield code
    except BaseException:  # which will be told on these streams, too
        for stream, kept in zip(streams, held, strict=True):
            stream.write(kept.getvalue())
        raise
    finally:
        sys.stdout, sys.stderr = streams
    _tell({"code": code[0], "printed": [kept.getvalue() for kept in held]})


def limit_child(bounds: Bounds) -> None:
    """Let allocations far beyond the bounds fail: the parent, who looks now and then, would be too late."""
    if is_child():
        limit_memory(bounds.memory_mb * MB)


def allow(seconds: float) -> None:
    """Tell the parent, where there is one, how long what comes now may take, unless its user says it.

    From now on the parent also sees whether the work goes on.
    """
    _tell({"allowed_s": seconds})
    hear_pulse(partial(_tell, {"goes_on": True}) if is_child() else None)


def _tell(message: dict[str, object]) -> None:
    if is_child():
        line = memoryview(json.dumps(message).encode("ascii") + b"\n")
        try:
            with _TELLING:
                while line:
                    line = line[os.write(int(os.environ[_VARIABLE].partition(":")[0]), line) :]
        except OSError:
            sys.exit(EXIT_INTERRUPTED)  # nobody is left to tell


def run_apart(
    files: int, arguments: Sequence[str], bounds: Bounds, lost: Lost
) -> tuple[list[int], int | None]:
    """Run `avsync ARGUMENTS`, which checks so many files, in children.

    Returns the exit codes of the files that were answered, and that of a child that ended the whole command
    before all were (None otherwise). `lost` is called for files whose child died.
    """
    codes: list[int] = []
    place = 0
    while place < files:
        told, status = _run_child(place, arguments, bounds)
        codes += told.codes
        place += len(told.codes)
        if place >= files:
            break
        if told.killed_for is None and status >= 0:
            return codes, status  # it said itself why it ends
        if told.codes and not told.in_work:
            continue  # it died between two files
        reason, words = told.killed_for or ("crashed", f"the decoder crashed ({_name_of(-status)})")
        lost(place, reason, words)
        place += 1
    return codes, None


@dataclass
class _Told:
    """What one child told: exit codes, whether a file is in work; and why it was killed, if it was."""

    codes: list[int] = field(default_factory=list)
    in_work: bool = False
    killed_for: tuple[LostReason, str] | None = None


def _run_child(place: int, arguments: Sequence[str], bounds: Bounds) -> tuple[_Told, int]:
    """What one child told that begins with file `place`, and the status that it ended with."""
    scratch = _make_scratch()
    ours, theirs = os.pipe()
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "avsync_cli", *arguments],
            pass_fds=[theirs],
            env=os.environ | {_VARIABLE: f"{theirs}:{place}", "PYTHONPATH": paths} | scratch,
        )
    finally:
        os.close(theirs)
    told = _Told()
    try:
        _listen(ours, process, told, bounds)
    finally:
        os.close(ours)
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.send_signal(signal.SIGINT)
        status = process.wait()
        shutil.rmtree(scratch.get("TMPDIR", ""), ignore_errors=True)
    return told, status


def _make_scratch() -> dict[str, str]:
    """Where a child is to put its temporary files, which it cannot remove once it is killed."""
    try:
        sweep_scratch()
        return {"TMPDIR": str(make_scratch())}
    except OSError:  # there is no room for any, and most files need none
        return {}


class _Allowance:
    """How long a file may still take."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s, self._clock = timeout_s, PatientClock()
        self._began_s = self._from_s = self._clock.read()
        self._allowed_s = timeout_s or inf
        self._went_on_s = inf  # when it last did; nobody looks before a time is allowed

    def allow(self, seconds: float) -> None:
        """From now on, unless the user says for all of the file."""
        if self._timeout_s is None:
            self._allowed_s, self._from_s = seconds, self._clock.read()
            self._went_on_s = self._from_s

    def go_on(self) -> None:
        self._went_on_s = self._clock.read()

    def judge(self) -> str | None:
        """Why the file is to be ended now, if it is."""
        now_s = self._clock.read()
        if now_s - self._from_s > self._allowed_s:
            return f"took longer than the {self._allowed_s:.4g} s it may (--timeout)"
        still_s = still_time_s(self._went_on_s - self._began_s)
        if self._timeout_s is None and now_s - self._went_on_s > still_s:
            return f"stood still for {still_s:.4g} s (--timeout)"
        return None


def _listen(ours: int, process: "subprocess.Popen[bytes]", told: _Told, bounds: Bounds) -> None:
    """Print what a child tells until it is gone; kill one that takes too much."""
    text, allowance = b"", _Allowance(bounds.timeout_s)
    while told.killed_for is None:
        if select.select([ours], [], [], _WATCH_S)[0]:
            piece = os.read(ours, 1 << 16)
            if not piece:
                return
            *lines, text = (text + piece).split(b"\n")
            for message in map(json.loads, lines):
                if "begins" in message:
                    told.in_work, allowance = True, _Allowance(bounds.timeout_s)
                elif "allowed_s" in message:
                    allowance.allow(message["allowed_s"])
                elif "goes_on" in message:
                    allowance.go_on()
                else:
                    told.in_work = False
                    told.codes.append(message["code"])
                    _print(message["printed"])
        if told.in_work and (words := allowance.judge()):
            told.killed_for = "timeout", words
        elif told.in_work and resident_bytes(process.pid) > bounds.memory_mb * MB:
            words = f"needs more memory than the {bounds.memory_mb} MB it may (--memory)"
            told.killed_for = "memory_limit", words
    process.kill()


def _print(texts: Sequence[str]) -> None:
    """What a child has to say on stdout and stderr."""
    for stream, text in zip((sys.stdout, sys.stderr), texts, strict=True):
        stream.write(text)
        stream.flush()


def _name_of(number: int) -> str:
    known = {entry.value: entry.name for entry in signal.Signals}
    return known.get(number, f"signal {number}")
