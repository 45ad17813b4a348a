"""The results file: one line for each file, on disk before it counts, and never lost or written twice.

It is only ever appended to. A process that is killed leaves at most one line torn, the last, and that is
cut off when the scan is resumed. Only its writer's own lines are touched: what is not a results file is
refused as it is.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from avsync_cli.batch.records import Item, Record, encode_record
from avsync_cli.errors import ConfigError, ScanError
from avsync_cli.spec import REPORT_SCHEMA_VERSION, Tolerance

_BEGINNING = b'{"schema_version": '
_ANSWER, _ERROR = b"\0", b"\1"


class Journal:
    """An open results file. Use `open_journal`.

    Of every path only two digests are kept: a million files take about 200 MB.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._length = 0
        self._answers: dict[bytes, bytes] = {}  # path -> its last key, and a byte: whether an error

    def __len__(self) -> int:
        return len(self._answers)

    def has_answer(self, item: Item, model_sha256: str, *, accept_errors: bool = True) -> bool:
        """Whether the last line of this path is about this very file and this model."""
        last = self._answers.get(_digest(item.path), b"")
        key = _key(item.path, item.size, item.mtime, model_sha256)
        return last == key + _ANSWER or (accept_errors and last == key + _ERROR)

    def append(self, record: Record) -> None:
        """Add a line; on return it is on the disk. Raises ScanError, and then nothing was added."""
        line = encode_record(record)
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
        self._answers[_digest(record["path"])] = key + (_ERROR if record["status"] == "error" else _ANSWER)


@contextmanager
def open_journal(
    path: str | Path, *, limits: Tolerance, full: bool = False, resume: bool = False
) -> Iterator[Journal]:
    """Open a results file for one scan alone; one that holds lines is only continued if `resume`.

    Raises ConfigError where it cannot be opened, another scan writes to it, it was made by another version,
    with other limits, with or without `full` otherwise, or is not a results file at all.
    """
    path = Path(path)
    descriptor = _open_locked(path)
    try:
        journal = Journal(path, descriptor)
        if resume:
            journal.load(limits, full=full)
        elif os.fstat(descriptor).st_size:
            raise ConfigError(f"{path}: holds results already; --resume continues them")
        yield journal
    finally:
        os.close(descriptor)


def read_line(line: bytes, where: str) -> Record:
    """One line of a results file. Raises ConfigError naming the place."""
    try:
        record = json.loads(line)
        version = record["schema_version"]
        complete = {"path", "size", "mtime", "status", "reason", "limits_ms"} <= record.keys()
        complete = complete and isinstance(record["model"]["sha256"], str)
    except (ValueError, KeyError, TypeError, AttributeError):
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


def _open_locked(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.is_file():
            raise OSError(errno.EINVAL, "is not a file that results can be kept in")
        _flush_folder(path.parent)
    except OSError as error:
        os.close(descriptor)
        busy = isinstance(error, BlockingIOError)
        why = "another scan writes to it" if busy else error.strerror or str(error)
        raise ConfigError(f"{path}: {why}") from error
    return descriptor


def _flush(descriptor: int) -> None:
    """Have the disk itself keep what was written; on macOS fsync leaves it in the disk's cache."""
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):  # not every file system can
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the file's name as lasting as its lines, where the file system can."""
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
