"""Whether anybody still has the page open."""

from dataclasses import dataclass, field
from time import monotonic

FORGET_S = 7200.0  # of a tab that never said that it goes; browsers let those that are not seen rest
_MOST_TABS = 100


@dataclass
class Tabs:
    """The tabs by a name of their own, and when each was heard of last."""

    linger_s: float
    heard: dict[str, float] = field(default_factory=dict)
    alone_since: float | None = None

    def hear(self, tab: str) -> None:
        if tab in self.heard or len(self.heard) < _MOST_TABS:
            self.heard[tab] = monotonic()
        self.alone_since = None

    def leave(self, tab: str) -> None:
        if self.heard.pop(tab, None) is not None and not self.heard:
            self.alone_since = monotonic()

    def is_over(self) -> bool:
        """Whether the last one has been gone for long; told once."""
        now = monotonic()
        for tab, heard in list(self.heard.items()):
            if now - heard > FORGET_S:
                self.leave(tab)
        over = self.alone_since is not None and now - self.alone_since > self.linger_s
        if over:
            self.alone_since = None
        return over
