"""How loud the sound of audio windows is, told from its mel."""

from functools import cache as remember

import numpy as np
from numpy.typing import NDArray

from avsync_cli.mel import MelTrack, mel_filters
from avsync_cli.spec import MEL_LIMIT, MEL_RANGE_DB, MEL_REFERENCE_DB, N_FFT, WINDOW_MEL_STEPS
from avsync_cli.timing import mel_step_at

Floats = NDArray[np.float32]

_HANN_ENERGY = 0.375 * N_FFT  # sum of the window's squares
SILENCE_RMS = 0.01  # a window of at most this is silent, in the paper's code


def loud_ticks(mel: MelTrack) -> NDArray[np.bool_]:
    """Whether each tick that has an audio window is above SILENCE_RMS: [ticks]."""
    loud: NDArray[np.bool_] = window_rms(mel, mel.all_ticks) > SILENCE_RMS
    return loud


def window_rms(mel: MelTrack, ticks: NDArray[np.int64]) -> Floats:
    """RMS [A] of the sound of audio windows, from the energy of their mel.

    The cache holds no samples. A bin's amplitude is the mean magnitude of the spectrum under its filter; with
    the energy of noise of that magnitude, summed over the bins' own widths, Parseval's theorem gives the RMS
    to within about 1 dB for noise and speech (test). Sound below 55 Hz or above 7.6 kHz does not count.
    """
    if not len(ticks):
        return np.zeros(0, np.float32)
    step_energy = _step_energy(mel.mel.astype(np.float32))
    before = np.concatenate([[0.0], np.cumsum(step_energy, dtype=np.float64)])
    starts = np.array([mel_step_at(int(tick) - mel.origin_tick) for tick in ticks])
    energy = (before[starts + WINDOW_MEL_STEPS] - before[starts]) / WINDOW_MEL_STEPS
    rms: Floats = np.sqrt(np.maximum(energy, 0)).astype(np.float32)
    return rms


def _step_energy(mel: Floats) -> Floats:
    """Mean square of the samples around each mel step: [T, 80] -> [T]."""
    areas, widths = _filter_sizes()  # both [80]
    decibels = (mel + MEL_LIMIT) * (MEL_RANGE_DB / (2 * MEL_LIMIT)) - MEL_RANGE_DB + MEL_REFERENCE_DB
    magnitude = 10 ** (decibels / 20) / areas  # the mean of |X| under each filter
    mean_square = (4 / np.pi) * magnitude**2  # of |X|, where its two parts are normal
    energy: Floats = (2 * (mean_square @ widths) / (N_FFT * _HANN_ENERGY)).astype(np.float32)
    return energy


@remember
def _filter_sizes() -> tuple[Floats, Floats]:
    """The mel filters' areas [80], and how many of the spectrum's bins are each filter's own [80].

    A bin belongs to the filters over it in proportion to their heights there.
    """
    filters = mel_filters()
    heights = filters / filters.max(axis=1, keepdims=True)
    owned: Floats = (heights / np.maximum(heights.sum(axis=0), 1e-12)).sum(axis=1)
    areas: Floats = filters.sum(axis=1)
    return areas, owned
