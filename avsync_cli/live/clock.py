"""The clock that live pictures and sound share, and what becomes of both where it jumps."""

from dataclasses import dataclass, field
from fractions import Fraction
from threading import Lock
from typing import Literal

from avsync_cli.sound import Recorder

Kind = Literal["picture", "sound"]

_BACK_S = 1  # a step back by more is another clock
_APART_S = 10  # pictures and sound further apart have nothing to do with one another


@dataclass(eq=False)
class Epoch:
    """The time from one jump of the clock to the next, how many there were before, and the sound of it."""

    jumps: int = 0
    recorder: Recorder = field(default_factory=Recorder)


class JointClock:
    """Says to which epoch a picture or a sound belongs by its time; two threads may ask."""

    def __init__(self) -> None:
        self._epoch = Epoch()
        self._last_s: dict[Kind, Fraction] = {}
        self._stray_s: dict[Kind, Fraction] = {}  # of the last one, where it may be the first after a jump
        self._lock = Lock()

    def place(self, kind: Kind, time_s: Fraction) -> Epoch | None:
        """The epoch of what is shown or heard at a time; None for what is on another clock than the other.

        Where one has jumped, the other is left out until it has jumped too. The first behind a jump is left
        out as well.
        """
        with self._lock:
            last_s = self._last_s.get(kind)
            other_s = self._last_s.get("sound" if kind == "picture" else "picture")
            is_apart = other_s is not None and abs(time_s - other_s) > _APART_S
            if last_s is not None and self._is_jump(time_s - last_s, alone=other_s is None or is_apart):
                if not self._is_borne_out(kind, time_s):
                    return None
                self._restart(jumps=self._epoch.jumps + 1)
            elif last_s is None and is_apart:
                return None
            self._stray_s.pop(kind, None)
            self._last_s[kind] = time_s
            return self._epoch

    def restart(self) -> None:
        """What comes next has nothing to do with what came before."""
        with self._lock:
            self._restart(jumps=self._epoch.jumps)

    def _restart(self, *, jumps: int) -> None:
        self._epoch, self._last_s, self._stray_s = Epoch(jumps), {}, {}

    def _is_borne_out(self, kind: Kind, time_s: Fraction) -> bool:
        """Whether a jump is the second to about there: decoders give single pictures late, behind a gap."""
        stray_s = self._stray_s.get(kind)
        self._stray_s[kind] = time_s
        return stray_s is not None and abs(time_s - stray_s) <= _BACK_S

    @staticmethod
    def _is_jump(step_s: Fraction, *, alone: bool) -> bool:
        """A long pause of one that comes back to where the other is is none."""
        return step_s < -_BACK_S or (step_s > _APART_S and alone)
