"""Signs of life of a check, by which whoever waits can tell work that takes long from what stands still."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_EVERY_S = 1.0  # at most one sign in this time
_PAUSE_S = 5.0  # between two looks of one who waits and is not stopped


@dataclass
class _Pulse:
    tell: Callable[[], None] | None = None
    next_s: float = 0.0  # on the clock of `monotonic`


_pulse = _Pulse()


def hear_pulse(tell: Callable[[], None] | None) -> None:
    """Have `tell` called, from any thread, while work in this process goes on; None: nobody listens."""
    _pulse.tell, _pulse.next_s = tell, 0.0


def beat() -> None:
    """Say that work went on: a packet was read, a picture looked at, a network run."""
    tell = _pulse.tell
    if tell is not None and (now_s := monotonic()) >= _pulse.next_s:
        _pulse.next_s = now_s + _EVERY_S
        tell()


class PatientClock:
    """Seconds as whoever waits for a process counts them, who looks many times a second.

    Those in which both were stopped, as by Ctrl-Z, are left out: they are no fault of the file in work.
    """

    def __init__(self) -> None:
        self._paused_s, self._looked_s = 0.0, monotonic()

    def read(self) -> float:
        now_s = monotonic()
        if now_s - self._looked_s > _PAUSE_S:
            self._paused_s += now_s - self._looked_s
        self._looked_s = now_s
        return now_s - self._paused_s
