"""The scan against slow loops, planted offsets and the edges of the range."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsync_cli.confidence import curve_features
from avsync_cli.offsets import average_curve, find_peak, score_offsets
from avsync_cli.sound import Sound, loudness_db
from avsync_cli.speech import has_speech


def dot(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    return np.einsum("pd,pd->p", video, audio)


def pairs(windows: int, sounds: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((windows, 8), np.float32), rng.standard_normal((sounds, 8), np.float32)


@given(
    windows=st.integers(0, 20),
    sounds=st.integers(0, 40),
    video_tick=st.integers(-30, 30),
    audio_tick=st.integers(-30, 30),
)
def test_scores_equal_a_slow_loop(windows, sounds, video_tick, audio_tick):
    video, audio = pairs(windows, sounds)
    scores = score_offsets(video, audio, first_tick_video=video_tick, first_tick_audio=audio_tick, score=dot)
    assert scores.shape == (windows, 31)
    for row in range(windows):
        for column in range(31):
            lead = column - 15
            heard = video_tick + row - lead - audio_tick
            if 0 <= heard < sounds:
                assert scores[row, column] == pytest.approx(video[row] @ audio[heard], rel=1e-5, abs=1e-5)
            else:
                assert np.isnan(scores[row, column])


def test_pairs_are_scored_a_bounded_number_at_a_time():
    video, audio = pairs(300, 340)
    sizes = []

    def counting(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
        sizes.append(len(video))
        return dot(video, audio)

    scores = score_offsets(video, audio, first_tick_video=0, first_tick_audio=-20, score=counting)
    assert sum(sizes) == np.isfinite(scores).sum() == 300 * 31
    assert max(sizes) < 2000
    assert scores[299, 0] == pytest.approx(video[299] @ audio[299 + 15 + 20], rel=1e-5)


@given(st.integers(-14, 14))
def test_a_planted_lead_is_found_with_its_sign(lead):
    """Sound early by `lead` frames: what fits tick t is heard at tick t - lead."""
    rng = np.random.default_rng(1)
    events = rng.standard_normal((120, 8)).astype(np.float32)
    video = events[40:80]  # ticks 40..79
    scores = score_offsets(video, events, first_tick_video=40, first_tick_audio=-lead, score=dot)
    peak = find_peak(average_curve(scores))
    assert peak is not None
    assert not peak.at_edge
    assert peak.lead_frames == pytest.approx(lead, abs=0.5)


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_an_average_equals_a_slow_loop(windows, seed):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((windows, 31)).astype(np.float32)
    scores[rng.random((windows, 31)) < 0.5] = np.nan
    scores[0] = np.nan
    counted = [row for row in scores if np.isfinite(row).any()]
    curve = average_curve(scores)
    for column in range(31):
        values = [row[column] - np.nanmean(row) for row in counted if np.isfinite(row[column])]
        if values:
            assert curve[column] == pytest.approx(sum(values) / len(counted), abs=1e-5)
        else:
            assert np.isnan(curve[column])


def test_where_all_windows_have_all_offsets_the_average_is_the_mean():
    scores = np.random.default_rng(0).standard_normal((9, 31)).astype(np.float32)
    mean = scores.mean(axis=0)
    np.testing.assert_allclose(average_curve(scores), mean - mean.mean(), atol=1e-5)


def test_the_average_of_a_film_needs_little_memory():
    scores = np.random.default_rng(0).standard_normal((20_000, 201)).astype(np.float32)
    tracemalloc.start()
    curve = average_curve(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * scores.nbytes
    np.testing.assert_allclose(curve, scores.mean(axis=0) - scores.mean(), atol=1e-5)


def test_an_offset_that_few_windows_speak_for_does_not_win():
    scores = np.zeros((20, 31), np.float32)
    scores[:, 15] = 1.0
    scores[:, 28:] = np.nan
    scores[0, 28] = 1.5
    assert np.nanargmax(average_curve(scores)) == 15


@given(st.floats(-13.4, 13.4), st.floats(0.05, 2.0))
def test_the_peak_of_a_sampled_parabola_is_exact(lead, bend):
    curve = (-bend * (np.arange(-15, 16) - lead) ** 2).astype(np.float32)
    peak = find_peak(curve)
    assert peak is not None
    assert peak.lead_frames == pytest.approx(lead, abs=0.02)


@pytest.mark.parametrize("best", [0, 30])
def test_the_edge_of_the_range_is_not_an_answer(best):
    curve = np.zeros(31, np.float32)
    curve[best] = 1
    peak = find_peak(curve)
    assert peak is not None
    assert peak.at_edge


def test_a_peak_beside_nothing_is_at_the_edge():
    curve = np.full(31, np.nan, np.float32)
    curve[4:9] = [5, 4, 3, 2, 1]
    peak = find_peak(curve)
    assert peak is not None
    assert peak.at_edge
    assert find_peak(np.full(31, np.nan, np.float32)) is None


@pytest.mark.parametrize("windows", [96, 384])
def test_features_are_height_and_margin_and_agreement(windows):
    row = np.zeros(31, np.float32)
    row[[12, 13, 14, 25]] = [0.9, 1.0, 0.9, 0.6]
    scores = np.tile(row, (windows, 1))
    unit = 10 / np.sqrt(windows)
    expected = [1, 1.0 / unit, 0.4 / unit, np.log(windows), 1.0, 1.0 / 5]
    assert curve_features(scores, average_curve(scores)) == pytest.approx(expected, rel=1e-4)
    scores[: windows // 4] = np.roll(scores[: windows // 4], 6, axis=1)  # a quarter says something else
    assert curve_features(scores, average_curve(scores))[4] == 0.75


def test_the_level_tells_scores_that_are_high_from_scores_that_stand_out():
    """What is added to every offset changes no curve, but a peak among scores below 0 is no good fit."""
    row = np.zeros(31, np.float32)
    row[13] = 1.0
    high, low = np.tile(row, (50, 1)), np.tile(row - 2.0, (50, 1))
    features = [curve_features(scores, average_curve(scores)) for scores in (high, low)]
    assert features[0][:5] == pytest.approx(features[1][:5], abs=1e-5)
    assert features[0][5] - features[1][5] == pytest.approx(2.0 / 5)


def test_silence_hum_and_no_sound_are_no_speech():
    ticks = np.arange(0, 50)
    time_s = np.arange(32_000) / 16_000
    rng = np.random.default_rng(0)
    voice = 0.1 * rng.standard_normal(32_000) * (np.sin(2 * np.pi * 4 * time_s) > 0)
    assert has_speech(loudness_db(Sound(voice.astype(np.float32), 0), ticks))
    assert not has_speech(loudness_db(Sound(voice.astype(np.float32) * 1e-4, 0), ticks))
    assert not has_speech(
        loudness_db(Sound((0.3 * np.sin(2 * np.pi * 50 * time_s)).astype(np.float32), 0), ticks)
    )
    for hum_hz in (50, 60, 100):
        hum = 3 * np.sin(2 * np.pi * hum_hz * time_s)  # 30 dB above the voice
        assert has_speech(loudness_db(Sound((0.1 * (voice + hum)).astype(np.float32), 0), ticks))
    assert not has_speech(loudness_db(Sound(np.zeros(32_000, np.float32), 0), ticks))
    assert not has_speech(loudness_db(Sound(voice.astype(np.float32), 10**6), ticks))
