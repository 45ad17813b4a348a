"""Exported students on caches: what they see of a clip, and which caches fit."""

import numpy as np
import pytest
from colour_cache import make_colour_cache
from students import write_far_student, write_student
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from avsync_cli.spec import FACE_CROP_DEFINITION
from training.data.clips import load_clips
from training.evaluation.calibrate import calibrate
from training.evaluation.calibration_examples import encode_clip
from training.evaluation.evaluate import evaluate
from training.evaluation.score_clips import score_clip, student_encoders


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def protocol(student, cache):
    return evaluate(student, ["protocol"], cache=cache, corpus=None, split="val", jobs=1)


def test_some_windows_of_a_clip_are_encoded_as_all_are(tmp_path, cache):
    """What lies beyond the windows asked for is seen, not the last frame repeated."""
    student = load_student(write_far_student(tmp_path / "far"))
    clip = load_clips(cache, split="val")[0]
    encoders, lips = student_encoders(student), clip.lips.astype(np.float32)
    whole = encoders.encode_video(clip.crops, lips, 36)
    assert whole.shape == (36, 9)
    np.testing.assert_array_equal(encoders.encode_video(clip.crops, lips, 10), whole[:10])
    scores = score_clip(clip, encoders)
    audio = student.encode_audio(clip.mel, clip.mel.all_ticks)
    row, lead = 20, 3
    heard = audio[clip.first_tick + row - lead - clip.mel.first_tick]
    assert scores[row, lead + 15] == pytest.approx(whole[row].sum() + heard.sum(), rel=1e-5)
    encoded = encode_clip(student, clip)
    np.testing.assert_array_equal(encoded.video, whole)
    np.testing.assert_array_equal(encoded.audio, audio)


def test_a_student_is_judged_on_the_crops_that_it_takes(tmp_path, cache):
    colour = make_colour_cache(tmp_path / "colour")
    mouths = write_student(tmp_path / "mouths")
    faces = write_student(tmp_path / "faces", crop=FACE_CROP_DEFINITION)
    assert protocol(mouths, cache)["protocol"] == protocol(faces, colour)["protocol"]
    for judge in (protocol, calibrate):
        with pytest.raises(ConfigError, match="holds published crops"):
            judge(mouths, colour)
        with pytest.raises(ConfigError, match="holds grey crops"):
            judge(faces, cache)
