"""Workers as their parent sees them: processes that may crash, hang or swell without harm to the scan."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from avsync_cli.batch.limits import START_S, still_time_s
from avsync_cli.batch.process import Channel, describe_end, end_reason, start_process
from avsync_cli.batch.records import FAILURE_REASONS, FailureReason, FileError, Item, Record, check_report
from avsync_cli.batch.worker import SPENT, Settings
from avsync_cli.errors import EXIT_MODEL, ModelError, ScanError
from avsync_cli.machine import MB, cpu_time_s, resident_bytes
from avsync_cli.pulse import PatientClock
from avsync_cli.scratch import make_scratch, sweep_scratch

Answer = Record | FileError

_PROGRAM = "import sys; from avsync_cli.batch.worker import main; main()"
_MAX_MESSAGE_BYTES = 64 * MB
_WATCH_S = 0.1  # between two looks at time and memory
_MAX_STARTS = 3
_END_S = 5.0  # for a killed process to be gone; one that waits for a disk may take for ever
_MOST_MESSAGES = 16  # at one look: a file makes two or three
_lost: list[subprocess.Popen[bytes]] = []


class Crew(Protocol):
    """Who checks the files: workers on this machine or a cluster."""

    @property
    def room(self) -> int:
        """How many more files may be submitted now."""

    @property
    def busy(self) -> Sequence[Item]:
        """The files submitted and not yet collected."""

    def submit(self, item: Item) -> None: ...

    def collect(self, timeout_s: float) -> list[tuple[Item, Answer]]:
        """What was answered since; waits for at most `timeout_s`, and returns early where it can."""


class Worker:
    """A place for one file at a time, and the process behind it, replaced whenever it is lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._clock = settings, PatientClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Channel
        self._scratch: Path
        self.item: Item | None = None
        self.share: float | None = None  # of the file in work that is done, where its check tells

    def begin(self, item: Item) -> None:
        """Have a file checked; `poll` will bring the answer. Raises ScanError."""
        self.item, self.share, self._starts, self._was_spared = item, None, 0, False
        # One that has grown by itself must not make the next file pay for it.
        if self._process is not None:
            room_bytes = self._settings.memory_bytes - self._loaded_bytes
            if resident_bytes(self._process.pid) - self._loaded_bytes > room_bytes / 2:
                self.close()
        self._hand_over(item)

    def poll(self) -> Answer | None:
        """The answer for the file in work, None while there is none yet.

        Raises ModelError where the model cannot be used, ScanError where no process can be started.
        """
        try:
            for _ in range(_MOST_MESSAGES):
                if not self._pipe.poll():
                    break
                answer = self._hear(json.loads(self._pipe.recv_bytes(_MAX_MESSAGE_BYTES)))
                if answer is not None:
                    return answer
        except (EOFError, OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return self._bury()
        now_s = self._clock.read()
        if now_s > self._deadline:
            if not self._begun:
                return self._bury()
            return self._fail("timeout", f"took longer than the {self._allowed_s:.0f} s it may")
        still_s = still_time_s(self._went_on_s - self._begun_s)
        if self._settings.timeout_s is None and now_s - self._went_on_s > still_s:
            return self._fail("timeout", f"stood still for {still_s:.0f} s")
        return self._watch()

    def answer(self, item: Item) -> Record:
        """Check one file and wait for it. Raises FileError, and what `poll` raises."""
        self.begin(item)
        while (answer := self.poll()) is None:
            wait([self._pipe], _WATCH_S)
        if isinstance(answer, FileError):
            raise answer
        return answer

    @property
    def pipe(self) -> Channel:
        """Can be read when there is something to `poll`."""
        return self._pipe

    def close(self) -> None:
        """End the process, whatever it does, and remove what it left."""
        if self._process is None:
            return
        self._process.kill()
        _lost.append(self._process)
        self._process = None
        with suppress(subprocess.TimeoutExpired):
            _lost[-1].wait(_END_S)
        _lost[:] = [process for process in _lost if process.poll() is None]
        self._pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def give_up(self) -> None:
        """End the check of the file in work, which gets no answer."""
        self.close()
        self.item = None

    def _hand_over(self, item: Item) -> None:
        if self._process is None:
            self._start()
        self._begun = False  # until it says so, a lost process is not this file's doing
        self._begun_s, self._went_on_s = (
            self._clock.read(),
            inf,
        )  # nobody looks before it says that it goes on
        self._allowed_s, self._deadline = START_S, self._begun_s + START_S
        with suppress(OSError):  # `poll` will find that it is gone
            self._pipe.send_bytes(pickle.dumps(item))

    def _start(self) -> None:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            self._scratch = make_scratch()
        except OSError as error:
            raise _refused(error) from error
        try:
            self._process, self._pipe = start_process(
                _PROGRAM,
                [str(self._scratch), str(os.getpid())],
                os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )
        except BaseException as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            if isinstance(error, OSError):
                raise _refused(error) from error
            raise
        self._loaded_bytes = 0  # known when the first file begins
        with suppress(OSError):
            self._pipe.send_bytes(pickle.dumps(self._settings))

    def _hear(self, message: dict[str, Any]) -> Answer | None:
        if not isinstance(message, dict):
            raise ValueError("not a message")
        if "allowed_s" in message:
            self._allow(float(message["allowed_s"]))
            return None
        if "goes_on" in message:
            self._went_on_s = self._clock.read()
            return None
        if "share" in message:
            share = message["share"]
            if share is not None and not 0 <= share <= 1:
                raise ValueError("not a share")
            self.share = share
            return None
        if "unusable" in message and not self._begun:
            self.close()
            raise (ModelError if message["exit_code"] == EXIT_MODEL else ScanError)(str(message["unusable"]))
        if "failure" in message:
            reason, text = message["failure"]
            if reason not in FAILURE_REASONS:
                raise ValueError("not a reason")
            if reason in SPENT:
                return self._fail(reason, str(text))
            self.item = None
            return FileError(reason, str(text))
        report = check_report(message["report"])
        self.item = None
        return report

    def _watch(self) -> Answer | None:
        """End a process that took more memory or CPU time than it may."""
        limit, cpu_s = self._settings.memory_bytes, self._settings.cpu_s
        if self._process is None:
            return None
        if resident_bytes(self._process.pid) > limit:
            return self._fail("memory_limit", f"needs more memory than the {limit // MB} MB it may")
        if cpu_s is not None and self._begun and cpu_time_s(self._process.pid) - self._begun_cpu_s > cpu_s:
            return self._fail("cpu_limit", f"used more than the {cpu_s:.0f} s of CPU time it may")
        return None

    def _allow(self, seconds: float) -> None:
        """Move the deadline as the worker says, but never beyond the time that the user set for the file."""
        now, timeout_s = self._clock.read(), self._settings.timeout_s
        if not 0 <= seconds < inf:
            raise ValueError("not a time")
        if not self._begun:
            self._begun, self._begun_s, self._last_s = True, now, now + (timeout_s or inf)
            if self._process is not None:
                self._begun_cpu_s = cpu_time_s(self._process.pid)
                self._loaded_bytes = self._loaded_bytes or resident_bytes(self._process.pid)
        self._allowed_s = timeout_s or seconds
        self._deadline = min(now + seconds, self._last_s)

    def _bury(self) -> FileError | None:
        """The process is gone or talks nonsense: the file's fault if it had begun, else another is tried."""
        status = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(1.0)
        if self._begun or self.item is None:
            reason, words = end_reason(status or 0) or ("crashed", describe_end(status))
            if reason == "timeout" and self._spare():
                return None
            return self._fail(reason, words)
        self.close()
        self._starts += 1
        if self._starts >= _MAX_STARTS:
            why = "AVSYNC_TRACEBACK=1 shows why"
            raise ScanError(f"no worker can be started: {describe_end(status)}; {why}")
        self._hand_over(self.item)
        return None

    def _spare(self) -> bool:
        """Begin the file anew, once, if its process ended itself before its time was over.

        The clock by which it does so goes on where all are stopped, as by a container that is paused.
        """
        if self.item is None or self._was_spared or self._clock.read() > self._deadline:
            return False
        self._was_spared = True
        self.close()
        self._hand_over(self.item)
        return True

    def _fail(self, reason: FailureReason, text: str) -> FileError:
        self.close()
        self.item = None
        return FileError(reason, text)


class LocalCrew:
    """Workers on this machine, each with a file or idle; a context that ends them all."""

    def __init__(self, settings: Settings, *, jobs: int) -> None:
        sweep_scratch()
        self._workers = [Worker(settings) for _ in range(jobs)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()

    @property
    def room(self) -> int:
        return sum(worker.item is None for worker in self._workers)

    @property
    def busy(self) -> Sequence[Item]:
        return [worker.item for worker in self._workers if worker.item is not None]

    def submit(self, item: Item) -> None:
        next(worker for worker in self._workers if worker.item is None).begin(item)

    def give_up(self, item: Item) -> None:
        """Check this one no further, if it is in work."""
        for worker in self._workers:
            if worker.item == item:
                worker.give_up()

    def share_of(self, item: Item) -> float | None:
        """How much of the check of this one is done, where that is known."""
        return next((worker.share for worker in self._workers if worker.item == item), None)

    def collect(self, timeout_s: float) -> list[tuple[Item, Answer]]:
        busy = [worker for worker in self._workers if worker.item is not None]
        wait([worker.pipe for worker in busy], min(timeout_s, _WATCH_S))
        answers = []
        for worker in busy:
            item, answer = worker.item, worker.poll()
            if item is not None and answer is not None:
                answers.append((item, answer))
        return answers


def _refused(error: OSError) -> ScanError:
    return ScanError(f"a worker cannot be started: {error.strerror or error}")
