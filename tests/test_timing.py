"""Exact time: the grid, the samples and the mel steps agree with plain rational arithmetic."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsync_cli import spec, timing
from avsync_cli.errors import ConfigError
from avsync_cli.timing import parse_time

ticks = st.integers(min_value=-(10**7), max_value=10**7)
times = st.fractions(min_value=-(10**5), max_value=10**5, max_denominator=10**6)


@given(times)
def test_rounding_is_to_the_nearest_and_halves_go_up(value):
    rounded = timing.round_half_up(value)
    assert value - Fraction(1, 2) < rounded <= value + Fraction(1, 2)


@given(ticks)
def test_a_tick_is_a_whole_number_of_samples(tick):
    assert timing.sample_at(timing.tick_time(tick)) == tick * spec.SAMPLES_PER_FRAME


@given(times, st.integers(-1000, 1000))
def test_equal_steps_in_time_stay_equal_in_samples(time_s, samples):
    later = timing.sample_at(time_s + Fraction(samples, spec.SAMPLE_RATE_HZ))
    assert later - timing.sample_at(time_s) == samples


@given(ticks)
def test_mel_steps_lie_within_one_step_of_their_frame(frame):
    exact = Fraction(frame * spec.MEL_STEPS_PER_SECOND, spec.VIDEO_FPS)
    assert 0 <= exact - timing.mel_step_at(frame) < 1


@given(st.integers(0, 10**6))
def test_mel_steps_are_those_of_the_published_evaluation(frame):
    assert timing.mel_step_at(frame) == int(Fraction(80) * frame / 25)


@given(ticks)
def test_five_frames_further_are_sixteen_mel_steps_further(frame):
    assert timing.mel_step_at(frame + spec.WINDOW_FRAMES) - timing.mel_step_at(frame) == spec.WINDOW_MEL_STEPS


def test_a_frame_of_lead_is_forty_milliseconds():
    assert timing.lead_ms(2.0) == 80.0
    assert timing.lead_ms(-0.5) == -20.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("5.25s", 5.25), ("00:00:05", 5), ("1:05.5", 65.5), ("01:00:00", 3600), ("90", 90), ("0", 0)],
)
def test_moments(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "a", "1:60", "1:2:3:4", "1.5:00", "nan", "inf", "1:-2", ":5"])
def test_what_is_no_moment(text):
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        parse_time(text)
