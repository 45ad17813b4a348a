"""The page over all files of a scan, and the page of each: `DIR/index.html` and `DIR/files`.

A worker writes the page of a file while it has its pictures at hand (`showing.check_to_page`). What was
answered without, in an earlier run or by an error, gets a page of its line in the results.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from avsync_cli.batch.records import Record
from avsync_cli.errors import ConfigError, ScanError, WriteError
from avsync_cli.outputs import written_whole
from avsync_cli.report import (
    FaceOffset,
    ModelId,
    PassageReport,
    Report,
    StepReport,
    TimelinePoint,
    Timings,
    TrackReport,
    describe_confidence,
)

INDEX = "index.html"
PAGES = "files"  # folder of the pages of the files
_STEM_CHARACTERS = 60
_WORST_FIRST = ("out_of_sync", "error", "undetermined", "in_sync")
_LISTS: dict[str, type] = {
    "passages": PassageReport,
    "steps": StepReport,
    "timeline": TimelinePoint,
    "differing_faces": FaceOffset,
    "tracks": TrackReport,
}


def page_name(path: str) -> str:
    """The name of a file's page, from its only path: readable, and another for each."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem)[:_STEM_CHARACTERS].strip("-.")
    return f"{stem or 'file'}-{digest}.html"


def prepare_folder(folder: Path) -> None:
    """Make the folder for pages, or find out that it cannot be one. Raises ConfigError."""
    from avsync_cli.plots import require_matplotlib

    require_matplotlib()
    try:
        (folder / PAGES).mkdir(parents=True, exist_ok=True)
        probe = folder / PAGES / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: no folder for pages: {error.strerror or error}") from error


def write_overview(records: Iterable[Record], folder: Path) -> None:
    """Write the page over all files, and the pages that are missing. Raises ScanError."""
    from avsync_cli.pages import VERDICTS, render

    rows, counts = [], Counter[str]()
    try:
        for record in records:
            page = folder / PAGES / page_name(record["path"])
            if not page.exists():
                _write_plain_page(record, page)
            rows.append(_row_of(record, page.name))
            counts[record["status"]] += 1
        rows.sort(key=lambda row: (_WORST_FIRST.index(row[1]), -abs(row[2] or 0.0), row[0]))
        text = render(
            "scan.html",
            rows=_as_script(rows),
            counts=[(status, counts[status]) for status in _WORST_FIRST],
            files=len(rows),
            verdicts=VERDICTS,
            order=_WORST_FIRST,
        )
        with written_whole(folder / INDEX) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, WriteError) as error:
        raise ScanError(f"{folder / INDEX}: {getattr(error, 'strerror', None) or error}") from error


def report_of(record: Record) -> Report:
    """The report that a line of results was made of; what its JSON lacks is as if passages disagreed."""
    values: dict[str, Any] = {
        field.name: record[field.name] for field in fields(Report) if field.name in record
    }
    for name, kind in _LISTS.items():
        values[name] = tuple(kind(**entry) for entry in values[name])
    values["timings_s"], values["model"] = Timings(**values["timings_s"]), ModelId(**values["model"])
    for name in ("limits_ms", "other_voices", "candidate_leads_ms"):
        values[name] = tuple(values[name])
    return Report(**values, agreed=False)


def _write_plain_page(record: Record, page: Path) -> None:
    from avsync_cli.pages import render_page
    from avsync_cli.sights import Sights

    text = render_page(report_of(record), Sights(None, None, {}, None), home=f"../{INDEX}", is_drawn=False)
    with written_whole(page) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def _row_of(record: Record, page: str) -> list[Any]:
    """Name, verdict, lead and uncertainty in ms, confidence and its words, seconds, words, page."""
    answered = record["audio_lead_ms"] is not None
    return [
        record["file"],
        record["status"],
        _whole(record["audio_lead_ms"]),
        _whole(record["uncertainty_ms"]),
        record["confidence"] if answered else None,
        describe_confidence(record["confidence"]) if answered else "",
        record["duration_s"] and round(record["duration_s"], 1),
        record["message"].removeprefix("cannot tell: ").removeprefix(f"{record['file']}: "),
        page,
    ]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _as_script(rows: list[list[Any]]) -> str:
    """JSON that may stand inside a page, whatever the names of files."""
    text = json.dumps(rows, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
