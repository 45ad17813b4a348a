"""What a results file says as a whole: shares, the distribution of offsets, the worst, errors by reason."""

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from avsync_cli.batch.records import Record, exit_code_of_record
from avsync_cli.escapes import printable
from avsync_cli.report import describe_confidence, gravest_exit_code

BIN_MS = 80  # two frames
WORST = 10
_PERCENTS = (5, 25, 50, 75, 95)
_BAR_CHARACTERS = 40


@dataclass(frozen=True)
class Offender:
    path: str
    audio_lead_ms: float
    confidence: float


@dataclass(frozen=True)
class Summary:
    """Counts of files. Offsets are audio leads in ms (positive = audio early) of the files that have one."""

    files: int
    statuses: dict[str, int]
    undetermined: dict[str, int]  # by reason
    errors: dict[str, int]  # by reason
    percentiles_ms: dict[str, float]
    histogram: list[tuple[int, int]]  # centre of a bin of BIN_MS in ms, files
    worst: list[Offender]
    video_hours: float  # as the containers declare, of the files that were checked
    worker_hours: float  # that checking them took
    exit_code: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(records: Iterable[Record]) -> Summary:
    """Count the answers, each path's last (see `journal.read_answers`)."""
    statuses, reasons = Counter[str](), Counter[tuple[str, str]]()
    leads_ms = array("d")
    worst: list[tuple[float, int, Offender]] = []
    codes: set[int] = set()
    video_s = worker_s = 0.0
    for number, record in enumerate(records):
        statuses[record["status"]] += 1
        reasons[record["status"], str(record["reason"])] += 1
        codes.add(exit_code_of_record(record))
        if record["status"] != "error":
            video_s += record["duration_s"] or 0.0
            worker_s += record["timings_s"]["total"]
        lead_ms = record["audio_lead_ms"]
        if lead_ms is not None:
            leads_ms.append(lead_ms)
        if record["status"] == "out_of_sync":
            entry = (abs(lead_ms), -number, Offender(record["path"], lead_ms, record["confidence"]))
            heapq.heappush(worst, entry)
            if len(worst) > WORST:
                heapq.heappop(worst)
    return Summary(
        files=sum(statuses.values()),
        statuses={name: statuses[name] for name in ("in_sync", "out_of_sync", "undetermined", "error")},
        undetermined=_of_status(reasons, "undetermined"),
        errors=_of_status(reasons, "error"),
        percentiles_ms=_percentiles(leads_ms),
        histogram=sorted(Counter(BIN_MS * round(lead_ms / BIN_MS) for lead_ms in leads_ms).items()),
        worst=[offender for _, _, offender in sorted(worst, reverse=True)],
        video_hours=round(video_s / 3600, 4),
        worker_hours=round(worker_s / 3600, 4),
        exit_code=gravest_exit_code(codes),
    )


def print_summary(summary: Summary) -> None:
    """The final table, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(_grid(_share_rows(summary)))
    if summary.histogram:
        console.print("\naudio lead (positive = audio early), in ms", style="bold")
        console.print(_grid(_histogram_rows(summary.histogram)))
        spread = ", ".join(f"{name} {value:+.0f}" for name, value in summary.percentiles_ms.items())
        console.print(f"percentiles: {spread}")
    if summary.worst:
        console.print("\nfurthest out of sync", style="bold")
        rows = [
            (
                f"{offender.audio_lead_ms:+.0f} ms",
                f"{describe_confidence(offender.confidence)} sure",
                printable(offender.path),
            )
            for offender in summary.worst
        ]
        console.print(_grid(rows))
    for title, reasons in (("undetermined", summary.undetermined), ("errors", summary.errors)):
        if reasons:
            console.print(f"\n{title} by reason", style="bold")
            console.print(_grid([(str(count), reason) for reason, count in reasons.items()]))


def _share_rows(summary: Summary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(str(summary.files), "", "files")]
    for status, count in summary.statuses.items():
        share = f"{count / summary.files:.1%}" if summary.files else ""
        rows.append((str(count), share, status.replace("_", " ")))
    if summary.video_hours:
        effort = f"{summary.worker_hours / summary.video_hours:.2f} hours of one core for each"
        rows.append((f"{summary.video_hours:.2f}", "", f"hours of video, {effort}"))
    return rows


def _histogram_rows(histogram: list[tuple[int, int]]) -> list[tuple[str, ...]]:
    counts = dict(histogram)
    most = max(counts.values())
    centres = range(min(counts), max(counts) + BIN_MS, BIN_MS)
    rows: list[tuple[str, ...]] = []
    for centre in centres:
        count = counts.get(centre, 0)
        rows.append((f"{centre:+d}", str(count), "█" * math.ceil(_BAR_CHARACTERS * count / most)))
    return rows


def _grid(rows: Iterable[tuple[str, ...]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for row in (rows := list(rows)):
        if not grid.columns:
            for number in range(len(row)):
                last = number == len(row) - 1
                grid.add_column(justify="left" if last else "right", overflow="fold")
        grid.add_row(*map(Text, row))  # names are never markup
    return grid


def _of_status(reasons: Counter[tuple[str, str]], status: str) -> dict[str, int]:
    return {reason: count for (of, reason), count in reasons.most_common() if of == status}


def _percentiles(values: "array[float]") -> dict[str, float]:
    """The nearest value at or above each share; nothing where there are no values."""
    ordered = sorted(values)
    return {
        f"{percent}%": round(ordered[min(len(ordered) - 1, percent * len(ordered) // 100)], 4)
        for percent in _PERCENTS
        if ordered
    }
