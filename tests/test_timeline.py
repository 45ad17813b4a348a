"""Courses that are known: constant, with edits, drifting; among voices that are not the face's own."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import CALIBRATION, make_scores

from avsync_cli.course import (
    MIN_LEVEL_S,
    STEP_COST,
    Course,
    Step,
    fit_courses,
    is_clear_drift,
    measure_evidence,
)
from avsync_cli.offsets import average_curve, find_peak
from avsync_cli.timeline import make_timeline, straighten, trace_course


def course_of(seconds, lead_at, **options):
    course, _ = trace_course(*make_scores(seconds, lead_at, **options), CALIBRATION)
    assert course is not None
    return course


def ramp(ms_per_min):
    return lambda times_s: ms_per_min / 40 / 60 * times_s


def jump(at_s, before, after):
    return lambda times_s: np.where(times_s < at_s, before, after)


@settings(max_examples=30, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    lead=st.floats(-10, 10),
    seconds=st.integers(5, 90),
    fit=st.sampled_from([0.25, 0.4, 0.6]),
)
def test_a_constant_offset_stays_constant(seed, lead, seconds, fit):
    course = course_of(seconds, lambda _: lead, seed=seed, fit=fit)
    assert course.kind == "constant"
    if seconds >= 20 and fit > 0.25:
        assert course.lead_frames == pytest.approx(lead, abs=0.5)


@settings(max_examples=20, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    at=st.floats(15, 45),
    before=st.floats(-8, 8),
    change=st.sampled_from([-5, -3, 3, 5]),
)
def test_an_edit_is_found_to_the_second(seed, at, before, change):
    course = course_of(60, jump(at, before, before + change), seed=seed)
    assert course.kind == "steps"
    (step,) = course.steps
    assert step.at_s == pytest.approx(at, abs=1.0)
    assert step.from_frames == pytest.approx(before, abs=0.5)
    assert step.to_frames == pytest.approx(before + change, abs=0.5)


@pytest.mark.parametrize("change", [1.0, -1.0])
def test_what_shots_scatter_by_is_no_edit(change):
    course = course_of(300, jump(150, 0.0, change), seed=2)
    assert course.kind == "constant"
    assert abs(course.lead_frames - change / 2) <= 0.75
    far = course_of(300, lambda t: np.select([t < 100, t < 200], [0.0, change], 5 * change), seed=2)
    assert [round(step.at_s) for step in far.steps] == [200]


def test_two_edits_are_two_steps():
    course = course_of(90, lambda t: np.select([t < 30, t < 60], [0.0, 5.0], -2.0), seed=1)
    assert [round(step.at_s) for step in course.steps] == [30, 60]
    np.testing.assert_allclose(course.leads_at(np.array([10.0, 40, 80])), [0, 5, -2], atol=0.5)


@pytest.mark.parametrize("ms_per_min", [-100, -60, 60, 100])
@pytest.mark.parametrize("seed", range(3))
def test_a_drift_is_found_with_its_slope(ms_per_min, seed):
    course = course_of(180, ramp(ms_per_min), seed=seed)
    assert course.kind == "drift"
    assert course.drift_ms_per_min == pytest.approx(ms_per_min, abs=6)
    assert 0 < course.drift_uncertainty < 8


def test_the_stated_uncertainty_of_a_drift_covers_the_truth():
    courses = [course_of(120, ramp(50), seed=seed) for seed in range(16)]
    covered = [abs(each.drift_ms_per_min - 50) <= each.drift_uncertainty for each in courses]
    assert all(each.kind == "drift" for each in courses)
    assert sum(covered) >= 12


@pytest.mark.parametrize("seed", range(6))
def test_a_small_edit_in_half_a_minute_is_no_drift(seed):
    assert course_of(30, jump(18, 0.0, 0.8), seed=seed, fit=0.3).kind != "drift"


@pytest.mark.parametrize(
    ("slope", "uncertainty", "seconds", "clear"),
    [
        (60, 25, 60, True),
        (60, 35, 60, False),
        (60, 25, 30, False),
        (-60, 25, 60, True),
        (-400, 50, 60, False),
    ],
)
def test_a_drift_must_be_sure_and_long_and_not_too_steep(slope, uncertainty, seconds, clear):
    evidence = measure_evidence(*make_scores(seconds, lambda _: 0.0, seed=0))
    course = Course("drift", 0.0, drift_ms_per_min=slope, drift_uncertainty=uncertainty)
    assert is_clear_drift(course, evidence) == clear


def test_the_course_of_a_film_needs_no_copies_of_its_scores():
    """Whatever is as large as the scores is made once at a time, and nothing is larger."""
    ticks, scores = np.arange(20_000), np.zeros((20_000, 201), np.float32)
    scores += np.random.default_rng(0).standard_normal(201).astype(np.float32)
    course = Course("drift", 0.0, drift_ms_per_min=10)
    tracemalloc.start()
    peaks = []
    for compute in (
        lambda: measure_evidence(ticks, scores),
        lambda: straighten(ticks, scores, course, reference_frames=0.0),
    ):
        tracemalloc.reset_peak()
        compute()
        peaks.append(tracemalloc.get_traced_memory()[1] / scores.nbytes)
    tracemalloc.stop()
    assert max(peaks) < 2.5


def test_what_is_nearly_an_edit_is_a_less_certain_constant():
    """A lead that is halfway elsewhere for a while too short or too little to be told."""
    near = [course_of(30, jump(15, 0.0, 0.6), seed=seed, fit=0.3) for seed in range(8)]
    constants = [course for course in near if course.kind == "constant"]
    assert len(constants) >= 2
    assert any(course.spread_frames >= 0.2 for course in constants)
    sure = course_of(60, lambda _: 0.3, seed=0)
    assert (sure.kind, sure.spread_frames) == ("constant", 0.0)


@settings(max_examples=15, derandomize=True)
@given(seed=st.integers(0, 10**6), first=st.floats(0, 40), length=st.floats(4, 18))
def test_another_voice_for_a_while_is_no_edit(seed, first, length):
    course = course_of(60, lambda _: 2.0, seed=seed, foreign_s=(first, first + length))
    assert course.kind == "constant"
    assert course.lead_frames == pytest.approx(2.0, abs=0.5)


def test_an_edit_is_found_beside_another_voice():
    course = course_of(80, jump(30, 0.0, 5.0), seed=3, foreign_s=(45, 60))
    (step,) = course.steps
    assert step.at_s == pytest.approx(30, abs=1.0)


def test_seconds_that_were_not_looked_at_widen_where_an_edit_may_lie():
    ticks, scores = make_scores(60, jump(30, 0.0, 5.0), seed=0)
    seen = (ticks < 20 * 25) | (ticks >= 40 * 25)
    course, kept = trace_course(ticks[seen], scores[seen], CALIBRATION)
    (step,) = course.steps
    assert abs(step.at_s - 30) <= step.uncertainty_s
    assert step.uncertainty_s >= 9.5
    assert kept.all()


def test_the_order_of_the_windows_does_not_matter():
    ticks, scores = make_scores(40, jump(20, 0.0, 4.0), seed=2)
    order = np.random.default_rng(0).permutation(len(ticks))
    assert (
        trace_course(ticks[order], scores[order], CALIBRATION)[0]
        == trace_course(ticks, scores, CALIBRATION)[0]
    )


def test_no_scores_have_no_course():
    empty = np.full((30, 31), np.nan, np.float32)
    course, kept = trace_course(np.arange(30), empty, CALIBRATION)
    assert course is None
    assert not kept.any()
    assert make_timeline(np.arange(30), empty, CALIBRATION).parts == ()


def test_straightened_scores_peak_at_the_reference_throughout():
    ticks, scores = make_scores(60, jump(30, -4.0, 5.0), seed=0)
    course = Course("steps", -4.0, steps=(Step(30.0, 0.5, -4.0, 5.0),))
    straight = straighten(ticks, scores, course, reference_frames=1.0)
    for half in (ticks < 750, ticks >= 750):
        assert find_peak(average_curve(straight[half])).lead_frames == pytest.approx(1.0, abs=0.5)
    assert np.flatnonzero(np.isnan(straight[0])).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(np.isnan(straight[800])).tolist() == [27, 28, 29, 30]


def test_the_points_of_a_timeline_are_the_answers_of_their_seconds():
    timeline = make_timeline(*make_scores(35, jump(20, 0.0, 5.0), seed=5), CALIBRATION, every_s=10)
    assert [(point.start_s, point.end_s) for point in timeline.points] == [
        (0, 10),
        (10, 20),
        (20, 30),
        (30, pytest.approx(35, abs=0.2)),
    ]
    leads = [point.answer.lead_frames for point in timeline.points]
    assert leads == pytest.approx([0, 0, 5, 5], abs=0.7)
    assert [part.answer.lead_frames for part in timeline.parts] == pytest.approx([0, 5], abs=0.4)


def test_a_timeline_keeps_to_what_was_seen():
    ticks, scores = make_scores(1.08, lambda _: 0.0, seed=0)  # the windows of 31 pictures
    (point,) = make_timeline(ticks + 125, scores, CALIBRATION, every_s=10).points
    assert (point.start_s, point.end_s) == (5.0, 6.24)


def test_the_ends_of_a_drift_have_their_own_leads():
    timeline = make_timeline(*make_scores(180, ramp(80), seed=5), CALIBRATION)
    assert timeline.course.kind == "drift"
    assert [part.start_s for part in timeline.parts] == pytest.approx([0, 180], abs=1)
    assert [part.answer.lead_frames for part in timeline.parts] == pytest.approx([0, 6], abs=0.6)
    level = make_timeline(*make_scores(180, lambda _: 0.0, seed=5), CALIBRATION).points
    wider_ms = 1.5 * timeline.course.drift_uncertainty
    for part in timeline.parts:
        assert part.answer.uncertainty_ms > wider_ms + 0.2 * min(each.answer.uncertainty_ms for each in level)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), bins=st.integers(8, 14))
def test_the_best_steps_are_those_of_a_search_through_all(seed, bins):
    """One step at most: every place for it and all pairs of levels, against the dynamic programme."""
    rng = np.random.default_rng(seed)
    ticks, scores = make_scores(bins, jump(bins / 2, 0.0, float(rng.integers(0, 6))), seed=seed)
    evidence = measure_evidence(ticks, scores)
    (_, constant), (value, course) = fit_courses(evidence)[:2]
    price = STEP_COST * np.log(bins)
    best = evidence.logs.sum(axis=0).max()
    for at in range(MIN_LEVEL_S, bins - MIN_LEVEL_S + 1):
        both = evidence.logs[:at].sum(axis=0).max() + evidence.logs[at:].sum(axis=0).max()
        best = max(best, both - price)
    if course.kind == "constant":  # none, or one too small to count
        assert value <= best + 1e-6
    elif len(course.steps) == 1:
        assert value == pytest.approx(best)
    else:
        assert value > best
    assert constant.kind == "constant"


def test_the_range_of_a_course_holds_all_that_it_is_within():
    steps = Course("steps", 0.0, steps=(Step(12.0, 0.5, 0.0, -5.0), Step(15.0, 0.5, -5.0, 2.0)))
    assert steps.range_within(10, 20) == (-5.0, 2.0)
    assert steps.range_within(0, 10) == (0.0, 0.0)
    assert steps.range_within(12, 14) == (-5.0, -5.0)
    drift = Course("drift", 1.0, origin_s=30.0, drift_ms_per_min=240.0)  # a tenth of a frame a second
    assert drift.range_within(20, 40) == pytest.approx((0.0, 2.0))
