"""What a look leaves behind, against the heads and voices it was made from."""

import numpy as np
import pytest
from talking import RATE, syllables, voice

from avsync_cli.looks import Look, Stopwatch, group_faces, look_at
from avsync_cli.media import open_media
from avsync_cli.scan import average_curve
from avsync_cli.sound import Heard, Sound, loudness_db


@pytest.fixture(scope="module")
def look(engine, heads) -> Look:
    with open_media(heads[160]) as media:
        return look_at(
            media.pictures(), media, student=engine.student, models=engine.faces, watch=Stopwatch()
        )


def test_a_look_keeps_ticks_scores_and_mouth_of_every_window(look):
    (piece,) = look.pieces
    assert (look.first_tick, look.end_tick) == (0, 100)
    np.testing.assert_array_equal(piece.ticks, np.arange(100))
    assert piece.scores.shape == (96, 31)
    assert piece.boxes.shape == (100, 4)
    assert np.argmax(average_curve(piece.scores)) - 15 == 4


def test_the_opening_follows_the_mouth(look):
    """The head opens its mouth as far as the loudness it was painted from, one second into the voice."""
    painted = syllables(6.0)[100 : 100 + 400 : 4]
    (piece,) = look.pieces
    assert np.corrcoef(piece.opening, painted)[0, 1] > 0.8


def test_loudness_is_the_level_of_each_tick():
    """A sine of amplitude a has a level of 20 lg a - 3 dB, and beyond the sound there is none."""
    time_s = np.arange(2 * RATE) / RATE
    tone = np.where(time_s < 1, 0.5, 0.05) * np.sin(2 * np.pi * 200 * time_s)
    levels_db = loudness_db(Sound(tone.astype(np.float32), 100), np.arange(-1, 60))
    assert np.isnan(levels_db[:2]).all(), "tick 0 begins before sample 100"
    np.testing.assert_allclose(levels_db[2:25], 20 * np.log10(0.5) - 3.01, atol=0.05)
    np.testing.assert_allclose(levels_db[28:50], 20 * np.log10(0.05) - 3.01, atol=0.05)
    assert np.isnan(levels_db[51:]).all()


def test_faces_of_two_looks_are_two_faces(look):
    assert [len(face) for face in group_faces([look, look])] == [1, 1]
    assert [len(face) for face in group_faces([Look(0, 100, look.pieces * 2)])] == [2]


def test_without_sound_there_is_no_look(engine, heads):
    with open_media(heads[0]) as media:
        pictures = media.pictures(end_s=0.4)
        assert look_at(
            pictures, Heard(None), student=engine.student, models=engine.faces, watch=Stopwatch()
        ) is None  # fmt: skip


def test_the_look_hears_what_the_head_says(look):
    (piece,) = look.pieces
    whole = voice(syllables(6.0))[round(1.16 * RATE) :][: 4 * RATE]
    expected = loudness_db(Sound(whole, 0), piece.ticks)
    loud = expected > -40
    np.testing.assert_allclose(piece.loudness_db[loud], expected[loud], atol=3)
