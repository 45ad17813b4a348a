"""How far a long command is: a bar on a terminal, a plain line now and then elsewhere."""

from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """A context; `advance` it by what was done, `note` a line. A `quiet` one shows nothing."""

    def __init__(self, name: str, total: float, *, unit: str, done: float = 0.0, quiet: bool = False) -> None:
        self._name, self._total, self._unit, self._done = name, total, unit, done
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=int(done))
        self._first = self._last_line = monotonic()
        self._began_at = done

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, amount: float, *, text: str = "") -> None:
        self._done += amount
        self._bar.update(self._task, completed=self._done, description=f"{self._name} {text}".rstrip())
        now = monotonic()
        if not self._console.is_terminal and (
            now - self._last_line >= _SECONDS_BETWEEN_LINES or self._done >= self._total
        ):
            self._last_line = now
            rate = (self._done - self._began_at) / max(now - self._first, 1e-9)
            left_s = (self._total - self._done) / rate if rate > 0 else float("inf")
            self.note(
                f"{self._name}: {self._done:.0f} of {self._total:.0f} {self._unit}, "
                f"{left_s / 60:.1f} min left {text}".rstrip()
            )

    def note(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)
