"""Who speaks, with faces whose scores and lips are made: talking, listening, still, dubbed."""

from dataclasses import replace

import numpy as np
import pytest
from scored import CALIBRATION, make_scores

from avsync_cli import ConfigError
from avsync_cli.findings import judge_looks
from avsync_cli.scoring import FacePiece, Look
from avsync_cli.speakers import STILL_MOTION, measure_motion, parse_speaker

VOICE_DB = 20 * np.abs(np.sin(np.arange(10_000))).astype(np.float32) - 40


def face(
    number: int,
    *,
    lead: float | None = 0.0,
    motion: float = 0.2,
    first_tick: int = 0,
    seconds: float = 10.0,
    silent: bool = False,
    seed: int | None = None,
) -> FacePiece:
    """A face whose mouth goes with the sound at `lead`, with another's sound where that is None."""
    seed = number if seed is None else seed
    _, scores = make_scores(seconds, lambda _: lead or 0.0, seed=seed, fit=0.0 if lead is None else 0.5)
    ticks = len(scores) + 4
    boxes = np.tile(np.array([100 * number, 0, 100 * number + 80, 90], np.float32), (ticks, 1))
    opening = motion * np.random.default_rng(seed).standard_normal(ticks).astype(np.float32)
    levels_db = np.full(ticks, -90, np.float32) if silent else VOICE_DB[:ticks]
    return FacePiece(number, first_tick, scores, boxes, opening, levels_db)


def judge(*pieces: FacePiece, speaker: str | int = "auto"):
    return judge_looks([Look(0, 1000, pieces)], CALIBRATION, speaker=speaker)


def test_one_voice_beside_a_listener_is_answered_from_who_speaks():
    found = judge(face(0, lead=None), face(1, lead=4.0))
    assert [each.speaking for each in found.speakers] == [False, True]
    assert found.verdict.heard == (1,)
    assert found.verdict.used == 1
    assert found.verdict.answer.lead_frames == pytest.approx(4.0, abs=0.4)


def test_two_who_speak_are_heard_together():
    found = judge(face(0, lead=3.0), face(1, lead=3.0, seed=9))
    assert [each.speaking for each in found.speakers] == [True, True]
    assert found.verdict.heard == (0, 1)
    assert found.verdict.used is None
    assert found.verdict.answer.confidence >= max(each.answer.confidence for each in found.speakers)


def test_of_two_offsets_in_one_view_the_surer_is_the_voice():
    """By its length: the same face in the same view says more of 20 s than of 2."""
    short, long = face(0, lead=-4.0, seconds=4), face(1, lead=3.0, seconds=20)
    together = judge(short, long)
    assert [each.answer.reason for each in together.speakers] == [None, None]  # each could be relied on
    assert [each.speaking for each in together.speakers] == [False, True]
    assert together.verdict.answer.lead_frames == pytest.approx(3.0, abs=0.4)
    # One after the other they may both be right: an edit lies between them.
    apart = judge(short, face(1, lead=3.0, seconds=20, first_tick=200))
    assert [each.speaking for each in apart.speakers] == [True, True]


def caller(number: int, lead: float, spoken_s: tuple[float, float], *, seconds: float = 20) -> FacePiece:
    """A face in view for all of the time, whose voice is heard in a part that begins or ends with it."""
    foreign_s = (spoken_s[1], seconds) if spoken_s[0] == 0 else (0.0, spoken_s[0])
    _, scores = make_scores(seconds, lambda _: lead, seed=number, foreign_s=foreign_s)
    return replace(face(number, seconds=seconds), scores=scores)


@pytest.mark.parametrize("ends_s", [10, 14])
def test_who_speaks_while_the_surer_one_is_silent_speaks(ends_s):
    """Two on a call, with delays of 17 and 71 ms: each by turns."""
    found = judge(caller(0, 17 / 40, (0, ends_s)), caller(1, 71 / 40, (ends_s, 20)))
    assert [each.speaking for each in found.speakers] == [True, True]
    leads = [each.answer.lead_frames for each in found.speakers]
    assert leads == pytest.approx([17 / 40, 71 / 40], abs=0.4)


def test_faces_in_view_together_may_differ():
    found = judge(caller(0, 0.0, (0, 10)), caller(1, 4.0, (10, 20)))
    assert found.verdict.differing == (0, 1)
    assert found.verdict.used in (0, 1)
    level = judge(caller(0, 2.0, (0, 10)), caller(1, 2.0, (10, 20)))
    assert level.verdict.differing == ()
    assert [each.speaking for each in level.speakers] == [True, True]
    assert level.verdict.answer.lead_frames == pytest.approx(2.0, abs=0.4)


def test_two_who_differ_in_one_short_look_do_not_speak_for_a_long_file():
    pair = Look(0, 250, (caller(0, 0.0, (0, 5), seconds=10), caller(1, 4.0, (5, 10), seconds=10)))
    others = [
        Look(first, first + 500, (face(0, lead=2.0, seconds=20, first_tick=first, seed=first),))
        for first in range(1000, 8000, 1000)
    ]
    found = judge_looks([pair, *others], CALIBRATION)
    assert found.verdict.differing == ()
    assert found.verdict.used is None
    assert found.verdict.answer.lead_frames == pytest.approx(2.0, abs=0.4)
    assert judge_looks([pair, others[0]], CALIBRATION).verdict.differing == (0, 1)
    call = Look(0, 500, (caller(0, 0.0, (0, 10)), caller(1, 4.0, (10, 20))))
    assert judge_looks([call, *others], CALIBRATION).verdict.differing == (0, 1)


@pytest.mark.parametrize("seed", range(8))
def test_who_listens_throughout_is_not_called_a_speaker(seed):
    """A mouth that moves beside a speaker, and beside his pauses, with nothing that fits it."""
    listener = face(1, lead=None, seconds=20, seed=100 + seed)
    for speaker in (face(0, lead=3.0, seconds=20, seed=seed), caller(0, 3.0, (0, 10))):
        found = judge(speaker, listener)
        assert [each.speaking for each in found.speakers] == [True, False]
        assert found.verdict.differing == ()


def test_a_voice_from_off_has_no_visible_speaker_even_if_a_curve_has_a_peak():
    found = judge(face(0, lead=3.0, motion=0.01), face(1, lead=None, motion=0.02))
    assert [each.speaking for each in found.speakers] == [False, False]
    assert found.verdict.answer.reason == "no_visible_speaker"
    assert found.verdict.heard == ()


def test_a_mouth_that_moves_with_another_voice_is_not_called_a_speaker():
    found = judge(face(0, lead=None, seconds=20))
    assert found.speakers[0].speaking is None
    assert found.verdict.answer.reason == "low_confidence"


def test_who_is_alone_in_view_may_speak_while_another_shot_is_sure():
    """A face is a listener only beside one that speaks: this one is seen at another time."""
    found = judge(face(0, lead=2.0), face(1, lead=None, first_tick=400))
    assert [each.speaking for each in found.speakers] == [True, None]
    assert found.verdict.heard == (0, 1)
    assert found.verdict.answer.lead_frames == pytest.approx(2.0, abs=0.4)


def test_silence_goes_before_still_mouths_as_the_reason():
    silent = [face(number, lead=None, silent=True, motion=0.0) for number in range(2)]
    assert judge(*silent).verdict.answer.reason == "no_speech"


def test_a_mouth_that_goes_with_the_sound_proves_speech():
    """However steady or quiet it seems: a hum may lie over the voice."""
    found = judge(face(0, lead=3.0, silent=True))
    assert found.speakers[0].speaking is True
    assert found.verdict.answer.lead_frames == pytest.approx(3.0, abs=0.4)


def test_a_still_face_for_less_than_a_second_is_too_short():
    assert judge(face(0, motion=0.0, seconds=0.6)).verdict.answer.reason == "too_short"


def test_the_speaker_may_be_named():
    pieces = face(0, lead=None), face(1, lead=4.0), face(2, lead=-3.0)
    assert judge(*pieces, speaker=2).verdict.answer.lead_frames == pytest.approx(4.0, abs=0.4)
    assert judge(*pieces, speaker=3).verdict.answer.lead_frames == pytest.approx(-3.0, abs=0.4)
    assert judge(*pieces, speaker="all").verdict.heard == (0, 1, 2)
    assert judge(*pieces, speaker=4).verdict.answer is None


def test_faces_are_numbered_as_they_appear_from_left_to_right():
    found = judge(face(5, first_tick=50), face(3), face(1), face(0, first_tick=20))
    assert [(each[0].first_tick, each[0].face) for each in found.faces] == [(0, 1), (0, 3), (20, 0), (50, 5)]


def test_nobody_has_no_answer():
    assert judge().verdict.answer is None


def test_one_sentence_in_a_long_silence_is_motion():
    still = np.zeros(1500, np.float32)
    still[700:740] = 0.25 * np.sin(np.arange(40))
    piece = face(0, seconds=59.84)
    talks_once = FacePiece(0, 0, piece.scores, piece.boxes, still, piece.loudness_db)
    assert still.std() < STILL_MOTION
    assert measure_motion([talks_once]) > STILL_MOTION


@pytest.mark.parametrize("value", ["0", "-1", "left", "1.5", ""])
def test_what_names_no_face_is_refused(value):
    with pytest.raises(ConfigError, match="speaker"):
        parse_speaker(value)
    assert (parse_speaker("auto"), parse_speaker("3")) == ("auto", 3)
