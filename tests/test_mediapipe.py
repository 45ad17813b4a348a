"""Faces against the mediapipe package itself, which runs beside this test in an environment of its own.

    pytest -m mediapipe

It pins numpy below 2 and brings an OpenCV of its own, so it never shares ours. The environment takes 880 MB;
it is made for the test, unless AVSYNC_MEDIAPIPE names a Python that has it. `test_faces` compares with what
it said once.
"""

import os
import subprocess
import sys
import venv

import cv2
import numpy as np
import pytest
from test_faces import BOX_TOLERANCE, GOLDEN, LANDMARK_TOLERANCE, PICTURES, read

from avsync_cli.faces import FaceModels, roi_from_detection, roi_from_landmarks

pytestmark = pytest.mark.mediapipe

VERSION = "0.10.21"  # the last with these models
TURNS = 9
# Where a sample lies midway between two 32nds of a pixel, the last bit of a number decides which is taken,
# and MediaPipe's last bits are its own: a nudge of 1e-9 moves a box by up to 0.23 pixels. A wrong half pixel
# moves it by 1, so it is still found; and most pictures have no such samples.
TIE_TOLERANCE = 0.5  # pixels
TIE_SCORE_TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has mediapipe."""
    if named := os.environ.get("AVSYNC_MEDIAPIPE"):
        return named
    folder = tmp_path_factory.mktemp("mediapipe") / "venv"
    venv.create(folder, with_pip=True)
    made = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [made, "-m", "pip", "install", "--quiet", f"mediapipe=={VERSION}"]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"mediapipe {VERSION} cannot be installed here: {installed.stderr.strip()[-200:]}")
    return str(made)


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    """As RGB [H, W, 3]: the portraits of `test_faces`, and others, turned, scaled, darker."""
    rng = np.random.default_rng(17)
    portrait = read("portrait")
    made = {name: read(name) for name in PICTURES}
    for number in range(TURNS):
        turn, scale = rng.uniform(-40, 40), rng.uniform(0.8, 2.0)
        width, height = (int(side) for side in rng.integers(480, 1000, 2))
        matrix = cv2.getRotationMatrix2D((160, 160), turn, scale)
        matrix[:, 2] += (width / 2 - 160, height / 2 - 160)
        light = rng.uniform(0.5, 1.0)
        turned = cv2.warpAffine(portrait, matrix, (width, height), borderValue=(90, 110, 100))
        made[f"made{number}"] = (turned * light).astype(np.uint8)
    return made


@pytest.fixture(scope="module")
def found(python, pictures, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What mediapipe finds in them now."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.png")  # without loss: both OpenCVs read the same pixels
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    output = folder / "found.npz"
    script = [python, GOLDEN / "make_faces_golden.py", "--output", output, "--pictures", *paths]
    ran = subprocess.run(script, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert ran.returncode == 0, ran.stderr
    with np.load(output) as values:
        return dict(values)


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels()


@pytest.mark.parametrize("name", [*PICTURES, *(f"made{number}" for number in range(TURNS))])
def test_we_find_what_mediapipe_finds(name, pictures, found, models):
    (face,) = models.detect(pictures[name])
    assert face.score == pytest.approx(found[f"{name}_score"], abs=TIE_SCORE_TOLERANCE)
    np.testing.assert_allclose(face.box, found[f"{name}_box"], atol=TIE_TOLERANCE)
    np.testing.assert_allclose(face.keypoints, found[f"{name}_keypoints"], atol=TIE_TOLERANCE)
    landmarks, _ = models.mesh(pictures[name], [roi_from_detection(face)])
    np.testing.assert_allclose(landmarks[0], found[f"{name}_landmarks"], atol=TIE_TOLERANCE)
    tracked, _ = models.mesh(pictures[name], [roi_from_landmarks(found[f"{name}_landmarks"])])
    np.testing.assert_allclose(tracked[0], found[f"{name}_tracked"], atol=LANDMARK_TOLERANCE)


def test_most_pictures_agree_as_the_recorded_ones_do(pictures, found, models):
    faces = {name: models.detect(picture)[0] for name, picture in pictures.items()}
    away = [np.abs(face.box - found[f"{name}_box"]).max() for name, face in faces.items()]
    assert np.median(away) < BOX_TOLERANCE


def test_what_was_recorded_is_what_it_says_now(found):
    with np.load(GOLDEN / "faces.npz") as recorded:
        for name, values in recorded.items():
            np.testing.assert_allclose(values, found[name], atol=LANDMARK_TOLERANCE)
