"""Frames that wait for the one who looks at them: no more of them than fit into a bound, in bytes."""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from threading import Condition

import av

from avsync_cli.live.clock import Epoch

_MOST_BYTES = 64_000_000  # 20 pictures of 1080p as decoders give them
_LEAST, _MOST = 8, 50  # pictures
_SKIP_S = Fraction(6, 5)  # more than `MAX_HOLD_S` on both sides: the ticks of a skip have no picture


@dataclass(frozen=True)
class Waiting:
    """A frame at a time in s of an epoch, of pixels of an `aspect`."""

    epoch: Epoch
    time_s: Fraction
    frame: av.VideoFrame
    aspect: Fraction | None


class Backlog:
    """A queue from one thread to another; nothing is put in or taken out once it is closed.

    Who puts may wait for room. Otherwise, when it is full, all pictures of the next second and more are
    skipped: single ones would be stood in for by others, and nothing would be saved.
    """

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._changed = Condition()
        self._is_over = False
        self._skip_until: tuple[Epoch, Fraction] | None = None
        self.skipped = 0
        self.is_closed = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def put(self, each: Waiting, *, waits: bool) -> None:
        with self._changed:
            if not waits and self._skips(each):
                self.skipped += 1
                return
            self._changed.wait_for(lambda: self._is_over or self._has_room(each))
            if not self._is_over:
                self._waiting.append(each)
                self._changed.notify_all()

    def take(self) -> Waiting | None:
        """The next one, as soon as there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._waiting)
            if not self._waiting:
                return None
            self._changed.notify_all()
            return self._waiting.popleft()

    def end(self) -> None:
        """No more will be put in; what waits is still taken."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is wanted any more."""
        with self._changed:
            self._waiting.clear()
            self.is_closed = True
        self.end()

    def _skips(self, each: Waiting) -> bool:
        if self._skip_until is not None:
            epoch, until_s = self._skip_until
            if each.epoch is epoch and each.time_s < until_s:
                return True
        if self._has_room(each):
            self._skip_until = None
            return False
        self._skip_until = each.epoch, each.time_s + _SKIP_S
        return True

    def _has_room(self, each: Waiting) -> bool:
        size = each.frame.width * each.frame.height * max(1, each.frame.format.bits_per_pixel) // 8
        return len(self._waiting) < min(_MOST, max(_LEAST, _MOST_BYTES // max(1, size)))
