"""When a verdict counts as changed: not for one moment's verdict, nor for one that wavers about a limit."""

from dataclasses import dataclass

from avsync_cli.live.events import MonitorEvent
from avsync_cli.report import Status, find_limit
from avsync_cli.spec import Tolerance

AGREEING = 2  # verdicts in a row
LEAST_HEARD_S = 3.5  # of a face that speaks, in the last of them: one piece of two seconds may err


@dataclass(frozen=True)
class Change:
    """The verdict from now on, the one before (None: there was none), and the event that settled it."""

    status: Status
    previous: Status | None
    event: MonitorEvent


class Hysteresis:
    """Holds the verdict that counts. Those that cannot tell change nothing."""

    def __init__(self, limits: Tolerance) -> None:
        self._limits = limits
        self._candidate: Status | None = None
        self._agreeing = 0
        self.status: Status | None = None
        self.since_s: float | None = None
        self.seen: set[Status] = set()  # that ever counted

    def take(self, event: MonitorEvent) -> Change | None:
        """The change that an event settles, if it does."""
        if event.audio_lead_ms is None or event.status == "undetermined":
            return None
        is_at_limit = find_limit(event.audio_lead_ms, self._limits, event.uncertainty_ms or 0.0) is not None
        if event.status == self.status or (self.status is not None and is_at_limit):
            self._candidate, self._agreeing = None, 0
            return None
        self._agreeing = self._agreeing + 1 if event.status == self._candidate else 1
        self._candidate = event.status
        if self._agreeing < AGREEING or event.heard_s < LEAST_HEARD_S:
            return None
        change = Change(event.status, self.status, event)
        self.status, self.since_s = event.status, event.time_s
        self.seen.add(event.status)
        self._candidate, self._agreeing = None, 0
        return change
