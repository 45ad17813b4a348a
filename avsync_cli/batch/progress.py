"""How far a scan is: a few lines that stay in place on a terminal, a plain line now and then elsewhere."""

from collections import Counter
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from avsync_cli.batch.records import Item, printable

_LINE_EVERY_S = 30.0
_REFRESH_S = 0.25
_NAMES = 4  # of files in work that are shown


class Progress:
    """A context; `count` every answer, `show` the files in work as often as you like."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total, self._shown = total, shown
        self._statuses = Counter[str]()
        self._skipped = 0
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
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

    def skip(self) -> None:
        self._skipped += 1

    def count(self, status: str) -> None:
        self._statuses[status] += 1

    def show(self, busy: Sequence[Item]) -> None:
        now = monotonic()
        if self._on_terminal and now - self._last >= _REFRESH_S:
            self._last = now
            names = "\n".join(f"  {printable(item.file)}" for item in busy[:_NAMES])
            more = f"\n  and {len(busy) - _NAMES} more" if len(busy) > _NAMES else ""
            self._live.update(Text(f"{self._line()}\n{names}{more}", overflow="ellipsis"), refresh=True)
        elif self._shown and not self._on_terminal and now - self._last >= _LINE_EVERY_S:
            self._last = now
            name = f", now {printable(busy[0].file)}" if busy else ""
            self._console.print(self._line() + name, markup=False)

    def note(self, line: str) -> None:
        if self._shown:
            self._console.print(line, markup=False)

    def _line(self) -> str:
        answered = self._statuses.total()
        done = answered + self._skipped
        parts = [f"{done} of {self._total} files"]
        if self._skipped:
            parts.append(f"{self._skipped} answered before")
        for status in ("in_sync", "out_of_sync", "undetermined", "error"):
            if answered:
                parts.append(f"{self._statuses[status] / answered:.0%} {status.replace('_', ' ')}")
        per_minute = 60 * answered / max(monotonic() - self._begin, 1e-9)
        if answered:
            parts.append(f"{per_minute:.1f} a minute")
            if done < self._total:
                parts.append(f"{_duration((self._total - done) / per_minute)} left")
        return ", ".join(parts)


def _duration(minutes: float) -> str:
    hours, rest = divmod(round(minutes), 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours:
        return f"{hours} h {rest} min"
    return f"{minutes:.0f} min" if minutes >= 1.5 else f"{minutes * 60:.0f} s"
