"""The mel spectrogram, the same for training, evaluation and serving.

VocaLiST's audio front end: magnitude STFT (n_fft = window = 800, hop 200, periodic Hann, centred with
reflected ends), 80 Slaney mel bins of 55 to 7600 Hz, decibels brought into -4..4. No pre-emphasis.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from avsync_cli.sound import Sound
from avsync_cli.spec import (
    FRAME_MS,
    HOP_SAMPLES,
    MEL_BINS,
    MEL_FLOOR,
    MEL_LIMIT,
    MEL_MAX_HZ,
    MEL_MIN_HZ,
    MEL_RANGE_DB,
    MEL_REFERENCE_DB,
    N_FFT,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    WINDOW_FRAMES,
    WINDOW_MEL_STEPS,
)
from avsync_cli.timing import mel_step_at

Floats = NDArray[np.float32]

_BLOCK_STEPS = 2_000  # STFT frames at a time: 25 s, so that an hour does not become 2 GB of spectra


@dataclass(frozen=True)
class MelTrack:
    """The mel [T, 80] of a sound, and which ticks of the grid have a whole audio window in it.

    The window of tick t covers the 5 frames from t on; `first_tick` <= t < `first_tick + ticks`. The
    mel's own origin is `origin_tick`, at or just before the first sample. `delay_ms` later than it was
    recorded is the sound to be heard (see `delayed`).
    """

    mel: Floats
    origin_tick: int
    first_tick: int
    ticks: int
    delay_ms: float = 0.0

    @property
    def all_ticks(self) -> NDArray[np.int64]:
        """The ticks [A] that have a whole audio window."""
        return np.arange(self.first_tick, self.first_tick + self.ticks)

    def starts(self, ticks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The mel steps [A] at which the windows of the given ticks begin."""
        return np.array(
            [mel_step_at(int(tick) - self.origin_tick, delay_ms=self.delay_ms) for tick in ticks], np.int64
        )

    def delayed(self, delay_ms: float) -> "MelTrack":
        """The same sound, heard so much later; in steps of `timing.DELAY_STEP_MS`."""
        first_tick = self.first_tick + math.ceil(delay_ms / FRAME_MS)
        end_tick = self.first_tick + self.ticks + math.floor(delay_ms / FRAME_MS)
        ticks = max(0, end_tick - first_tick)
        return replace(self, first_tick=first_tick, ticks=ticks, delay_ms=self.delay_ms + delay_ms)

    def windows(self, ticks: NDArray[np.int64] | None = None) -> Floats:
        """Audio windows [A, 80, 16] (bins x steps) of the given ticks, or of all there are."""
        starts = self.starts(self.all_ticks if ticks is None else ticks)
        steps = starts[:, None] + np.arange(WINDOW_MEL_STEPS)
        return np.ascontiguousarray(self.mel[steps].transpose(0, 2, 1))


def mel_track(sound: Sound) -> MelTrack:
    """Mel of a sound, aligned to the 25-fps grid."""
    origin_tick = sound.first_sample // SAMPLES_PER_FRAME  # floor: at or before the first sample
    lead_in = sound.first_sample - origin_tick * SAMPLES_PER_FRAME
    mel = mel_spectrogram(np.pad(sound.samples, (lead_in, 0)))
    end_tick = (sound.first_sample + len(sound.samples)) // SAMPLES_PER_FRAME
    first_tick = origin_tick + (lead_in > 0)
    return MelTrack(mel, origin_tick, first_tick, max(0, end_tick - WINDOW_FRAMES + 1 - first_tick))


def mel_spectrogram(samples: Floats) -> Floats:
    """Mel features float32 [T, 80] in -4..4 of mono 16-kHz samples [S]; T = 1 + S // 200.

    Sounds of up to half a window (25 ms) cannot be reflected at their ends and give an empty [0, 80].
    """
    half = N_FFT // 2
    if len(samples) <= half:
        return np.zeros((0, MEL_BINS), np.float32)
    padded = np.pad(samples.astype(np.float32, copy=False), half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_SAMPLES]
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    blocks = []
    for first in range(0, len(frames), _BLOCK_STEPS):
        spectrum = np.abs(np.fft.rfft(frames[first : first + _BLOCK_STEPS] * window))
        blocks.append(spectrum.astype(np.float32) @ mel_filters().T)
    decibels = 20.0 * np.log10(np.maximum(np.concatenate(blocks), MEL_FLOOR)) - MEL_REFERENCE_DB
    scaled = 2 * MEL_LIMIT * (decibels + MEL_RANGE_DB) / MEL_RANGE_DB - MEL_LIMIT
    mel: Floats = np.clip(scaled, -MEL_LIMIT, MEL_LIMIT).astype(np.float32)
    return mel


@cache
def mel_filters() -> Floats:
    """Triangular filters [80, 401], Slaney's mel scale and Slaney's equal-area norm."""
    corners_hz = _mel_to_hz(np.linspace(_hz_to_mel(MEL_MIN_HZ), _hz_to_mel(MEL_MAX_HZ), MEL_BINS + 2))
    bins_hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE_HZ)
    low, centre, high = (corners_hz[i : i + MEL_BINS, None] for i in range(3))
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    filters: Floats = (np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)).astype(np.float32)
    return filters


# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, then 27 steps to every factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    curved = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    hz: NDArray[np.float64] = np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, curved)
    return hz
