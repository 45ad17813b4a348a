"""The signals by which somebody asks this process to stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOPS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32":
    _STOPS += (signal.SIGHUP,)  # the terminal is gone


@contextmanager
def hearing_stops(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within it each of them calls `note`. Only the main thread may enter it.

    A terminal's end stays without effect where it was, as under `nohup`.
    """
    before = {number: signal.signal(number, note) for number in _STOPS if not _is_unheard(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_unheard(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
