"""Answers from scores made by hand: what is given, and what is refused for which reason."""

from dataclasses import replace

import numpy as np
import pytest

from avsync_cli.answers import Answer, agree, answer_scores, choose_answer, is_enough
from avsync_cli.confidence import Calibration

CALIBRATION = Calibration(
    weights=(-4.0, 0.0, 12.0, 0.0, 0.0, 0.0), min_confidence=0.5, spread_ms=(20.0, 100.0)
)


def scores_with_peak(*, height: float, column: int, windows: int) -> np.ndarray:
    scores = np.zeros((windows, 31), np.float32)
    scores[:, column] = height
    return scores


@pytest.mark.parametrize(
    ("height", "column", "windows", "reason"),
    [
        (1.0, 15, 60, None),
        (0.01, 15, 60, "low_confidence"),
        (1.0, 30, 60, "beyond_range"),
        (1.0, 0, 60, "beyond_range"),
        (0.01, 0, 60, "low_confidence"),
        (1.0, 15, 20, "too_short"),
    ],
)
def test_refusals(height, column, windows, reason):
    answer = answer_scores(scores_with_peak(height=height, column=column, windows=windows), CALIBRATION)
    assert answer.reason == reason
    assert answer.lead_frames == column - 15


def test_no_windows_are_too_short():
    assert answer_scores(np.zeros((0, 31), np.float32), CALIBRATION).reason == "too_short"


def test_long_and_clearly_nothing_is_no_match_and_short_or_doubtful_is_not():
    row = np.zeros(31, np.float32)
    row[13] = 0.1
    calibration = Calibration((-4.0, 0.0, 12.0, 0.0, 0.0, 0.0), 0.5, (20.0, 100.0), no_match_confidence=0.2)
    assert answer_scores(np.tile(row, (75, 1)), calibration).reason == "no_match"
    assert answer_scores(np.tile(row, (74, 1)), calibration).reason == "low_confidence"
    doubtful = Calibration((-1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.5, (20.0, 100.0), no_match_confidence=0.2)
    assert answer_scores(np.tile(row, (75, 1)), doubtful).reason == "low_confidence"


def test_a_reliable_answer_goes_before_a_surer_refusal():
    reliable = answer_scores(scores_with_peak(height=0.5, column=15, windows=60), CALIBRATION)
    refused = answer_scores(scores_with_peak(height=2.0, column=30, windows=60), CALIBRATION)
    assert refused.confidence > reliable.confidence
    assert choose_answer([refused, reliable]) == 1


def test_all_faces_together_go_before_the_surest_one():
    faces = [answer_scores(scores_with_peak(height=h, column=15, windows=60), CALIBRATION) for h in (1, 2)]
    weak = answer_scores(scores_with_peak(height=0.01, column=15, windows=120), CALIBRATION)
    assert choose_answer(faces, faces[0]) is None
    assert choose_answer(faces, weak) == 1


def test_one_sure_shot_does_not_outvote_the_others():
    """Many shots with another sound: whatever the surest says, the others say something else."""
    columns = (3, 8, 12, 19, 24)
    faces = [answer_scores(scores_with_peak(height=1, column=c, windows=40), CALIBRATION) for c in columns]
    together = answer_scores(scores_with_peak(height=0.01, column=3, windows=200), CALIBRATION)
    assert together.reason == "low_confidence"
    assert choose_answer(faces, together) is None


def test_only_windows_that_have_sound_count():
    scores = scores_with_peak(height=1.0, column=15, windows=250)
    scores[8:] = np.nan
    answer = answer_scores(scores, CALIBRATION)
    assert (answer.windows, answer.reason) == (8, "too_short")


def answer_at(lead_frames: float | None, *, confidence: float = 0.995) -> Answer:
    reason = "too_short" if lead_frames is None else None
    return Answer(np.zeros(31, np.float32), 60, lead_frames, confidence, 20.0, reason)


def test_of_several_reasons_the_first_is_told():
    """Too short goes before all others, and no confidence before the edge of the range."""
    sure, unsure = 1.0, 0.01
    for height, column, windows, reason in (
        (unsure, 30, 20, "too_short"),
        (sure, 30, 20, "too_short"),
        (unsure, 30, 60, "low_confidence"),
        (sure, 30, 60, "beyond_range"),
    ):
        scores = scores_with_peak(height=height, column=column, windows=windows)
        assert answer_scores(scores, CALIBRATION).reason == reason


def test_a_second_of_pictures_is_enough_and_a_picture_less_is_not():
    """A window has five pictures, so 21 windows have 25."""
    for windows, reason in ((20, "too_short"), (21, None)):
        scores = scores_with_peak(height=1.0, column=18, windows=windows)
        assert answer_scores(scores, CALIBRATION).reason == reason


def test_short_answers_have_to_be_surer():
    scores = scores_with_peak(height=0.6, column=15, windows=60)
    strict = replace(CALIBRATION, short_confidence=((61, 0.9999),))
    assert answer_scores(scores, CALIBRATION).reason is None
    assert answer_scores(scores, strict).reason == "low_confidence"
    assert answer_scores(scores, replace(strict, short_confidence=((60, 0.9999),))).reason is None


def test_a_lead_between_two_offsets_is_where_the_parabola_has_its_top():
    """Scores of a parabola with its top at 3.3 frames."""
    offsets = np.arange(-15, 16)
    scores = np.tile(-((offsets - 3.3) ** 2) / 100, (60, 1)).astype(np.float32)
    assert answer_scores(scores, CALIBRATION).lead_frames == pytest.approx(3.3, abs=1e-3)


def test_of_equal_answers_the_surest_is_chosen_unless_most_windows_say_otherwise():
    one, other = answer_at(2.0, confidence=0.7), answer_at(2.5, confidence=0.9)
    assert choose_answer([one, other]) == 1
    assert choose_answer([other, one]) == 0
    apart = [answer_at(2.0, confidence=0.99), answer_at(9.0, confidence=0.7), answer_at(9.0, confidence=0.8)]
    unsure = replace(answer_at(9.0), reason="low_confidence")
    assert choose_answer(apart) == 0
    assert choose_answer(apart, unsure) is None


def test_answers_agree_to_one_frame_and_none_agrees_with_none():
    assert agree(answer_at(2.0), answer_at(3.0))
    assert agree(answer_at(3.0), answer_at(2.0))
    assert not agree(answer_at(2.0), answer_at(3.01))
    assert not agree(answer_at(None), answer_at(None))
    assert not agree(answer_at(0.0), answer_at(None))


@pytest.mark.parametrize(
    ("leads", "enough"),
    [
        ((4.0, 4.4, 3.6), True),
        ((4.0, 4.4), False),  # too few
        ((4.0, 4.4, 9.0), False),  # two of three, but three are needed
        ((4.0, 4.4, 3.6, 9.0), True),
        ((4.0, 4.4, 3.6, 9.0, -7.0), False),  # three of five are less than two thirds
        ((4.0, 4.0, 4.0, None), True),
        ((), False),
    ],
)
def test_passages_are_enough_when_three_and_two_thirds_agree(leads, enough):
    passages = [answer_at(lead) for lead in leads]
    assert is_enough(answer_at(4.0), passages) is enough


def test_no_passages_are_enough_for_an_answer_that_is_not_sure():
    passages = [answer_at(4.0)] * 4
    assert is_enough(answer_at(4.0, confidence=0.99), passages)
    assert not is_enough(answer_at(4.0, confidence=0.98), passages)
    assert not is_enough(replace(answer_at(4.0), reason="beyond_range"), passages)
    assert not is_enough(None, passages)
