"""Joined recordings, whose clock starts anew in the middle of a file: each part goes behind the one before.

What belongs together must be moved together: sound and pictures meet a joint at different places in the file,
and whichever comes to it first says by how much its part is moved.
"""

from fractions import Fraction
from math import ceil
from typing import Literal

import av

from avsync_cli.sound import is_break
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.timing import tick_time

MOST_PARTS = 1_000  # in a file with more, the clock says nothing
_FITS_S = 1  # from where a picture or a sound is expected, if it belongs to a part that is known


class Parts:
    """By how much the parts of a file met so far are moved."""

    def __init__(self) -> None:
        self._shifts_s = [Fraction(0)]
        self._now_s = {"video": Fraction(0), "audio": Fraction(0)}

    @property
    def are_too_many(self) -> bool:
        return len(self._shifts_s) > MOST_PARTS

    def place(
        self,
        frame: av.VideoFrame | av.AudioFrame,
        kind: Literal["video", "audio"],
        *,
        expected_s: Fraction | None,
        end_s: Fraction,
    ) -> bool:
        """Move the stamp of a frame as its part is moved; whether it is the first of a part.

        `expected_s` is when the next of its kind is due, None for the first of all; `end_s` is the end of all
        that has come.
        """
        unit_s = frame.time_base  # made anew each time it is asked for
        if frame.pts is None or not unit_s:
            return False
        time_s = frame.pts * unit_s
        is_first = False
        if expected_s is not None and is_break(time_s + self._now_s[kind], expected_s):
            is_first = not self._find(time_s, kind, expected_s)
            if is_first:
                # By whole ticks: pictures on the grid stay on it where recordings began alike.
                self._shifts_s.append(tick_time(ceil((end_s - time_s) * VIDEO_FPS)))
                self._now_s[kind] = self._shifts_s[-1]
        if self._now_s[kind]:
            frame.pts += round(self._now_s[kind] / unit_s)
        return is_first

    def _find(self, time_s: Fraction, kind: Literal["video", "audio"], expected_s: Fraction) -> bool:
        """Go on in a part that is known, the latest that fits."""
        for shift_s in reversed(self._shifts_s):
            if abs(time_s + shift_s - expected_s) <= _FITS_S:
                self._now_s[kind] = shift_s
                return True
        return False
