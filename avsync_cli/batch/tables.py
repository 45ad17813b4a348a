"""Results as tables for other tools: CSV, Parquet, and the summary as JSON; each file whole or not at all."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from avsync_cli.batch.records import Record
from avsync_cli.batch.summary import Summary
from avsync_cli.errors import ConfigError, ScanError
from avsync_cli.escapes import as_cell

_ROWS_AT_ONCE = 10_000

COLUMNS: dict[str, Callable[[Record], Any]] = {
    "path": lambda record: record["path"],
    "file": lambda record: record["file"],
    "status": lambda record: record["status"],
    "reason": lambda record: record["reason"],
    "audio_lead_ms": lambda record: record["audio_lead_ms"],
    "audio_lead_frames": lambda record: record["audio_lead_frames"],
    "uncertainty_ms": lambda record: record["uncertainty_ms"],
    "direction": lambda record: record["direction"],
    "confidence": lambda record: record["confidence"],
    "duration_s": lambda record: record["duration_s"],
    "fps": lambda record: record["fps"],
    "curve_peak": lambda record: _peak(record["curve"], over_median=False),
    "curve_peak_over_median": lambda record: _peak(record["curve"], over_median=True),
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
_TEXTS = {"path", "file", "status", "reason", "direction", "model_name", "model_sha256", "message"}
FACE_COLUMNS = (
    *("path", "file", "face", "start_s", "end_s", "x0", "y0", "x1", "y1", "width", "height"),
    *("audio_lead_ms", "confidence", "speaking", "mouth_motion", "curve_peak", "curve_peak_over_median"),
    "yaw_degrees",
)
_WHOLE_NUMBERS = {"face", "faces", "size"}


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
    _write_rows((_row_of(record) for record in records), COLUMNS, path)


def write_parquet(records: Iterable[Record], path: Path) -> None:
    _write_table((_row_of(record) for record in records), COLUMNS, path)


def write_faces(records: Iterable[Record], path: Path) -> None:
    """A row for each face of each passage, as Parquet if the name ends so, else as CSV."""
    rows = (_face_row(record, number) for record in records for number in range(len(record["tracks"])))
    write = _write_table if path.suffix == ".parquet" else _write_rows
    write(rows, FACE_COLUMNS, path)


def _row_of(record: Record) -> list[Any]:
    return [get(record) for get in COLUMNS.values()]


def _face_row(record: Record, number: int) -> list[Any]:
    track = record["tracks"][number]
    x0, y0, x1, y1 = track["box"]
    box = (x0, y0, x1, y1, x1 - x0, y1 - y0)
    told = (track[name] for name in ("audio_lead_ms", "confidence", "speaking", "mouth_motion"))
    curve = track["curve"]
    peaks = (_peak(curve, over_median=False), _peak(curve, over_median=True))
    return [
        record["path"],
        record["file"],
        number + 1,
        track["start_s"],
        track["end_s"],
        *box,
        *told,
        *peaks,
        track["yaw_degrees"],
    ]


def _write_rows(rows: Iterable[list[Any]], columns: Iterable[str], path: Path) -> None:
    with _replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_as_cell(value) for value in row] for row in rows)


def _write_table(rows: Iterable[list[Any]], names: Iterable[str], path: Path) -> None:
    """The columns of the CSV with their types, in row groups, so that memory does not grow with the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.string() for name in _TEXTS} | {name: pa.int64() for name in _WHOLE_NUMBERS}
    types["speaking"] = pa.bool_()
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in names])
    with _replacing(path) as part, pq.ParquetWriter(part, schema) as writer:
        coming = iter(rows)
        while some := list(islice(coming, _ROWS_AT_ONCE)):
            values = zip(*some, strict=True)
            columns = {
                field.name: [_clean(value) for value in column]
                for field, column in zip(schema, values, strict=True)
            }
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


def _peak(curve: list[float | None] | None, *, over_median: bool) -> float | None:
    """How well the best offset fits, on the model's scale: its score, or how far that exceeds the median.

    They tell what SyncNet's LSE-D and LSE-C tell, on scores of another model: never compare the numbers.
    """
    scores = [score for score in curve or [] if score is not None]
    if not scores:
        return None
    return round(max(scores) - (median(scores) if over_median else 0.0), 4)


def _as_cell(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return as_cell(value) if isinstance(value, str) else value


def _clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Bytes of a file name that are no text are written as escapes: tables are UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
