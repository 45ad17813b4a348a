"""A file of a scan, and the line that answers for it: the report of `check --json` and what it belongs to."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from avsync_cli.errors import EXIT_BUG, AvsyncError, ModelError
from avsync_cli.report import ModelId, Report, exit_code_of
from avsync_cli.spec import REPORT_SCHEMA_VERSION, Tolerance

Record = dict[str, Any]  # plain JSON values
FailureReason = Literal[
    "timeout",
    "cpu_limit",
    "memory_limit",
    "crashed",
    "failed",
    "changed",
    "unreadable",
    "unreachable",
    "too_large",
    "no_space",
]
FAILURE_REASONS = frozenset(get_args(FailureReason))
_NUMBERS = frozenset(
    ("audio_lead_ms", "audio_lead_frames", "uncertainty_ms", "confidence", "duration_s", "fps")
)
_KEYS = Report("", "error", "", (0.0, 0.0)).to_json().keys()


@dataclass(frozen=True, slots=True)
class Item:
    """A file to check: `file` is its name as found, `path` its only one.

    A path is absolute and without links, or an address. `size` in bytes and `mtime` in seconds are None
    where they are not known (yet).
    """

    file: str
    path: str
    size: int | None = None
    mtime: float | None = None


class FileError(AvsyncError):
    """A file that has no answer of its own, and why; it becomes a record, not the end of the scan."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(reason, message)  # both, so that it can be pickled
        self.reason, self.message = reason, message


def check_report(report: Any) -> Record:  # noqa: ANN401 - what a worker said
    """The report as a record. Raises ValueError or KeyError where it is not what `Report.to_json` makes."""
    if not isinstance(report, dict) or report.keys() != _KEYS:
        raise ValueError("not a report")
    numbers = [report[name] for name in _NUMBERS] + [report["timings_s"]["total"], *report["limits_ms"]]
    sound = all(number is None or isinstance(number, int | float) for number in numbers)
    sound = sound and isinstance(report["tracks"], list) and isinstance(report["message"], str)
    sound = sound and (report["reason"] is None or isinstance(report["reason"], str))
    if not sound or report["schema_version"] != REPORT_SCHEMA_VERSION or len(report["limits_ms"]) != 2:
        raise ValueError("not a report")
    exit_code_of(report["status"])  # a KeyError is told like a ValueError
    encode_record(report)  # NaN cannot be written
    return report


def make_record(
    item: Item, answer: Record | FileError, *, limits: Tolerance, model: ModelId, full: bool = False
) -> Record:
    """The line for `item`. Raises ModelError where the answer was made by another model."""
    if isinstance(answer, FileError):
        report = Report(
            file=item.file,
            status="error",
            message=f"{item.file}: {answer.message}",
            limits_ms=(limits.latest_ms, limits.earliest_ms),
        )
        answer = report.to_json() | {"reason": answer.reason}
    identity = asdict(model)
    if answer["model"] not in (None, identity):
        raise ModelError(f"{item.file}: was checked with another model than {model.name} {model.sha256[:12]}")
    keys = {"file": item.file, "path": item.path, "size": item.size, "mtime": item.mtime}
    return answer | keys | {"model": identity, "full": full}


def is_record(record: Record) -> bool:
    """Whether a line of a results file has what is read of it.

    Raises KeyError, TypeError, ValueError or OverflowError where it surely has not.
    """
    exit_code_of(record["status"])
    texts = [record["file"], record["path"], record["message"]]
    texts += [record["model"]["name"], record["model"]["sha256"]]
    texts += [record[name] for name in ("reason", "direction") if record[name] is not None]
    numbers = [record[name] for name in (*_NUMBERS, "size", "mtime") if record[name] is not None]
    numbers += [record["timings_s"]["total"], *record["limits_ms"]]
    return (
        all(isinstance(text, str) for text in texts)
        and all(map(_is_number, numbers))
        and len(record["limits_ms"]) == 2
        and _is_curve(record["curve"])
        and isinstance(record["tracks"], list)
        and all(map(_is_track, record["tracks"]))
        and (record["status"] != "out_of_sync" or record["audio_lead_ms"] is not None)
    )


def _is_track(track: Record) -> bool:
    numbers = [track["start_s"], track["end_s"], *track["box"]]
    numbers += [
        track[name] for name in ("audio_lead_ms", "confidence", "mouth_motion") if track[name] is not None
    ]
    return (
        all(map(_is_number, numbers))
        and len(track["box"]) == 4
        and track["speaking"] in (True, False, None)
        and _is_curve(track["curve"])
    )


def _is_curve(curve: Any) -> bool:  # noqa: ANN401 - a JSON value
    return curve is None or (
        isinstance(curve, list) and all(score is None or _is_number(score) for score in curve)
    )


def _is_number(value: Any) -> bool:  # noqa: ANN401 - a JSON value
    return type(value) in (int, float) and math.isfinite(value)


def encode_record(record: Record) -> bytes:
    """One line of plain ASCII: file names of any bytes, newlines too, come back as they were."""
    return json.dumps(record, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def exit_code_of_record(record: Record) -> int:
    return EXIT_BUG if record["reason"] == "failed" else exit_code_of(record["status"])
