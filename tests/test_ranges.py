"""Offsets further off than was asked for, and sound of another rate, on scores whose offset is known."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scored import CALIBRATION, make_scores
from test_speakers import face
from test_timeline import jump, ramp

from avsync_cli.container import MediaInfo
from avsync_cli.course import Course
from avsync_cli.findings import add_timeline, judge_looks, report_findings
from avsync_cli.ranges import choose_range
from avsync_cli.rates import SLIGHT, STEEP, Rate, find_steep_rate, name_drift, name_rate
from avsync_cli.scoring import Look
from avsync_cli.spec import TOLERANCES

INFO, LIMITS = MediaInfo(60.0, 25.0), TOLERANCES["itu-detect"]


def looks_of(seconds: float, lead_at, *, fit: float = 0.6, scene_s: int = 10, kept_far=lambda _: True):
    """Looks at a talker, scene by scene, scored at ±15 frames and, where `kept_far`, at ±100 too."""
    ticks, far = make_scores(seconds, lead_at, seed=1, fit=fit, range_frames=100)
    looks = []
    for first in range(0, len(ticks), scene_s * 25):
        scores = far[first : first + scene_s * 25 - 4]
        piece = replace(
            face(0, first_tick=first, seconds=scene_s),
            scores=scores[:, 85:116],
            far_scores=scores.astype(np.float16) if kept_far(first) else None,
        )
        frames = len(scores) + 4
        piece = replace(
            piece,
            boxes=piece.boxes[:frames],
            opening=piece.opening[:frames],
            loudness_db=piece.loudness_db[:frames],
        )
        looks.append(Look(first, first + frames, (piece,)))
    return looks


def judge(looks):
    return add_timeline(judge_looks(looks, CALIBRATION), CALIBRATION)


@pytest.mark.parametrize("lead", [-75.0, -40.0, 25.0, 55.0])
def test_an_offset_of_seconds_is_answered_from_the_wide_range(lead):
    looks = choose_range(looks_of(30, lambda _: lead), CALIBRATION)
    answer = judge(looks).verdict.answer
    assert answer.reason is None
    assert answer.lead_frames == pytest.approx(lead, abs=0.5)


def test_an_offset_within_the_usual_range_is_answered_from_that():
    looks = looks_of(30, lambda _: 3.0)
    assert choose_range(looks, CALIBRATION) is looks


def test_sound_that_fits_nowhere_has_no_answer_in_either_range():
    looks = choose_range(looks_of(30, lambda _: 0.0, fit=0.0), CALIBRATION)
    assert judge(looks).verdict.answer.reason is not None


@pytest.mark.parametrize("cut", [50.0, -50.0])
def test_two_seconds_that_were_cut_out_are_a_step(cut):
    """What fits the usual range keeps no wider scores, as in a real look."""
    looks = choose_range(looks_of(60, jump(30, 0.0, cut), kept_far=lambda first: first >= 750), CALIBRATION)
    (step,) = judge(looks).timeline.course.steps
    assert step.at_s == pytest.approx(30, abs=2)
    assert step.to_frames - step.from_frames == pytest.approx(cut, abs=1)


@pytest.mark.parametrize("rate", STEEP, ids=str)
@pytest.mark.parametrize("start", [-3.0, -20.0])
def test_sound_of_another_frame_rate_is_named(engine, rate, start):
    per_s = rate.ms_per_min / 40 / 60
    looks = looks_of(60, lambda times_s: start + per_s * times_s, scene_s=5)
    found = find_steep_rate(choose_range(looks, CALIBRATION), CALIBRATION)
    assert found.timeline.course.lead_frames == pytest.approx(start, abs=0.6)
    report = name_rate(report_findings("a", INFO, LIMITS, found, engine.student), found)
    assert (report.status, report.course) == ("out_of_sync", "drift")
    assert report.sound_speed == pytest.approx(float(rate.speed))
    assert report.message.startswith(str(rate))
    assert report.audio_lead_ms == pytest.approx(40 * (start + 60 * per_s), abs=60)


def test_a_rate_that_moves_everything_out_of_the_range_is_none():
    late = [replace(look, pieces=()) for look in looks_of(20, lambda _: 0.0)]
    (look,) = looks_of(10, lambda _: 0.0, kept_far=lambda _: False)
    (piece,) = look.pieces
    hours_later = Look(90_000, 90_246, (replace(piece, first_tick=90_000),))
    assert find_steep_rate([*late, hours_later], CALIBRATION) is None


def test_rates_are_said_in_words():
    words = {str(rate) for rate in (*STEEP, *SLIGHT)}
    assert "sound runs 4.27 % fast: 25 for 23.976 frames a second" in words
    assert "sound runs 4.17 % fast: 25 for 24 frames a second" in words
    assert "sound runs 0.1 % slow: 23.976 for 24 frames a second" in words
    assert Rate(Fraction(24), Fraction(25)).ms_per_min == pytest.approx(0.04 * 60_000)


@pytest.mark.parametrize("lead_at", [lambda _: 4.0, jump(30, 0.0, 40.0), ramp(60)])
def test_what_runs_at_its_own_rate_is_given_no_other(lead_at):
    assert find_steep_rate(looks_of(60, lead_at, scene_s=5), CALIBRATION) is None


@pytest.mark.parametrize(
    ("slope", "uncertainty", "speed"),
    [(60.2, 1.0, 1.001), (-59.0, 1.5, 0.999), (62.5, 1.0, None), (60.2, 25.0, None)],
)
def test_a_slight_rate_is_named_only_where_the_slope_is_known(slope, uncertainty, speed):
    rate = name_drift(Course("drift", 0.0, drift_ms_per_min=slope, drift_uncertainty=uncertainty))
    assert (rate is None) == (speed is None)
    assert rate is None or float(rate.speed) == pytest.approx(speed, abs=1e-5)
