"""What every run writes and heeds: its CSV tables, where it comes from, and requests to stop."""

import csv
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from avsync_cli.errors import ConfigError
from training.cache import MANIFEST
from training.checkpoint import provenance
from training.shards import INDEX


def provenance_of(folder: Path) -> dict[str, str]:
    """Where a run comes from: the commit and the hash of the cache's manifest, or of the shards' index.

    Raises ConfigError where the folder holds neither.
    """
    table = next((folder / name for name in (INDEX, MANIFEST) if (folder / name).exists()), None)
    if table is None:
        raise ConfigError(f"{folder}: no cache; run `python -m training prepare`")
    return provenance(table)


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
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

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
