"""From faces to the report: whose timeline it is, and what it may replace."""

from dataclasses import replace

import numpy as np
import pytest
from scored import CALIBRATION, make_scores
from test_speakers import caller, face
from test_timeline import jump

from avsync_cli.container import MediaInfo
from avsync_cli.display import print_report
from avsync_cli.findings import Findings, add_timeline, judge_looks, report_findings
from avsync_cli.scoring import FacePiece, Look
from avsync_cli.spec import TOLERANCES

INFO, LIMITS = MediaInfo(60.0, 25.0), TOLERANCES["itu-detect"]


def find(*pieces: FacePiece, speaker: str | int = "auto") -> Findings:
    return judge_looks([Look(0, 2000, pieces)], CALIBRATION, speaker=speaker)


def answered_from(findings: Findings, place: int) -> Findings:
    """The same, had all of them together not been reliable and this face the surest."""
    verdict = replace(findings.verdict, used=place, answer=findings.speakers[place].answer)
    return replace(findings, verdict=verdict)


def test_the_timeline_is_that_of_the_one_face_that_was_answered_from():
    found = answered_from(find(face(0, lead=3.0), face(1, lead=None, first_tick=500, seconds=40)), 0)
    assert found.verdict.heard == (0, 1)
    timeline = add_timeline(found, CALIBRATION).timeline
    assert max(point.end_s for point in timeline.points) <= 10.5


def test_an_edit_between_the_shots_of_two_faces_is_answered_from_both():
    found = answered_from(find(face(0, lead=3.0), face(1, lead=-6.0, first_tick=500)), 0)
    drawn = add_timeline(found, CALIBRATION)
    assert [part.answer.lead_frames for part in drawn.timeline.parts] == pytest.approx([3, -6], abs=0.4)
    assert drawn.verdict.used is None


def test_faces_in_view_together_that_differ_are_both_named(engine):
    """No edit is seen in their turns, and the lead is that of the face furthest out."""
    found = add_timeline(find(caller(0, 0.2, (0, 10)), caller(1, 5.0, (10, 20))), CALIBRATION)
    report = report_findings("a.mp4", INFO, LIMITS, found, engine.student)
    assert (report.status, report.direction) == ("out_of_sync", "audio_leads")
    assert report.audio_lead_ms == pytest.approx(200, abs=16)
    assert report.steps == ()
    assert [each.speaker for each in report.differing_faces] == [1, 2]
    assert [each.audio_lead_ms for each in report.differing_faces] == pytest.approx([8, 200], abs=16)
    assert "face 1" in report.message
    assert "face 2: audio leads video by" in report.message
    assert [track.speaking for track in report.tracks] == [True, True]


def test_one_delay_is_not_offered_where_faces_differ(engine, capsys):
    found = add_timeline(find(caller(0, 0.2, (0, 10)), caller(1, 5.0, (10, 20))), CALIBRATION)
    print_report(report_findings("a.mp4", INFO, LIMITS, found, engine.student))
    assert "to fix" not in capsys.readouterr().out


def test_halves_that_disagree_make_a_constant_less_certain(engine):
    drawn = add_timeline(find(face(0, lead=1.0)), CALIBRATION)
    assert drawn.timeline.course.kind == "constant"
    doubted = replace(drawn.timeline, course=replace(drawn.timeline.course, spread_frames=0.5))
    sure, unsure = (
        report_findings("a.mp4", INFO, LIMITS, found, engine.student)
        for found in (drawn, replace(drawn, timeline=doubted))
    )
    assert unsure.uncertainty_ms == pytest.approx(sure.uncertainty_ms + 20)


def test_a_face_without_speech_keeps_its_reason_whatever_its_course(engine):
    _, scores = make_scores(60, jump(30, 0.0, 5.0), seed=0)
    found = find(replace(face(0, seconds=60), scores=scores), speaker=1)
    silent = replace(found.verdict, answer=replace(found.verdict.answer, reason="no_speech"))
    drawn = add_timeline(replace(found, verdict=silent), CALIBRATION)
    assert len(drawn.timeline.parts) == 2
    report = report_findings("a.mp4", INFO, LIMITS, drawn, engine.student)
    assert (report.status, report.reason, report.steps) == ("undetermined", "no_speech", ())
    assert np.isfinite(report.confidence)
