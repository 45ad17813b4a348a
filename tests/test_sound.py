"""Sound at its time: clicks at known moments, in frames whose stamps jump, wander or are missing."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import click_track, find_clicks

from avsync_cli.sound import Heard, Recorder, Sound, cut_sound, loudness_db, weigh_channels
from avsync_cli.spec import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

RATE = 48_000  # of the file


def make_frame(samples: np.ndarray, begin_s: Fraction | None, *, layout: str = "mono") -> av.AudioFrame:
    """A frame [S] or [C, S] that is to be heard from `begin_s` on; one without a time where that is None."""
    planes = np.ascontiguousarray(np.atleast_2d(samples), np.float32)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    frame.pts = None if begin_s is None else round(begin_s * RATE)
    return frame


def record(*frames: av.AudioFrame) -> Recorder:
    recorder = Recorder()
    for frame in frames:
        recorder.add(frame)
    return recorder


def clicks_of(sound: Sound | None) -> list[float]:
    assert sound is not None
    first_s = sound.first_sample / SAMPLE_RATE_HZ
    return [first_s + click_s for click_s in find_clicks(sound.samples, rate=SAMPLE_RATE_HZ)]


def half_second(click_s: float = 0.25) -> np.ndarray:
    return click_track([click_s], seconds=0.5, rate=RATE)


def test_sound_that_changes_its_layout_goes_on():
    """Broadcasts switch between stereo and 5.1 in the middle of a stream."""
    recorder = Recorder()
    for first, layout in ((0, "stereo"), (1, "5.1"), (2, "mono")):
        channels = len(av.AudioLayout(layout).channels)
        samples = np.tile(click_track([0.5], seconds=1, rate=48_000), (channels, 1))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48_000, first * 48_000, Fraction(1, 48_000)
        recorder.add(frame)
    np.testing.assert_allclose(clicks_of(recorder.sound(Fraction(0))), [0.5, 1.5, 2.5], atol=0.001)


def test_loudness_is_the_level_of_each_tick():
    """A sine of amplitude a has a level of 20 lg a - 3 dB; a hum does not count; beyond the sound is none."""
    time_s = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = np.where(time_s < 1, 0.5, 0.05) * np.sin(2 * np.pi * 500 * time_s)
    tone += 0.5 * np.sin(2 * np.pi * 50 * time_s)
    levels_db = loudness_db(Sound(tone.astype(np.float32), 100), np.arange(-1, 60))
    assert np.isnan(levels_db[:2]).all(), "tick 0 begins before sample 100"
    np.testing.assert_allclose(levels_db[3:24], 20 * np.log10(0.5) - 3.01, atol=0.05)
    np.testing.assert_allclose(levels_db[28:49], 20 * np.log10(0.05) - 3.01, atol=0.05)
    assert np.isnan(levels_db[51:]).all()


def test_sound_is_placed_by_its_stamps_and_counted_from_the_origin():
    recorder = record(make_frame(half_second(), Fraction(7)), make_frame(half_second(), Fraction(15, 2)))
    assert (recorder.begin_s, recorder.until_s) == (7, 8)
    assert recorder.held_s == pytest.approx(1.0, abs=0.01)
    sound = recorder.sound(Fraction(13, 2))
    assert sound is not None
    assert sound.first_sample == SAMPLE_RATE_HZ // 2
    assert len(sound.samples) == pytest.approx(SAMPLE_RATE_HZ, abs=2)
    np.testing.assert_allclose(clicks_of(sound), [0.75, 1.25], atol=1e-3)
    np.testing.assert_allclose(clicks_of(recorder.sound(Fraction(8))), [-0.75, -0.25], atol=1e-3)


def test_a_gap_is_silence_and_what_follows_keeps_its_time():
    recorder = record(make_frame(half_second(), Fraction(0)), make_frame(half_second(), Fraction(2)))
    sound = recorder.sound(Fraction(0))
    np.testing.assert_allclose(clicks_of(sound), [0.25, 2.25], atol=1e-3)
    assert sound is not None
    assert not sound.samples[round(0.51 * SAMPLE_RATE_HZ) : round(1.99 * SAMPLE_RATE_HZ)].any()


@pytest.mark.parametrize(("step_ms", "apart_ms"), [(9, 500), (-9, 500), (12, 512), (-12, 488)])
def test_stamps_may_wander_by_a_hundredth_of_a_second_and_no_more(step_ms, apart_ms):
    """Rounded stamps do not tear a sound; a real step moves what follows."""
    begin_s = Fraction(1, 2) + Fraction(step_ms, 1000)
    recorder = record(make_frame(half_second(), Fraction(0)), make_frame(half_second(), begin_s))
    first_s, second_s = clicks_of(recorder.sound(Fraction(0)))
    assert 1000 * (second_s - first_s) == pytest.approx(apart_ms, abs=0.5)


def test_a_frame_without_a_stamp_follows_the_one_before():
    recorder = record(make_frame(half_second(), Fraction(3)), make_frame(half_second(), None))
    np.testing.assert_allclose(clicks_of(recorder.sound(Fraction(0))), [3.25, 3.75], atol=1e-3)


def test_a_clock_that_starts_anew_is_a_break_and_a_gap_is_none():
    recorder = Recorder()
    assert not recorder.is_break(make_frame(half_second(), Fraction(5000)))
    assert recorder.until_s is None
    recorder.add(make_frame(half_second(), Fraction(100)))
    for begin_s, is_break in ((100, False), (99, True), (130, False), (700, False), (701, True), (0, True)):
        assert recorder.is_break(make_frame(half_second(), Fraction(begin_s))) is is_break, begin_s
    assert not recorder.is_break(make_frame(half_second(), None))


def test_what_is_forgotten_is_not_kept_and_the_rest_keeps_its_time():
    frames = [make_frame(half_second(), Fraction(number, 2)) for number in range(8)]
    recorder = record(*frames)
    recorder.forget(Fraction(2))
    assert recorder.held_s == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(clicks_of(recorder.sound(Fraction(0))), [2.25, 2.75, 3.25, 3.75], atol=1e-3)


def test_of_stretches_far_apart_only_those_that_are_asked_for_are_placed():
    """Stamps that claim a gap of nine minutes cost no memory of nine minutes."""
    recorder = record(make_frame(half_second(), Fraction(0)), make_frame(half_second(), Fraction(540)))
    recorder.flush()
    sound = recorder.sound_so_far(Fraction(0), between_s=(Fraction(539), Fraction(541)))
    np.testing.assert_allclose(clicks_of(sound), [540.25], atol=1e-3)
    assert sound is not None
    assert len(sound.samples) < SAMPLE_RATE_HZ
    assert recorder.sound_so_far(Fraction(0), between_s=(Fraction(100), Fraction(101))) is None


def test_nothing_heard_is_no_sound():
    assert Recorder().sound(Fraction(0)) is None


def test_the_voice_in_the_centre_goes_before_the_music_around_it():
    centre, around = half_second(0.1), half_second(0.3)
    bass = half_second(0.4)
    mixed = np.stack([around, around, centre, bass, around, around])  # FL FR FC LFE BL BR
    sound = record(make_frame(mixed, Fraction(0), layout="5.1")).sound(Fraction(0))
    assert sound is not None
    peaks = [np.abs(sound.samples[round(s * 16_000) - 50 :][:100]).max() for s in (0.1, 0.3, 0.4)]
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02), "four at a quarter are as much as the centre"
    assert peaks[2] < 1e-3 * peaks[0], "the bass is left out"
    weights = weigh_channels(["FL", "FR", "FC", "LFE", "BL", "BR"])
    np.testing.assert_allclose(weights, np.array([1, 1, 4, 0, 1, 1]) / 8)
    assert weigh_channels(["FL", "FR", "BC"]) is None


def ramp(first_tick: int, ticks: int, *, phase: int = 0) -> Sound:
    """A sound each of whose samples says where it stands, counted from the origin."""
    first = first_tick * SAMPLES_PER_FRAME + phase
    return Sound(np.arange(first, first + ticks * SAMPLES_PER_FRAME, dtype=np.float32), first)


@pytest.mark.parametrize("phase", [0, 1, 639])
def test_a_cut_keeps_every_sample_at_its_place(phase):
    cut = cut_sound(ramp(10, 100, phase=phase), 37, 60)
    assert cut is not None
    np.testing.assert_array_equal(cut.samples, cut.first_sample + np.arange(len(cut.samples)))
    assert cut.first_sample + len(cut.samples) == 60 * SAMPLES_PER_FRAME


def test_a_cut_begins_where_ticks_and_mel_steps_meet():
    """Every fifth tick from the one in which the sound begins, or from the one that is given."""
    sound = ramp(11, 100)
    for first_tick, begin in ((11, 11), (15, 11), (16, 16), (40, 36), (41, 41)):
        cut = cut_sound(sound, first_tick, first_tick + 10)
        assert cut is not None
        assert cut.first_sample == begin * SAMPLES_PER_FRAME
    cut = cut_sound(sound, 40, 50, grid_tick=3)
    assert cut is not None
    assert cut.first_sample == 38 * SAMPLES_PER_FRAME


def test_of_a_cut_that_reaches_beyond_the_sound_there_is_what_there_is():
    sound = ramp(10, 5)
    whole = cut_sound(sound, -20, 200)
    assert whole is not None
    np.testing.assert_array_equal(whole.samples, sound.samples)
    assert whole.first_sample == sound.first_sample
    assert cut_sound(sound, 15, 30) is None
    assert cut_sound(sound, 0, 10) is None


def test_what_was_heard_as_a_whole_is_known_to_the_end():
    sound = ramp(0, 10)
    heard = Heard(sound)
    heard.forget_sound(before_tick=8)
    between = heard.sound_between(0, 5)
    assert between is not None
    np.testing.assert_array_equal(between.samples, sound.samples[: 5 * SAMPLES_PER_FRAME])
    assert heard.heard_until() == np.inf
    assert Heard(None).heard_until() == -np.inf
    assert Heard(None).sound_between(0, 5) is None


def test_only_the_voices_band_is_loud():
    """Tones of one amplitude, below, in and above 200 to 3,400 Hz; digital silence is finite."""
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    ticks = np.arange(2, 23)
    levels_db = {
        hz: loudness_db(Sound((0.5 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32), 0), ticks)
        for hz in (60, 300, 1000, 3000, 6000)
    }
    for hz in (300, 1000, 3000):
        np.testing.assert_allclose(levels_db[hz], 20 * np.log10(0.5) - 3.01, atol=0.1)
    for hz in (60, 6000):
        assert (levels_db[hz] < -50).all()
    silence = loudness_db(Sound(np.zeros(SAMPLE_RATE_HZ, np.float32), 0), ticks)
    assert np.isfinite(silence).all()
    assert (silence < -100).all()


def test_ticks_without_sound_have_no_level_wherever_it_begins():
    samples = np.full(10 * SAMPLES_PER_FRAME, 0.1, np.float32)
    for first_tick in (-3, 0, 40):
        levels_db = loudness_db(Sound(samples, first_tick * SAMPLES_PER_FRAME), np.arange(-10, 60))
        known = np.flatnonzero(np.isfinite(levels_db)) - 10
        np.testing.assert_array_equal(known, np.arange(first_tick, first_tick + 10))
