"""Where one shot ends and the next begins, from the pictures that are decoded anyway.

A cut changes a small grey copy of the picture by much more than motion just did. The least change is small,
so that the cuts of dark scenes are found too. Fades are not cuts: the faces in them are followed or lost.
"""

from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from avsync_cli.pixels import FramePixels, Pixels, thin_grey

LEAST_CHANGE = 8.0  # mean difference of the copies, in grey levels
LEAST_RATIO = 4.0  # to the mean of the changes before
MEMORY = 12  # pictures whose changes are remembered
_COPY_SIZE = (32, 18)  # width, height
_ENOUGH_ROWS = 180  # of a picture, to make the copy from


@dataclass
class CutFinder:
    """Told every picture once, in their order."""

    _changes: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    _last: NDArray[np.float32] | None = None

    def is_cut(self, pixels: Pixels | FramePixels) -> bool:
        """Whether a new shot begins with this picture; False for the first of all."""
        grey = thin_grey(pixels, least_rows=_ENOUGH_ROWS)
        copy = cv2.resize(grey, _COPY_SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
        change = 0.0 if self._last is None else float(np.abs(copy - self._last).mean())
        usual = float(np.mean(self._changes or [0.0]))
        self._last = copy
        self._changes.append(change)
        return change > max(LEAST_CHANGE, LEAST_RATIO * usual)
