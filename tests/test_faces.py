"""Faces against what MediaPipe 0.10.21 found in the same pictures (tests/golden/make_faces_golden.py)."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from avsync_cli.errors import ModelError
from avsync_cli.faces import (
    ASSETS,
    DETECTOR_FILE,
    MESH_FILE,
    Detection,
    FaceModels,
    Roi,
    roi_from_detection,
    roi_from_landmarks,
    tile_rois,
)

GOLDEN = Path(__file__).parent / "golden"
PICTURES = ("portrait", "turned_left", "turned_right")

# Pixels; the engines differ by 0.0001 in a box and 0.02 in a landmark, a wrong half pixel by 1 and 0.8.
BOX_TOLERANCE = 0.01
LANDMARK_TOLERANCE = 0.05


def read(name: str) -> np.ndarray:
    """A golden picture as RGB [H, W, 3]."""
    return cv2.cvtColor(cv2.imread(str(GOLDEN / f"{name}.jpg")), cv2.COLOR_BGR2RGB)


def on_canvas(picture: np.ndarray, *, x: int, y: int, width: int, height: int) -> np.ndarray:
    """The picture with its upper left at x, y of a grey canvas."""
    canvas = np.full((height, width, 3), 110, np.uint8)
    canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "faces.npz") as values:
        return dict(values)


@pytest.mark.parametrize("name", PICTURES)
def test_detection_is_mediapipes(name: str, models: FaceModels, golden: dict[str, np.ndarray]) -> None:
    (found,) = models.detect(read(name))
    assert found.score == pytest.approx(golden[f"{name}_score"], abs=1e-4)
    np.testing.assert_allclose(found.box, golden[f"{name}_box"], atol=BOX_TOLERANCE)
    np.testing.assert_allclose(found.keypoints, golden[f"{name}_keypoints"], atol=BOX_TOLERANCE)


@pytest.mark.parametrize("name", PICTURES)
def test_landmarks_are_mediapipes(name: str, models: FaceModels, golden: dict[str, np.ndarray]) -> None:
    picture = read(name)
    landmarks, presence = models.mesh(picture, [roi_from_detection(models.detect(picture)[0])])
    assert landmarks.shape == (1, 468, 3)
    assert landmarks.dtype == presence.dtype == np.float32
    assert presence[0] > 0.99
    np.testing.assert_allclose(landmarks[0], golden[f"{name}_landmarks"], atol=LANDMARK_TOLERANCE)


@pytest.mark.parametrize("name", PICTURES)
def test_tracked_landmarks_are_mediapipes(
    name: str, models: FaceModels, golden: dict[str, np.ndarray]
) -> None:
    roi = roi_from_landmarks(golden[f"{name}_landmarks"])
    landmarks, _ = models.mesh(read(name), [roi])
    np.testing.assert_allclose(landmarks[0], golden[f"{name}_tracked"], atol=LANDMARK_TOLERANCE)


def test_picture_without_a_face_gives_nothing(models: FaceModels) -> None:
    gradient = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[:, None], (360, 640, 3)).copy()
    suit = np.tile(read("portrait")[200:], (2, 2, 1))
    for picture in (gradient, suit):
        assert models.detect(picture) == []
        assert models.detect(picture, tiles=True) == []


def test_what_is_seen_in_noise_is_doubted_by_the_mesh(models: FaceModels) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    assert models.detect(noise) == []
    _, presence = models.mesh(noise, [roi_from_detection(d) for d in models.detect(noise, tiles=True)])
    assert (presence < 0.5).all()


def with_inset() -> np.ndarray:
    """A picture 640 pixels high: a portrait as high as 560, and one of 130 in the upper right corner."""
    large = cv2.resize(read("portrait"), (560, 560), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(read("portrait"), (130, 130), interpolation=cv2.INTER_AREA)
    canvas = on_canvas(large, x=60, y=80, width=1138, height=640)
    canvas[20:150, 980:1110] = small
    return canvas


def find_real(models: FaceModels, picture: np.ndarray) -> list[Detection]:
    """Large and small faces, without those that the mesh doubts."""
    found = models.detect(picture, small=True)
    _, presence = models.mesh(picture, [roi_from_detection(each) for each in found])
    return [each for each, is_face in zip(found, presence > 0.5, strict=True) if is_face]


def test_a_small_face_beside_a_large_one_is_found_where_it_is_asked_for(models: FaceModels) -> None:
    picture = with_inset()
    assert len(models.detect(picture)) == 1
    assert len(models.detect(picture, tiles=True)) == 1
    large, small = sorted(find_real(models, picture), key=lambda each: each.box[0])
    (alone,) = models.detect(read("portrait"))
    for found, scale, corner in ((large, 560 / 320, (60, 80)), (small, 130 / 320, (980, 20))):
        side = (alone.box[2] - alone.box[0]) * scale
        expected = alone.box * scale + np.tile(corner, 2)
        np.testing.assert_allclose(found.box, expected, atol=0.2 * side)
    assert len(find_real(models, read("portrait"))) == 1  # no part of it is another face


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_is_turned_in_the_pixels_is_found(models: FaceModels, quarters: int) -> None:
    """`np.rot90` turns counter-clockwise: three quarters are one quarter clockwise."""
    picture = np.ascontiguousarray(np.rot90(read("portrait"), -quarters))
    (found,) = models.detect(picture, tiles=True)
    x0, y0, x1, y1 = found.box
    assert x0 < x1
    assert y0 < y1
    roi = roi_from_detection(found)
    assert round(np.degrees(roi.angle) / 90) % 4 == quarters
    landmarks, presence = models.mesh(picture, [roi])
    assert presence[0] > 0.9
    lips = landmarks[0, [61, 291], :2].mean(axis=0)
    upright = models.mesh(read("portrait"), [roi_from_detection(models.detect(read("portrait"))[0])])[0][0]
    expected = upright[[61, 291], :2].mean(axis=0)
    for _ in range(quarters):
        expected = np.array([320 - expected[1], expected[0]])
    np.testing.assert_allclose(lips, expected, atol=8)


def test_mesh_doubts_what_is_not_a_face(models: FaceModels) -> None:
    _, presence = models.mesh(read("portrait"), [Roi(250.0, 40.0, 70.0, 0.0)])
    assert presence[0] < 0.1


@pytest.mark.parametrize(("x", "y"), [(30, 20), (820, 400), (1560, 740)])
def test_small_face_needs_tiles(x: int, y: int, models: FaceModels, golden: dict[str, np.ndarray]) -> None:
    picture = on_canvas(read("portrait"), x=x, y=y, width=1920, height=1080)  # face of 5.3 % of the width
    assert models.detect(picture) == []
    (found,) = models.detect(picture, tiles=True)
    np.testing.assert_allclose(found.box, golden["portrait_box"] + (x, y, x, y), atol=15)
    landmarks, presence = models.mesh(picture, [roi_from_detection(found)])
    assert presence[0] > 0.99
    away = np.abs(landmarks[0, :, :2] - (x, y) - golden["portrait_landmarks"][:, :2])
    assert away.mean() < 1.5


def test_tiles_change_nothing_where_the_whole_picture_shows_a_face(models: FaceModels) -> None:
    (plain,), (tiled,) = (models.detect(read("portrait"), tiles=tiles) for tiles in (False, True))
    assert plain.score == tiled.score
    np.testing.assert_array_equal(plain.box, tiled.box)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920), (640, 640), (1, 1)])
def test_tiles_cover_the_picture(width: int, height: int) -> None:
    rois = tile_rois(width, height)
    assert len(rois) <= 16
    corners = np.array([(r.center_x - r.size / 2, r.center_y - r.size / 2) for r in rois])
    np.testing.assert_allclose(corners.min(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(corners.max(axis=0) + rois[0].size, (width, height))
    for axis in (0, 1):
        assert np.diff(np.unique(corners[:, axis].round(6))).max() <= rois[0].size * 0.65 + 1e-6


def test_several_faces_come_best_first(models: FaceModels) -> None:
    left, right = read("portrait"), read("portrait")[:, ::-1]
    found = models.detect(np.concatenate((left, right // 2), axis=1))
    assert len(found) == 2
    assert found[0].score >= found[1].score
    assert sorted(d.box[0] > 320 for d in found) == [False, True]


def test_min_score_is_respected(models: FaceModels) -> None:
    assert models.detect(read("portrait"), min_score=0.99) == []


def test_batch_equals_single_calls(models: FaceModels) -> None:
    picture = read("portrait")
    first = roi_from_detection(models.detect(picture)[0])
    second = Roi(first.center_x + 3, first.center_y - 5, first.size * 1.1, 0.3)
    together, presence = models.mesh(picture, [first, second])
    for face, roi in enumerate((first, second)):
        alone, alone_presence = models.mesh(picture, [roi])
        np.testing.assert_allclose(together[face], alone[0], atol=1e-3)
        assert presence[face] == pytest.approx(alone_presence[0], abs=1e-5)


def test_no_rois_give_empty_arrays(models: FaceModels) -> None:
    landmarks, presence = models.mesh(read("portrait"), [])
    assert landmarks.shape == (0, 468, 3)
    assert presence.shape == (0,)


def test_roi_is_squared_and_turned() -> None:
    keypoints = np.zeros((6, 2), np.float32)
    keypoints[1] = (10, 10)  # the left eye, lower than the right one
    roi = roi_from_detection(Detection(0.9, np.array((10, 20, 50, 40), np.float32), keypoints))
    assert (roi.center_x, roi.center_y, roi.size) == (30, 30, 60)
    assert roi.angle == pytest.approx(np.pi / 4)


def copy_assets(target: Path) -> Path:
    for name in (DETECTOR_FILE, MESH_FILE):
        (target / name).write_bytes((ASSETS / name).read_bytes())
    return target


@pytest.mark.parametrize("name", [DETECTOR_FILE, MESH_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "garbage"])
def test_damaged_model_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    path = copy_assets(tmp_path) / name
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes({"truncated": content[:5000], "empty": b"", "garbage": b"not a model"}[damage])
    with pytest.raises(ModelError, match=name):
        FaceModels(assets=tmp_path)


def test_swapped_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / DETECTOR_FILE).write_bytes((ASSETS / MESH_FILE).read_bytes())
    with pytest.raises(ModelError, match="has the inputs"):
        FaceModels(assets=tmp_path)
