"""The examples of a calibration: what is done to the sound, what is known of each, and how they are drawn."""

import numpy as np
import pytest
from scipy.signal import find_peaks
from students import write_far_student, write_student
from synthetic_cache import make_cache

from avsync_cli.mel import mel_track
from avsync_cli.model import load_student
from avsync_cli.sound import Sound
from training.data.cache import read_manifest
from training.data.clips import load_clips
from training.evaluation.calibration_examples import (
    CLEAN,
    MUSIC,
    NOISY,
    OTHER,
    STILL,
    encode_clip,
    make_examples,
    make_music,
    mix_noise,
)

RATE = 16_000


def power(track):
    return 10 ** ((track.mel.astype(np.float64) - 4) * 12.5 / 10)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"), clips=12, frames=120)


@pytest.fixture
def voice():
    rng = np.random.default_rng(0)
    loud = np.repeat(rng.uniform(0.2, 1, 40), RATE // 10)
    return mel_track(Sound((0.1 * loud * rng.standard_normal(len(loud))).astype(np.float32), 0))


@pytest.mark.parametrize("snr_db", [20, 10, 0])
@pytest.mark.parametrize("kind", ["hiss", "voices"])
def test_noise_has_the_power_that_it_is_asked_for(voice, snr_db, kind):
    rng = np.random.default_rng(1)
    other = None
    if kind == "voices":
        other = mel_track(Sound((0.01 * rng.standard_normal(RATE)).astype(np.float32), 0))
    noisy = mix_noise(voice, other, snr_db=snr_db, rng=rng)
    added = power(noisy).mean() - power(voice).mean()
    assert 10 * np.log10(power(voice).mean() / added) == pytest.approx(snr_db, abs=0.3)
    assert (noisy.origin_tick, noisy.ticks) == (voice.origin_tick, voice.ticks)


def test_music_has_tones_and_a_beat():
    sound = make_music(4, rng=np.random.default_rng(0)).samples
    assert np.abs(sound).max() == pytest.approx(0.3, rel=1e-3)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))[: 4 * 800]  # to 800 Hz
    assert len(find_peaks(spectrum, prominence=0.1 * spectrum.max())[0]) >= 5
    envelope = np.abs(sound[: 16 * 3840]).reshape(16, 3840)
    assert (envelope[:, :400].mean(axis=1) > envelope[:, -400:].mean(axis=1)).mean() > 0.9


def test_every_condition_is_drawn_and_its_truth_is_known(tmp_path, cache):
    student = load_student(write_student(tmp_path / "student"))
    clips = [clip for clip in read_manifest(cache) if clip.split == "train"]
    examples = make_examples(student, cache, clips, seed=0)
    conditions = {example.condition for example in examples}
    assert conditions == {CLEAN, OTHER, MUSIC, STILL, *NOISY}
    for example in examples:
        unknowable = example.condition in (OTHER, MUSIC, STILL)
        assert (example.error_frames is None) == unknowable
    clean = [example for example in examples if example.condition == CLEAN and example.windows > 80]
    assert np.mean([example.is_right for example in clean]) > 0.9
    again, other = (make_examples(student, cache, clips, seed=seed) for seed in (0, 1))
    assert [e.lead_frames for e in again] == [e.lead_frames for e in examples]
    assert [e.lead_frames for e in other] != [e.lead_frames for e in examples]


def test_a_clip_is_encoded_whole(tmp_path, cache):
    student = load_student(write_far_student(tmp_path / "far"))
    clip = load_clips(cache, split="val")[0]
    encoded = encode_clip(student, clip)
    assert encoded.video.shape == (len(clip.crops) - 4, 9)
    assert encoded.audio.shape == (clip.mel.ticks, 22)
    assert (encoded.video_tick, encoded.audio_tick) == (clip.first_tick, clip.mel.first_tick)
