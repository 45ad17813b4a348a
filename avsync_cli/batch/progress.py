"""How far a scan is: a bar and a few lines that stay on a terminal, a plain line now and then elsewhere."""

from collections import Counter
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from avsync_cli.batch.records import Item
from avsync_cli.escapes import printable

_LINE_EVERY_S = 30.0
_REFRESH_S = 0.25
_SPEED_OVER_S = 3600.0  # one long film must not make the time left unknown
_NAMES = 4  # of files in work that are shown


class ScanProgress:
    """A context; `count` every answer, `show` the files in work as often as you like."""

    def __init__(self, total: int, *, shown: bool, console: Console | None = None) -> None:
        self._total, self._shown = total, shown
        self._statuses = Counter[str]()
        self._skipped = 0
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            speed_estimate_period=_SPEED_OVER_S,
            get_time=monotonic,
        )
        self._task = self._bar.add_task("", total=total)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._on_terminal = shown and self._console.is_terminal
        self._begin = self._last = monotonic()

    def __enter__(self) -> Self:
        if self._on_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on_terminal:
            self._live.stop()
        if self._shown and kind is None:
            self._console.print(self._line(), markup=False)

    def skip(self, status: str) -> None:
        """A file was answered before: it counts for the shares, not for how fast the others will be."""
        self._statuses[status] += 1
        self._skipped += 1
        self._bar.update(self._task, total=self._total - self._skipped)

    def count(self, status: str) -> None:
        self._statuses[status] += 1
        self._bar.advance(self._task)

    def show(self, busy: Sequence[Item]) -> None:
        now = monotonic()
        if self._on_terminal and now - self._last >= _REFRESH_S:
            self._last = now
            names = [f"  {printable(item.file)}" for item in busy[:_NAMES]]
            more = [f"  and {len(busy) - _NAMES} more"] if len(busy) > _NAMES else []
            lines = [", ".join(self._shares()), *names, *more]
            below = Text("\n".join(lines), overflow="ellipsis", no_wrap=True)
            self._live.update(Group(self._bar, below), refresh=True)
        elif self._shown and not self._on_terminal and now - self._last >= _LINE_EVERY_S:
            self._last = now
            name = f", now {printable(busy[0].file)}" if busy else ""
            self._console.print(self._line() + name, markup=False)

    def note(self, line: str) -> None:
        if self._shown:
            self._console.print(line, markup=False)

    def _line(self) -> str:
        done = self._statuses.total()
        answered = done - self._skipped
        parts = [f"{done} of {self._total} files"]
        if answered and done < self._total:
            minutes = (monotonic() - self._begin) / 60
            parts.append(f"{_duration((self._total - done) * minutes / answered)} left")
        return ", ".join(parts + self._shares())

    def _shares(self) -> list[str]:
        """What was answered so far and before, in words."""
        done = self._statuses.total()
        answered = done - self._skipped
        parts = [f"{self._skipped} answered before"] if self._skipped else []
        if done:
            for status in ("in_sync", "out_of_sync", "undetermined", "error"):
                parts.append(f"{self._statuses[status] / done:.0%} {status.replace('_', ' ')}")
        if answered:
            parts.append(f"{60 * answered / max(monotonic() - self._begin, 1e-9):.1f} a minute")
        return parts


def _duration(minutes: float) -> str:
    hours, rest = divmod(round(minutes), 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours:
        return f"{hours} h {rest} min"
    return f"{minutes:.0f} min" if minutes >= 1.5 else f"{minutes * 60:.0f} s"
