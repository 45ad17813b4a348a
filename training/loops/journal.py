"""What every run writes and heeds: its CSV tables, its commands, its trackers, and requests to stop."""

import csv
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from training.loops.trackers import Tracker

COMMANDS = "commands.txt"  # a line for each time that a run was begun or gone on with


class Table:
    """A CSV that grows; on resuming, rows after the checkpoint's step are dropped.

    Without `columns` it has those of its first row.
    """

    def __init__(self, path: Path, columns: tuple[str, ...] = (), *, keep_until: int) -> None:
        self._path, self._columns = path, columns
        kept: list[dict[str, str]] = []
        if keep_until and path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                kept = [row for row in reader if int(row["step"]) <= keep_until]
                self._columns = columns or tuple(reader.fieldnames or ())
        self._begin(kept)

    def _begin(self, rows: list[dict[str, str]]) -> None:
        with self._path.open("w", newline="") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)

    def add(self, row: dict[str, Any]) -> None:
        if not self._columns:
            self._columns = tuple(row)
            self._begin([])
        values = {key: row.get(key, "") for key in self._columns}
        rounded = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in values.items()}
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(rounded)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that a first Ctrl-C or SIGTERM is put into; a second one ends the process as usual."""
    received: list[int] = []
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Folder:
    """A run's tables and its trackers."""

    log: Table
    val: Table
    trackers: list[Tracker]

    def add_step(self, row: dict[str, Any]) -> None:
        self.log.add(row)
        self._draw("train", row)

    def add_validation(self, row: dict[str, Any]) -> None:
        self.val.add(row)
        self._draw("val", row)

    def _draw(self, group: str, row: dict[str, Any]) -> None:
        values = {f"{group}/{name}": row[name] for name in row if name not in ("step", "epoch")}
        for tracker in self.trackers:
            tracker.add(int(row["step"]), values)


@contextmanager
def open_folder(
    run: Path,
    step: int,
    *,
    log_columns: tuple[str, ...],
    val_columns: tuple[str, ...],
    trackers: list[Tracker],
) -> Iterator[Folder]:
    """The folder of a run of which `step` steps are done: what was written after them is dropped."""
    try:
        yield Folder(
            Table(run / "log.csv", log_columns, keep_until=step),
            Table(run / "val.csv", val_columns, keep_until=step),
            trackers,
        )
    finally:
        for tracker in trackers:
            tracker.close()


def note_command(run: Path) -> None:
    """Add the command that this process was started by to those of a run."""
    with (run / COMMANDS).open("a", encoding="utf-8") as file:
        file.write(shlex.join(["python", "-m", "training", *sys.argv[1:]]) + "\n")
