"""Whether a sound can be speech, and how much it is like it: cheap measures, to choose where to look first.

Speech is loud and quiet by turns, two to eight times a second, as syllables come (Houtgast and Steeneken,
1985); tones, noise and most music are not. It is a preference, not a verdict: singing passes too.
"""

import numpy as np
from numpy.typing import NDArray

from avsync_cli.mel import mel_spectrogram
from avsync_cli.sound import Sound
from avsync_cli.spec import (
    MEL_LIMIT,
    MEL_RANGE_DB,
    MEL_STEPS_PER_SECOND,
    MIN_SPEECH_FRAMES,
    SPEECH_FLOOR_DB,
    SPEECH_MIN_SWING_DB,
)

Floats = NDArray[np.float32]

VOICE_LIKENESS = 0.1  # least of what may be a voice
_SYLLABLES_HZ = (2.0, 8.5)
_CHANGES_HZ = (0.5, 30.0)  # of these the syllables are a share
_VOICE_BINS = slice(5, 55)  # about 200 to 3,400 Hz
_FULL_SWING_DB = 8.0  # standard deviation of the level of clear speech, at least
_MIN_STEPS = MEL_STEPS_PER_SECOND  # in less than a second there are too few syllables to tell


def has_speech(loudness_db: Floats) -> bool:
    """Whether sound of these levels [N] (`sound.loudness_db`) can be speech: loud enough, no steady tone.

    A cheap test that only turns away silence, hum and tones; it does not tell speech from music.
    """
    heard_db = loudness_db[np.isfinite(loudness_db)]
    if len(heard_db) == 0:
        return False
    swing_db = float(np.percentile(heard_db, 95) - np.percentile(heard_db, 5))
    return int((heard_db > SPEECH_FLOOR_DB).sum()) >= MIN_SPEECH_FRAMES and swing_db >= SPEECH_MIN_SWING_DB


def speech_likeness(sound: Sound | None) -> float:
    """From 0 (silence, hum, noise) to 1 (clear speech); 0 for less than a second of sound."""
    if sound is None:
        return 0.0
    mel = mel_spectrogram(sound.samples)
    if len(mel) < _MIN_STEPS:
        return 0.0
    level_db = mel[:, _VOICE_BINS].mean(axis=1) * (MEL_RANGE_DB / (2 * MEL_LIMIT))
    changes = level_db - level_db.mean()
    power = np.abs(np.fft.rfft(changes * np.hanning(len(changes)))) ** 2
    rates_hz = np.fft.rfftfreq(len(changes), 1 / MEL_STEPS_PER_SECOND)
    of_syllables = float(power[(rates_hz >= _SYLLABLES_HZ[0]) & (rates_hz <= _SYLLABLES_HZ[1])].sum())
    of_all = float(power[(rates_hz >= _CHANGES_HZ[0]) & (rates_hz <= _CHANGES_HZ[1])].sum())
    swing = min(1.0, float(changes.std()) / _FULL_SWING_DB)
    return swing * of_syllables / of_all if of_all > 0 else 0.0
