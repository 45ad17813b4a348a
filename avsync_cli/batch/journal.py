"""The results file: one line for each file, on disk before it counts, and never lost or written twice.

It is only ever appended to. A process that is killed leaves at most one line torn, the last, and that is
cut off when the scan is resumed. Only its writer's own lines are touched: what is not a results file is
refused as it is.
"""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from avsync_cli.batch.records import Item, Record, encode_record, is_record
from avsync_cli.errors import ConfigError, ScanError
from avsync_cli.spec import REPORT_SCHEMA_VERSION, Tolerance

_BEGINNING = b'{"schema_version": '
_MARKS = {"in_sync": b"\0", "out_of_sync": b"\1", "undetermined": b"\2", "error": b"\3"}
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)  # Windows would change the bytes


class Journal:
    """An open results file. Use `open_journal`.

    Of every path only two digests are kept: a million files take about 200 MB.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._length = 0
        self._answers: dict[bytes, bytes] = {}  # path -> its last key, and a byte for the status

    def __len__(self) -> int:
        return len(self._answers)

    def find_status(self, item: Item, model_sha256: str) -> str | None:
        """The status that the last line of this path gives, if it is about this very file and this model."""
        last = self._answers.get(_digest(item.path), b"")
        key = _key(item.path, item.size, item.mtime, model_sha256)
        return next((status for status, mark in _MARKS.items() if last == key + mark), None)

    def has_answer(self, item: Item, model_sha256: str, *, accept_errors: bool = True) -> bool:
        """Whether the last line of this path is about this very file and this model."""
        status = self.find_status(item, model_sha256)
        return status is not None and (accept_errors or status != "error")

    def append(self, record: Record) -> None:
        """Add a line; on return it is on the disk. Raises ScanError, and then nothing was added."""
        line = encode_record(record)
        self._refuse_lost()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            _flush(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
            raise ScanError(
                f"{self._path}: {error.strerror or error}; what was answered so far is kept for --resume"
            ) from error
        self._length += len(line)
        self._remember(record)

    def _refuse_lost(self) -> None:
        """Lines that go to a file that was removed or replaced would be lost. Raises ScanError."""
        held = os.fstat(self._descriptor)
        try:
            named = os.stat(self._path)
        except OSError:
            named = None
        if named is None or (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
            raise ScanError(f"{self._path}: was removed or replaced while the scan wrote to it")

    def load(self, limits: Tolerance, *, full: bool) -> None:
        """Take up what the file holds and cut a torn last line off. Raises ConfigError."""
        with open(self._descriptor, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    self._refuse_foreign(line)
                    os.ftruncate(self._descriptor, self._length)
                    _flush(self._descriptor)
                    return
                record = read_line(line, f"{self._path}, line {number}")
                if record["limits_ms"] != [limits.latest_ms, limits.earliest_ms]:
                    latest, earliest = record["limits_ms"]
                    raise ConfigError(f"{self._path}: was made with --tolerance {latest:g},{earliest:g}")
                if record.get("full", full) != full:
                    raise ConfigError(f"{self._path}: was made {'without' if full else 'with'} --full")
                self._remember(record)
                self._length += len(line)

    def _refuse_foreign(self, fragment: bytes) -> None:
        start = fragment[: len(_BEGINNING)]
        if self._length == 0 and not _BEGINNING.startswith(start) and start.strip(b"\0"):
            raise ConfigError(f"{self._path}: is not a results file of avsync")

    def _remember(self, record: Record) -> None:
        key = _key(record["path"], record["size"], record["mtime"], record["model"]["sha256"])
        self._answers[_digest(record["path"])] = key + _MARKS[record["status"]]


@contextmanager
def open_journal(
    path: str | Path, *, limits: Tolerance, full: bool = False, resume: bool = False
) -> Iterator[Journal]:
    """Open a results file for one scan alone; one that holds lines is only continued if `resume`.

    Raises ConfigError where it cannot be opened, another scan writes to it, it was made by another version,
    with other limits, with or without `full` otherwise, or is not a results file at all.
    """
    path = Path(path)
    with _locked(path) as descriptor:
        journal = Journal(path, descriptor)
        if resume:
            journal.load(limits, full=full)
        elif os.fstat(descriptor).st_size:
            raise ConfigError(f"{path}: holds results already; --resume continues them")
        yield journal


def read_line(line: bytes, where: str) -> Record:
    """One line of a results file. Raises ConfigError naming the place."""
    try:
        record = json.loads(line)
        version = record["schema_version"]
        complete = version != REPORT_SCHEMA_VERSION or is_record(record)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ConfigError(f"{where}: is not a result of avsync scan") from None
    if version != REPORT_SCHEMA_VERSION:
        raise ConfigError(f"{where}: has version {version}, this avsync reads {REPORT_SCHEMA_VERSION}")
    if not complete:
        raise ConfigError(f"{where}: is not a result of avsync scan")
    return dict(record)


def read_answers(path: str | Path) -> Iterator[Record]:
    """The answer for each path of a results file: the last of its lines. Raises ConfigError."""
    last: dict[bytes, int] = {}
    for number, record in _read_lines(path):
        last[_digest(record["path"])] = number
    for number, record in _read_lines(path):
        if last[_digest(record["path"])] == number:
            yield record


def _read_lines(path: str | Path) -> Iterator[tuple[int, Record]]:
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\n"):
                    yield number, read_line(line, f"{path}, line {number}")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the results file, for one scan alone. Raises ConfigError.

    Locked is a file beside it, `.NAME.lock`, which stays: on Windows a locked file could not be read.
    """
    from filelock import FileLock, Timeout

    try:
        descriptor = os.open(path, _FLAGS, 0o666)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    real = Path(os.path.realpath(path))
    lock = FileLock(real.with_name(f".{real.name}.lock"), mode=0o666)
    try:
        if not path.is_file():
            raise OSError(errno.EINVAL, "is not a file that results can be kept in")
        lock.acquire(timeout=0)
        _flush_folder(path.parent)
    except OSError as error:
        os.close(descriptor)
        busy = isinstance(error, Timeout)
        why = "another scan writes to it" if busy else error.strerror or str(error)
        raise ConfigError(f"{path}: {why}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        lock.release()


def _flush(descriptor: int) -> None:
    """Have the disk itself keep what was written; on macOS fsync leaves it in the disk's cache."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # not every file system can
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the file's name as lasting as its lines, where the file system can; Windows opens no folders."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            _flush(descriptor)
    finally:
        os.close(descriptor)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(path: str, size: int | None, mtime: float | None, model_sha256: str) -> bytes:
    return _digest(json.dumps([path, size, mtime, model_sha256]))
