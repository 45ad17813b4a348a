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
    """Within it each of them calls `note`. Only the main thread may enter it."""
    before = {number: signal.signal(number, note) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
