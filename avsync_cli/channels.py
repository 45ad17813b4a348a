"""Channels in opposite phase: a voice that stands in both with opposite signs vanishes from their mean.

C channels of S samples. Inverted are single cables, plugs and faders of real recordings; players with two
loudspeakers let the voice be heard all the same.
"""

import numpy as np
from numpy.typing import NDArray

_BAND_HZ = 8000  # rate at which channels are compared: up to 4 kHz, where voices are
_MEMORY_S = 2.0
_OPPOSED, _LEVEL = -0.3, 0.0  # correlation below which a channel is inverted, above which it is no longer


class Polarity:
    """Which channels of a sound are to be inverted before they are added up, judged as it goes on."""

    def __init__(self) -> None:
        self._moments = np.zeros((0, 0))  # [C, C] of the last seconds
        self._last = np.zeros(0)  # [C] last sample that was compared
        self._signs = np.zeros(0)  # [C] of 1 and -1

    def update(self, samples: NDArray[np.floating], rate_hz: int) -> NDArray[np.float64]:
        """Signs [C] of the channels [C, S] that come next, 1 or -1; that of the first is 1.

        Compared are the differences between neighbouring samples: a hum weighs next to nothing in them.
        """
        channels, count = samples.shape
        if len(self._signs) != channels:
            self._moments = np.zeros((channels, channels))
            self._last, self._signs = np.zeros(channels), np.ones(channels)
        group = max(1, rate_hz // _BAND_HZ)
        whole = count - count % group
        if channels == 1 or whole == 0:
            return self._signs
        band = samples[:, :whole].reshape(channels, -1, group).mean(axis=2, dtype=np.float64)
        changes = np.diff(band, axis=1, prepend=self._last[:, None])
        self._last = band[:, -1]
        self._moments = self._moments * np.exp(-count / (rate_hz * _MEMORY_S)) + changes @ changes.T
        self._signs = _choose_signs(self._moments, self._signs)
        return self._signs


def _choose_signs(moments: NDArray[np.float64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signs [C] by the correlation of each channel with the strongest; those before hold in doubt."""
    power = moments.diagonal()
    strongest = int(power.argmax())
    scale = np.sqrt(power * power[strongest])
    likeness: NDArray[np.float64] = np.divide(
        moments[strongest], scale, out=np.zeros_like(scale), where=scale > 0
    )
    opposed = np.where(signs * signs[strongest] < 0, likeness < _LEVEL, likeness < _OPPOSED)
    chosen: NDArray[np.float64] = np.where(opposed, -1.0, 1.0)
    return chosen if chosen[0] > 0 else -chosen
