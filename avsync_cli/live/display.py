"""The watch on a terminal: the verdict, the lead over the last minutes, the faces. Nothing blinks."""

import sys
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from avsync_cli.display import STATUS_STYLES
from avsync_cli.escapes import as_text
from avsync_cli.live.events import MonitorEvent, MonitorFace
from avsync_cli.live.hysteresis import Change
from avsync_cli.live.reading import Note
from avsync_cli.live.watch import Happening, Watched
from avsync_cli.report import describe_confidence
from avsync_cli.spec import Tolerance

_LEVELS = "▁▂▃▄▅▆▇█"
_POINTS = 90  # of the curve: three minutes, a verdict every two seconds
_LEAST_SPAN_MS = 200.0  # to either side of zero, so that a steady lead looks steady


def draw_curve(leads_ms: list[float | None], *, span_ms: float) -> str:
    """Leads from -span to +span as a row of bars, one for each; a blank where there is none."""
    top = len(_LEVELS) - 1
    places = (
        None if lead is None else round((min(max(lead, -span_ms), span_ms) / span_ms + 1) / 2 * top)
        for lead in leads_ms
    )
    return "".join(" " if place is None else _LEVELS[place] for place in places)


class Board:
    """What is shown of a watch. `tell` hears what happens; a context, at whose end the last state stays."""

    def __init__(self, name: str, limits: Tolerance, *, delay_ms: float = 0.0) -> None:
        self._name = name
        self._limits = limits
        self._delay_ms = delay_ms
        self._leads_ms: deque[float | None] = deque(maxlen=_POINTS)
        self._held: Change | None = None
        self._event: MonitorEvent | None = None
        self._note = "opening"
        self._live = Live(self._draw(), console=Console(highlight=False), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, happening: Happening) -> None:
        if isinstance(happening, Note | Watched):
            self._note = happening.message
        elif isinstance(happening, Change):
            self._held = happening
        else:
            self._event = happening
            self._leads_ms.append(happening.audio_lead_ms)
        self._live.update(self._draw(), refresh=True)

    def _draw(self) -> Group:
        return Group(*self._lines())

    def _lines(self) -> list[Text]:
        style, verdict = ("dim", "no verdict yet")
        if self._held is not None:
            style, verdict = STATUS_STYLES[self._held.status]
        lines = [as_text(f"{self._name}: ", (verdict, style))]
        event = self._event
        if event is not None:
            lines.append(_row("now", _describe_now(event)))
            known = [abs(lead) for lead in self._leads_ms if lead is not None]
            span_ms = max([_LEAST_SPAN_MS, *known])
            curve = draw_curve(list(self._leads_ms), span_ms=span_ms)
            lines.append(_row("lead", f"{curve}  -{span_ms:.0f} to +{span_ms:.0f} ms"))
            lines += [_row("face", _describe_face(face)) for face in event.faces]
            if event.skipped_pictures:
                lines.append(_row("skipped", f"{event.skipped_pictures} pictures: this CPU is too slow"))
        limits = (
            f"audio may lag by {-self._limits.latest_ms:g} ms and lead by {self._limits.earliest_ms:g} ms"
        )
        delay = f", with a delay of {self._delay_ms:g} ms" if self._delay_ms else ""
        lines += [_row("limits", f"{limits}{delay}"), _row("source", self._note)]
        return lines


class Lines:
    """The same where no terminal is: a line for each change of the verdict, notes on stderr."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self._console = Console(soft_wrap=True, highlight=False, emoji=False)
        self._notes = Console(soft_wrap=True, highlight=False, emoji=False, file=sys.stderr)
        self._name = name
        self._quiet = quiet

    def tell(self, happening: Happening) -> None:
        if isinstance(happening, Change):
            style, verdict = STATUS_STYLES[happening.status]
            event = happening.event
            self._console.print(
                as_text(f"{self._name}: {event.time_s:.1f} s: ", (verdict, style), f": {event.message}")
            )
        elif isinstance(happening, Note | Watched) and not self._quiet:
            self._notes.print(as_text(f"{self._name}: {happening.message}"))


def _row(name: str, text: str) -> Text:
    return as_text("  ", (f"{name:<8}", "dim"), text)


def _describe_now(event: MonitorEvent) -> str:
    if event.audio_lead_ms is None or event.uncertainty_ms is None:
        return event.message
    sure = f"±{event.uncertainty_ms:.0f} ms, {describe_confidence(event.confidence)} sure"
    return f"{event.message}, {sure}"


def _describe_face(face: MonitorFace) -> str:
    speaks = {True: "speaks", False: "does not speak", None: "cannot be told"}[face.speaking]
    lead = "" if face.audio_lead_ms is None else f", audio lead {face.audio_lead_ms:+.0f} ms"
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    return f"{face.face} at {x0},{y0} to {x1},{y1}: {speaks}{lead}"
