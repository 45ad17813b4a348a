"""The same workers on the machines of a Dask cluster, fed a few files at a time.

The scheduler knows of twice as many files as the cluster has threads, never of all. It gives the files of
a lost machine to another one by itself; each file still has one future here, and so one answer.
"""

import logging
import pickle
import queue
import threading
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from avsync_cli import __version__
from avsync_cli.batch.records import FileError, Item, Record
from avsync_cli.batch.worker import Settings
from avsync_cli.batch.workers import Answer, Worker
from avsync_cli.contract import identify_student
from avsync_cli.errors import AvsyncError, ConfigError, ScanError, first_line
from avsync_cli.spec import Precision

if TYPE_CHECKING:
    from distributed import Client, Future

_FETCH_S = 30.0  # for an answer to come over
_AHEAD = 2  # files a thread: one in work, one at hand
_COUNT_AGAIN_S = 5.0  # between two looks at how many threads there are
_idle: dict[bytes, list[Worker]] = {}
_idle_lock = threading.Lock()


class ClusterCrew:
    """The workers of a cluster; a context that takes back what it asked for."""

    def __init__(
        self,
        address: str,
        settings: Settings,
        *,
        model: str | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """`model` is the folder of the student, for all machines. Raises ConfigError where the extra is
        missing or no scheduler answers.
        """
        self._address, self._settings = address, settings
        self._student = (model, precision)
        self._compared = False
        self._client = _connect(address)
        self._asked: dict[str, tuple[Item, Future]] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._run = uuid4().hex
        self._number = 0
        self._threads, self._counted_at = 0, -_COUNT_AGAIN_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asked and self._client.status == "running":
            self._client.cancel([future for _, future in self._asked.values()], force=True)
        self._client.close(timeout=5)

    @property
    def room(self) -> int:
        if monotonic() - self._counted_at >= _COUNT_AGAIN_S:
            self._counted_at = monotonic()
            try:
                self._threads = sum(self._client.nthreads().values())
            except Exception as error:  # whatever the connection raises when it is gone
                raise self._gone() from error
        return max(1, _AHEAD * self._threads) - len(self._asked)

    @property
    def busy(self) -> Sequence[Item]:
        return [item for item, _ in self._asked.values()]

    def submit(self, item: Item) -> None:
        if not self._compared:
            self._compare_machines()
        self._number += 1
        key = f"avsync-{self._run}-{self._number}"
        future = self._client.submit(check_here, item, self._settings, key=key, pure=False)
        self._asked[key] = (item, future)
        self._watch(key, future)

    def collect(self, timeout_s: float) -> list[tuple[Item, Answer]]:
        answers = []
        try:
            key = self._done.get(timeout=timeout_s)
            while True:
                item, future = self._asked[key]
                answer = self._take(future)
                if answer is None:
                    self._watch(key, future)
                else:
                    answers.append((item, answer))
                    del self._asked[key]
                    future.release()
                key = self._done.get_nowait()
        except queue.Empty:
            return answers

    def _compare_machines(self) -> None:
        """Raises ConfigError naming a machine that would answer with another version or student."""
        here = describe_here(*self._student)
        try:
            told = self._client.run(describe_here, *self._student, on_error="return")
        except Exception as error:  # as in `room`
            raise self._gone() from error
        self._compared = bool(told)  # else none is there yet
        for machine, there in told.items():
            if there != here:
                raise ConfigError(f"{machine}: has {there}, but this machine has {here}")

    def _watch(self, key: str, future: "Future") -> None:
        future.add_done_callback(lambda _: self._done.put(key))

    def _take(self, future: "Future") -> Answer | None:
        """The answer; None where it was lost with its machine and the file is checked again."""
        from distributed import KilledWorker

        try:
            answer: Record = future.result(timeout=_FETCH_S)
        except TimeoutError:
            return None
        except FileError as failure:
            return failure
        except AvsyncError:
            raise
        except KilledWorker as error:
            text = f"the {error.allowed_failures + 1} machines that it was given to were lost"
            return FileError("crashed", text)
        except Exception as error:
            if self._client.status != "running" or future.status in ("cancelled", "lost"):
                raise self._gone() from error
            text = f"the cluster says {type(error).__name__}: {error}"
            return FileError("failed", text)
        return answer

    def _gone(self) -> ScanError:
        return ScanError(f"{self._address}: the scheduler is gone; --resume goes on when it is back")


def describe_here(model: str | None, precision: Precision = "fp32") -> str:
    """The version of avsync and the student on this machine."""
    student = identify_student(model, precision=precision)
    return f"avsync {__version__} with {student[0]} {student[1][:12]}"


def check_here(item: Item, settings: Settings) -> Record:
    """On a machine of the cluster: check one file in a process of its own. Raises what `Worker` raises."""
    key = pickle.dumps(settings)
    with _idle_lock:
        ready = _idle.setdefault(key, [])
        worker = ready.pop() if ready else Worker(settings)
    try:
        return worker.answer(item)
    finally:
        if worker.item is None:
            with _idle_lock:
                _idle[key].append(worker)
        else:
            worker.close()


def _connect(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        need = "pip install 'avsync-cli[cluster]'"
        raise ConfigError(f"--scheduler needs the extra `cluster`: {need}") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # our own lines say it
    try:
        return Client(address, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise ConfigError(f"{address}: no scheduler answers: {first_line(error)}") from error
