"""How much a sound is like speech: a cheap measure on the mel, to choose where to look first.

Speech is loud and quiet by turns, two to eight times a second, as syllables come (Houtgast and Steeneken,
1985); tones, noise and most music are not. It is a preference, not a verdict: singing passes too.
"""

import numpy as np

from avsync_cli.mel import mel_spectrogram
from avsync_cli.sound import Sound
from avsync_cli.spec import MEL_LIMIT, MEL_RANGE_DB, MEL_STEPS_PER_SECOND

_SYLLABLES_HZ = (2.0, 8.5)
_CHANGES_HZ = (0.5, 30.0)  # of these the syllables are a share
_VOICE_BINS = slice(5, 55)  # about 200 to 3,400 Hz
_FULL_SWING_DB = 8.0  # standard deviation of the level of clear speech, at least
_MIN_STEPS = MEL_STEPS_PER_SECOND  # in less than a second there are too few syllables to tell


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
