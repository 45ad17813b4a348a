"""What a look leaves behind, against the heads and voices it was made from."""

from dataclasses import replace

import numpy as np
import pytest
from talking import RATE, syllables, voice

from avsync_cli.media import open_media
from avsync_cli.offsets import average_curve
from avsync_cli.scoring import Look, Stopwatch, group_faces, look_at
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


def test_pictures_beside_the_grid_are_compared_with_the_sound_of_their_own_time(engine, heads):
    """From 20 ms before their ticks to 20 ms after them it is one frame, by which the sound is earlier."""
    scores = []
    with open_media(heads[160]) as media:
        pictures, sound = list(media.pictures()), media.sound()
    for late_ms in (-20.0, 20.0):
        look = look_at(
            (replace(picture, late_ms=late_ms) for picture in pictures),
            Heard(sound),
            student=engine.student,
            models=engine.faces,
            watch=Stopwatch(),
        )
        scores.append(look.pieces[0].scores)
    both = np.isfinite(scores[0][:, :-1]) & np.isfinite(scores[1][:, 1:])
    assert both.mean() > 0.8
    np.testing.assert_allclose(scores[1][:, 1:][both], scores[0][:, :-1][both], atol=1e-4)


def test_a_picture_that_stands_still_moves_nothing(engine, heads):
    with open_media(heads[160]) as media:
        pictures, sound = list(media.pictures()), media.sound()
    still = [replace(picture, late_ms=-400.0 if picture.tick == 50 else 0.0) for picture in pictures]
    looks = [
        look_at(each, Heard(sound), student=engine.student, models=engine.faces, watch=Stopwatch())
        for each in (pictures, still)
    ]
    np.testing.assert_array_equal(looks[0].pieces[0].scores, looks[1].pieces[0].scores)


def test_the_opening_follows_the_mouth(look):
    """The head opens its mouth as far as the loudness it was painted from, one second into the voice."""
    painted = syllables(6.0)[100 : 100 + 400 : 4]
    (piece,) = look.pieces
    assert np.corrcoef(piece.opening, painted)[0, 1] > 0.8


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
