"""Results as tables for other tools: CSV, Parquet, and the summary as JSON; each file whole or not at all."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from avsync_cli.batch.records import Record
from avsync_cli.batch.summary import Summary
from avsync_cli.errors import ConfigError, ScanError

_ROWS_AT_ONCE = 10_000

COLUMNS: dict[str, Callable[[Record], Any]] = {
    "path": lambda record: record["path"],
    "status": lambda record: record["status"],
    "reason": lambda record: record["reason"],
    "audio_lead_ms": lambda record: record["audio_lead_ms"],
    "audio_lead_frames": lambda record: record["audio_lead_frames"],
    "uncertainty_ms": lambda record: record["uncertainty_ms"],
    "direction": lambda record: record["direction"],
    "confidence": lambda record: record["confidence"],
    "duration_s": lambda record: record["duration_s"],
    "fps": lambda record: record["fps"],
    "faces": lambda record: len(record["tracks"]),
    "latest_ms": lambda record: record["limits_ms"][0],
    "earliest_ms": lambda record: record["limits_ms"][1],
    "total_s": lambda record: record["timings_s"]["total"],
    "size": lambda record: record["size"],
    "mtime": lambda record: record["mtime"],
    "model_name": lambda record: record["model"]["name"],
    "model_sha256": lambda record: record["model"]["sha256"],
    "message": lambda record: record["message"],
}
_TEXTS = {"path", "status", "reason", "direction", "model_name", "model_sha256", "message"}
_WHOLE_NUMBERS = {"faces", "size"}


def check_outputs(results: Path, tables: Iterable[Path], *, parquet: bool) -> None:
    """Find out before the scan what would fail after it, or destroy what it must not. Raises ConfigError."""
    if parquet:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            need = "pip install 'avsync-cli[parquet]'"
            raise ConfigError(f"--parquet needs the extra `parquet`: {need}") from error
    taken = {os.path.realpath(results)}
    for path in tables:
        real = Path(os.path.realpath(path))
        if str(real) in taken:
            raise ConfigError(f"{path}: is named for two outputs")
        taken.add(str(real))
        if (os.path.lexists(real) and not real.is_file()) or not os.access(real.parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written")


def write_csv(records: Iterable[Record], path: Path) -> None:
    with _replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_clean(get(record)) for get in COLUMNS.values()] for record in records)


def write_parquet(records: Iterable[Record], path: Path) -> None:
    """The columns of the CSV with their types, in row groups, so that memory does not grow with the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def type_of(name: str) -> Any:  # noqa: ANN401 - pyarrow has no type hints
        return pa.string() if name in _TEXTS else pa.int64() if name in _WHOLE_NUMBERS else pa.float64()

    schema = pa.schema([(name, type_of(name)) for name in COLUMNS])
    with _replacing(path) as part, pq.ParquetWriter(part, schema) as writer:
        rows = iter(records)
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            columns = {name: [_clean(get(record)) for record in some] for name, get in COLUMNS.items()}
            writer.write_table(pa.table(columns, schema=schema))


def write_summary(summary: Summary, path: Path) -> None:
    with _replacing(path) as part:
        part.write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="ascii")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when it is complete. Raises ScanError.

    Where `path` is a link, the file that it leads to is replaced.
    """
    real = Path(os.path.realpath(path))
    part = real.with_name(f".{real.name}.part")
    try:
        yield part
        part.replace(real)
    except OSError as error:
        raise ScanError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Bytes of a file name that are no text are written as escapes: tables are UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
