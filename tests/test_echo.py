"""A voice that is heard twice fits twice: no offset is given, and both are named."""

from dataclasses import replace

import numpy as np
import pytest
from scored import CALIBRATION, make_scores
from test_findings import INFO, LIMITS, find
from test_speakers import face

from avsync_cli.answers import answer_scores
from avsync_cli.findings import add_timeline, report_findings


def echoed(delay_frames: float, *, seed: int, seconds: float = 8.0, level: float = 1.0) -> np.ndarray:
    """Scores of a voice at a lead of 2 frames, heard again later: scores are linear in what is heard."""
    voice, again = (
        make_scores(seconds, lambda _, lead=lead: lead, seed=seed)[1] for lead in (2.0, 2.0 - delay_frames)
    )
    return (voice + level * again) / (1 + level)


@pytest.mark.parametrize("delay_frames", [6.25, 10.0])
def test_a_voice_that_is_heard_twice_names_both_offsets(delay_frames):
    for seed in range(6):
        answer = answer_scores(echoed(delay_frames, seed=seed), CALIBRATION)
        assert answer.reason == "low_confidence"
        assert answer.confidence <= 0.5
        named = sorted([answer.lead_frames, answer.rival_frames])
        assert named == pytest.approx([2.0 - delay_frames, 2.0], abs=0.6)


def test_a_faint_echo_an_edit_and_a_voice_alone_have_one_offset():
    for seed in range(12):
        faint = answer_scores(echoed(6.25, seed=seed, level=0.25), CALIBRATION)
        edit = make_scores(16.0, lambda times_s: np.where(times_s < 8, 2.0, -4.0), seed=seed)[1]
        alone = make_scores(4.0, lambda _: 2.0, seed=seed)[1]
        assert faint.rival_frames is None
        assert answer_scores(edit, CALIBRATION).rival_frames is None
        assert answer_scores(alone, CALIBRATION).rival_frames is None


def test_an_echo_is_told_with_both_of_its_offsets(engine):
    voice, again = (make_scores(10, lambda _, lead=lead: lead, seed=3)[1] for lead in (0.0, -6.25))
    found = add_timeline(find(replace(face(0), scores=(voice + again) / 2)), CALIBRATION)
    report = report_findings("a.mp4", INFO, LIMITS, found, engine.student)
    assert (report.status, report.reason, report.audio_lead_ms) == ("undetermined", "low_confidence", None)
    assert sorted(report.candidate_leads_ms) == pytest.approx([-250, 0], abs=25)
    assert "echo" in report.message
    for lead_ms in report.candidate_leads_ms:
        assert f"{lead_ms:+.0f} ms" in report.message
