"""Scores of windows whose offset is known at every moment, shaped like those of the bundled student.

Mouth and sound are two noisy views of the same smooth random events. A score is how well a window's
events agree with those heard at an offset, so scores of neighbouring windows and offsets hang together as
real ones do, and where the views have little in common peaks are low, broad and often wrong.
"""

from collections.abc import Callable

import numpy as np

from avsync_cli.confidence import Calibration

# Of the student `match-1`.
CALIBRATION = Calibration(
    (-0.615, 1.194, 3.123, -0.456, 0.0, 0.0), min_confidence=0.4, spread_ms=(11.3, 161.9)
)
EVENTS = 12  # numbers that a moment consists of
SPREAD = 2.0  # standard deviation of the scores, as measured on the validation clips
MARGIN = 160  # ticks of events around the windows
LeadAt = Callable[[np.ndarray], np.ndarray]  # seconds -> audio lead in frames


def make_scores(
    seconds: float,
    lead_at: LeadAt,
    *,
    seed: int,
    fit: float = 0.5,
    foreign_s: tuple[float, float] = (0.0, 0.0),
    range_frames: int = 15,
) -> tuple[np.ndarray, np.ndarray]:
    """Ticks [V] and scores [V, 2 r + 1]; `fit` is what mouth and sound have in common, from 0 to 1.

    Between the seconds `foreign_s` the voice is another's.
    """
    rng = np.random.default_rng(seed)
    ticks = np.arange(round(seconds * 25))
    said = _smooth(rng.standard_normal((len(ticks) + 2 * MARGIN, EVENTS)))
    seen = said[MARGIN : MARGIN + len(ticks)]
    leads = np.broadcast_to(np.asarray(lead_at(ticks / 25), float), len(ticks))
    offsets = np.arange(-range_frames, range_frames + 1)
    # What is heard at offset j fits what is seen j - lead ticks earlier.
    places = MARGIN + ticks[:, None] - (offsets - leads[:, None])
    whole = np.floor(places).astype(int)
    part = (places - whole)[..., None]
    heard = (1 - part) * said[whole] + part * said[whole + 1]
    other = _smooth(rng.standard_normal((len(ticks) + 2 * MARGIN, EVENTS)))[whole]
    foreign = (ticks / 25 >= foreign_s[0]) & (ticks / 25 < foreign_s[1])
    share = np.where(foreign, 0.0, fit)[:, None, None]
    scores = np.einsum("vd,vcd->vc", seen, share * heard + (1 - share) * other)
    return ticks, (SPREAD * scores / scores.std()).astype(np.float32)


def _smooth(events: np.ndarray) -> np.ndarray:
    """Events averaged over the 5 ticks of a window."""
    kernel = np.ones(5) / 5
    return np.stack([np.convolve(column, kernel, mode="same") for column in events.T], axis=1)
