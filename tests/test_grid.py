"""Which picture each tick of the grid shows: the nearest one, if it is near enough."""

from fractions import Fraction

import av
from hypothesis import given
from hypothesis import strategies as st

from avsync_cli.grid import show_pictures

HOLD_S = Fraction(1, 2)
STEPS_S = st.lists(st.fractions(min_value=Fraction(1, 1000), max_value=3, max_denominator=9000), max_size=8)


def make_frames(times_s):
    return ((time_s, av.VideoFrame(16, 16, "yuv420p")) for time_s in times_s)


@given(
    first_s=st.fractions(min_value=-2, max_value=2, max_denominator=900),
    steps_s=STEPS_S,
    tick=st.integers(-9, 9),
)
def test_a_tick_shows_the_nearest_picture_and_none_that_is_far(first_s, steps_s, tick):
    times_s = [first_s]
    for step_s in steps_s:
        times_s.append(times_s[-1] + step_s)
    shown = {
        picture.tick: Fraction(picture.tick, 25) + Fraction(picture.late_ms) / 1000
        for picture in show_pictures(make_frames(times_s), None, first_tick=tick)
    }
    end_s = min(steps_s[-1] if steps_s else Fraction(1, 25), HOLD_S) / 2  # that the last one lasts
    for number in range(tick, 26 * 25):
        at_s = Fraction(number, 25)
        nearest_s = min(times_s, key=lambda time_s: abs(time_s - at_s))
        is_shown = abs(nearest_s - at_s) <= HOLD_S and at_s < times_s[-1] + end_s - Fraction(1, 10**6)
        assert (number in shown) == is_shown, number
        if is_shown:
            assert abs(abs(float(shown[number]) - number / 25) - abs(nearest_s - at_s)) < 1e-9


def test_pictures_that_are_years_apart_take_no_time():
    times_s = [Fraction(0), Fraction(10**12), Fraction(10**15, 7)]
    ticks = [picture.tick for picture in show_pictures(make_frames(times_s), None, first_tick=0)]
    assert ticks[:13] == list(range(13))
    assert len(ticks) < 60
