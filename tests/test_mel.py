"""The mel against torch's STFT and an independent filter bank, and its place on the grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avsync_cli.mel import mel_filters, mel_spectrogram, mel_track
from avsync_cli.sound import Sound


def speechlike(samples: int, seed: int = 0) -> np.ndarray:
    """Noise and tones with a slow envelope, from loud to silent."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(samples) / 16_000
    tones = sum(np.sin(2 * np.pi * hz * time_s) for hz in (120, 700, 2_300, 5_000))
    envelope = np.clip(np.sin(2 * np.pi * 3 * time_s), 0, 1) ** 2
    return (envelope * (0.1 * tones + 0.05 * rng.standard_normal(samples))).astype(np.float32)


def slaney_filters() -> np.ndarray:
    """The same bank from its definition, one triangle at a time, in scalars."""

    def hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    edges = [hz(mel(55) + k * (mel(7600) - mel(55)) / 81) for k in range(82)]
    bank = np.zeros((80, 401))
    for row in range(80):
        low, centre, high = edges[row : row + 3]
        for column in range(401):
            f = column * 20.0
            if low < f <= centre:
                bank[row, column] = (f - low) / (centre - low)
            elif centre < f < high:
                bank[row, column] = (high - f) / (high - centre)
        bank[row] *= 2 / (high - low)
    return bank


def test_filters_are_slaneys():
    np.testing.assert_allclose(mel_filters(), slaney_filters(), atol=1e-7)


@pytest.mark.parametrize("samples", [16_000, 3_200, 12_345, 16_000 * 27])
def test_mel_equals_the_torch_formula(samples):
    torch = pytest.importorskip("torch")
    sound = speechlike(samples)
    spectrum = torch.stft(
        torch.from_numpy(sound),
        n_fft=800,
        hop_length=200,
        window=torch.hann_window(800, periodic=True),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    ).abs()
    mel = torch.from_numpy(slaney_filters()).float() @ spectrum
    decibels = 20 * torch.log10(mel.clamp(min=1e-5)) - 20
    expected = (8 * (decibels + 100) / 100 - 4).clamp(-4, 4).T.numpy()
    ours = mel_spectrogram(sound)
    assert ours.shape == (1 + samples // 200, 80)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_silence_is_the_floor_and_nothing_is_nothing():
    assert (mel_spectrogram(np.zeros(16_000, np.float32)) == -4).all()
    assert mel_spectrogram(np.zeros(300, np.float32)).shape == (0, 80)


@settings(max_examples=40)
@given(first_sample=st.integers(-5_000, 5_000), samples=st.integers(6_000, 12_000))
def test_windows_are_wholly_inside_the_sound_and_stay_on_the_grid(first_sample, samples):
    sound = Sound(speechlike(samples), first_sample)
    track = mel_track(sound)
    ticks = np.arange(track.first_tick, track.first_tick + track.ticks)
    assert (ticks * 640 >= first_sample).all()
    assert ((ticks + 5) * 640 <= first_sample + samples).all()
    assert (track.first_tick - 1) * 640 < first_sample, "no earlier window would fit"
    assert (track.first_tick + track.ticks + 5) * 640 > first_sample + samples, "and no later one"
    windows = track.windows()
    assert windows.shape == (track.ticks, 80, 16)
    # An independent way to the same window: the same sound, padded by hand to begin at the tick 0.
    if first_sample >= 0 and track.ticks:
        whole = mel_spectrogram(np.pad(sound.samples, (first_sample, 0)))
        tick = int(ticks[track.ticks // 2])
        offset = int(80 * (tick - track.origin_tick) / 25) * 200 + track.origin_tick * 640
        if offset % 200 == 0:
            np.testing.assert_allclose(windows[track.ticks // 2], whole[offset // 200 :][:16].T, atol=1e-4)


def test_a_sound_moved_by_whole_frames_moves_its_windows_by_as_many_ticks():
    samples = speechlike(20_000)
    here, there = mel_track(Sound(samples, 0)), mel_track(Sound(samples, 7 * 640))
    assert there.first_tick == here.first_tick + 7
    np.testing.assert_array_equal(here.windows(), there.windows())
