"""The turn of a head, against points and pictures that were turned by a known angle."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip
from talking import RATE, syllables, voice
from turning import TurnedPortrait, _rotation, look_at_face

from avsync_cli.check import check_file
from avsync_cli.faces import FaceModels
from avsync_cli.pose import NOSE_OVER_WIDTH, yaw_degrees

GOLDEN = Path(__file__).parent / "golden"
ANGLES = (-60, -45, -30, -15, 0, 15, 30, 45, 60)


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels()


@pytest.fixture(scope="module")
def portrait(models) -> TurnedPortrait:
    return TurnedPortrait(models)


@pytest.mark.parametrize("roll", [0, 30, -90])
@pytest.mark.parametrize("yaw", ANGLES)
def test_points_of_a_head_that_was_turned(yaw, roll):
    """A head of the usual proportions, made by hand."""
    head = np.zeros((468, 3), np.float32)
    head[[234, 454], 0] = -1, 1
    head[[33, 263], 0] = -0.6, 0.6
    head[[33, 263], 1:] = -0.4, -0.5
    head[1, 2] = -2 * NOSE_OVER_WIDTH
    turned = 100 * head @ _rotation(-yaw, 0, roll).T.astype(np.float32) + 300
    assert yaw_degrees(turned) == pytest.approx(yaw, abs=0.5)


@pytest.mark.parametrize("yaw", [-30, -20, -10, 0, 10, 20, 30])
def test_a_portrait_that_was_turned(models, portrait, yaw):
    assert yaw_degrees(look_at_face(models, portrait.turn(yaw))) == pytest.approx(yaw, abs=8)


def test_further_on_it_falls_short_and_still_grows(models, portrait):
    for side in (-1, 1):
        found = [side * yaw_degrees(look_at_face(models, portrait.turn(side * yaw))) for yaw in (30, 45, 60)]
        assert found == sorted(found)
        assert found[1] == pytest.approx(45, abs=14)


@pytest.mark.parametrize("name", ["portrait", "turned_left", "turned_right"])
def test_a_tilted_head_is_not_turned(models, name):
    rgb = cv2.cvtColor(cv2.imread(str(GOLDEN / f"{name}.jpg")), cv2.COLOR_BGR2RGB)
    assert yaw_degrees(look_at_face(models, rgb)) == pytest.approx(0, abs=3)


def test_a_report_says_it_of_each_face(tmp_path, engine, portrait):
    picture = portrait.turn(25)
    path = write_clip(
        tmp_path / "a.mp4",
        paint=lambda _: picture,
        seconds=1.2,
        sound=voice(syllables(1.2))[: int(1.2 * RATE)],
        rate=RATE,
    )
    [track] = check_file(path, engine=engine).tracks
    assert track.yaw_degrees == pytest.approx(25, abs=9)
