"""Tracks of faces whose places and moments are known, because they were painted there."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from clips import barcode, write_clip
from talking import TalkingHead, syllables

from avsync_cli.crops import crop_face
from avsync_cli.faces import FaceModels
from avsync_cli.grid import Picture
from avsync_cli.media import open_media
from avsync_cli.spec import FACE_CROP_DEFINITION, WINDOW_FRAMES
from avsync_cli.tracks import track_faces

SIDE = 100  # of the portrait, in pixels of 640 x 360: it may come and go without a cut


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return TalkingHead(syllables(1.0), fps=Fraction(25), side=SIDE).rgb


def paint(portrait: np.ndarray, *lefts: int) -> np.ndarray:
    """The portrait on grey, once for each left edge."""
    rgb = np.full((360, 640, 3), 128, np.uint8)
    for left in lefts:
        rgb[120 : 120 + SIDE, left : left + SIDE] = portrait
    return rgb


def follow(models: FaceModels, *shown: tuple[np.ndarray, int]) -> list[tuple[int, int, int]]:
    """Face, first tick and length of each track of pictures that are shown so many times each."""
    frames = [rgb for rgb, times in shown for _ in range(times)]
    pictures = [Picture(tick, rgb, 1.0) for tick, rgb in enumerate(frames)]
    return [(track.face, track.first_tick, len(track.boxes)) for track in track_faces(pictures, models)]


def test_a_cut_ends_a_track(tmp_path, models):
    """Two shots of the same head with bars between them: two faces, none of them across the cut."""
    loudness = syllables(6.0)
    head = TalkingHead(loudness, fps=Fraction(25), side=256)
    bars = barcode(0x5A5, width=256, height=256)

    def shot(number: int) -> np.ndarray:
        return bars if 40 <= number < 50 else head(number)

    path = write_clip(tmp_path / "cut.mp4", seconds=4, paint=shot)
    with open_media(path) as media:
        tracks = list(track_faces(media.pictures(), models))
    assert [(track.first_tick, len(track.crops)) for track in tracks] == [(0, 40), (50, 50)]
    assert tracks[0].face != tracks[1].face


def test_the_crop_is_upright_and_holds_the_mouth(tmp_path, models):
    """A turned and enlarged picture gives the same crop: scale and rotation are taken out."""

    head = TalkingHead(np.ones(100, np.float32) * 0.5, fps=Fraction(25), side=256)
    turn = cv2.getRotationMatrix2D((128, 128), 20, 0.9)
    turned = [cv2.warpAffine(head(0), turn, (256, 256), borderMode=cv2.BORDER_REPLICATE)] * 10
    crops = []
    for pictures in ([head(0)] * 10, turned):
        path = write_clip(tmp_path / "c.mp4", seconds=0.4, paint=lambda k, shown=pictures: shown[k])
        with open_media(path) as media:
            crops.append(next(track_faces(media.pictures(), models)).crops[5].astype(float))
    assert crops[0].shape == (48, 96)
    assert np.corrcoef(crops[0].ravel(), crops[1].ravel())[0, 1] > 0.95


def test_faces_are_cut_as_for_training(models, heads):
    """The boxes of each picture's own detection, and not what only training sees."""
    from training.data.facecrops import crop_faces

    with open_media(heads[0]) as media:
        expected = crop_faces(media.pictures(end_s=1.4), models)
    with open_media(heads[0]) as media:
        (track,) = track_faces(media.pictures(end_s=1.4), models, crop=FACE_CROP_DEFINITION)
    assert track.crops.shape == (35, 48, 96, 3)
    assert (track.first_tick, len(track.lips)) == (expected.first_tick, 35)
    np.testing.assert_array_equal(track.crops, expected.crops)


def test_a_face_too_small_for_the_detector_is_cut_where_the_mesh_is(models):
    """Found in a tile of the picture at first, then only followed."""
    head = TalkingHead(syllables(4.0), fps=Fraction(25), side=200)
    rgb = np.full((720, 1280, 3), 128, np.uint8)
    rgb[300:500, 500:700] = head(0)
    assert not models.detect(rgb)
    pictures = [Picture(tick, rgb, 1.0) for tick in range(6)]
    (track,) = track_faces(pictures, models, crop=FACE_CROP_DEFINITION)
    assert track.crops.shape == (6, 48, 96, 3)
    np.testing.assert_array_equal(track.crops[5], crop_face(rgb, track.boxes[5]))
    assert (track.boxes[5] > [500, 300, 500, 300]).all()
    assert (track.boxes[5] < [700, 500, 700, 500]).all()


def test_long_tracks_go_on_in_pieces(tmp_path, models, heads, monkeypatch):
    """Pieces share the face and follow each other; a face lost just after one is no crash."""
    monkeypatch.setattr("avsync_cli.tracks.MAX_TRACK_FRAMES", 20)
    with open_media(heads[0]) as media:
        pieces = list(track_faces(media.pictures(), models))
    assert [(p.face, p.first_tick, len(p.crops)) for p in pieces] == [(0, 20 * k, 20) for k in range(5)]
    head = TalkingHead(syllables(4.0), fps=Fraction(25), side=256)
    bars = barcode(0x5A5, width=256, height=256)
    dark = (head(0) * 0.12).astype(np.uint8)  # so little changes that it is no cut

    def vanishing(number: int) -> np.ndarray:
        return dark if number < 20 else (bars * 0.12).astype(np.uint8) if number < 22 else dark

    path = write_clip(tmp_path / "gone.mp4", seconds=2, paint=vanishing)
    with open_media(path) as media:
        list(track_faces(media.pictures(), models))


def test_a_face_that_comes_back_within_a_second_is_the_same(models, portrait):
    """It is looked for every fifth picture while there is none."""
    there, gone = paint(portrait, 200), paint(portrait)
    before, after = follow(models, (there, 10), (gone, 15), (there, 15))
    assert before == (0, 0, 10)
    assert after[0] == 0
    assert after[1] in range(25, 30)
    assert sum(after[1:]) == 40


def test_a_face_that_comes_back_later_or_elsewhere_is_another(models, portrait):
    there, gone = paint(portrait, 200), paint(portrait)
    late = follow(models, (there, 10), (gone, 30), (there, 15))
    moved = follow(models, (there, 10), (gone, 5), (paint(portrait, 450), 15))
    for tracks in (late, moved):
        assert [face for face, _, _ in tracks] == [0, 1]
        assert tracks[0] == (0, 0, 10)


def test_two_faces_at_once_are_two_tracks(models, portrait):
    pictures = [Picture(tick, paint(portrait, 80, 450), 1.0) for tick in range(10)]
    tracks = list(track_faces(pictures, models))
    assert {track.face for track in tracks} == {0, 1}
    assert [(track.first_tick, len(track.boxes), track.crops.shape) for track in tracks] == [
        (0, 10, (10, 48, 96))
    ] * 2
    lefts = sorted(float(track.boxes[:, 0].mean()) for track in tracks)
    assert 80 < lefts[0] < 130
    assert lefts[1] - lefts[0] == pytest.approx(450 - 80, abs=4)


def test_boxes_are_in_pixels_of_the_file(models, portrait):
    """A picture that was reduced to half its size has the same face at twice the place."""
    whole, reduced = (
        next(track_faces([Picture(tick, paint(portrait, 200), scale) for tick in range(8)], models))
        for scale in (1.0, 0.5)
    )
    np.testing.assert_allclose(reduced.boxes, 2 * whole.boxes, rtol=1e-5)


def test_a_tick_that_is_left_out_ends_a_track(models, portrait):
    ticks = [*range(10), *range(50, 60)]
    pictures = [Picture(tick, paint(portrait, 200), 1.0) for tick in ticks]
    tracks = list(track_faces(pictures, models))
    assert [(track.face, track.first_tick, len(track.lips)) for track in tracks] == [(0, 0, 10), (1, 50, 10)]


def test_a_face_seen_for_less_than_a_window_has_no_track(models, portrait):
    there, gone = paint(portrait, 200), paint(portrait)
    assert follow(models, (there, WINDOW_FRAMES - 1), (gone, 3)) == []
    assert follow(models, (there, WINDOW_FRAMES), (gone, 3)) == [(0, 0, WINDOW_FRAMES)]
    assert follow(models, (gone, 12)) == []
