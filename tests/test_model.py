"""The artefact: what it refuses, and that batching and threads change nothing."""

import hashlib
import json

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from students import (
    CALIBRATION,
    LAYOUT,
    REACH_FRAMES,
    REACH_MEL_STEPS,
    add_int8,
    write_far_student,
    write_student,
)

from avsync_cli.contract import DEFAULT_STUDENT, contract, identify_student, precisions_of
from avsync_cli.errors import ModelError
from avsync_cli.mel import MelTrack
from avsync_cli.model import Student, load_student


@pytest.fixture(scope="module")
def student(handmade) -> Student:
    return load_student(handmade)


def test_encoding_in_batches_equals_encoding_one_by_one(student):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (90, 48, 96), np.uint8)
    lips = rng.standard_normal((90, 40, 3), np.float32)
    whole = student.encode_video(crops, lips)
    assert whole.shape == (86, 5)
    for first in (0, 31, 32, 63, 64, 85):
        window = slice(first, first + 5)
        np.testing.assert_allclose(
            whole[first], student.encode_video(crops[window], lips[window])[0], rtol=1e-5
        )


def test_a_window_sees_its_own_five_frames_only(student):
    rng = np.random.default_rng(1)
    crops = rng.integers(0, 255, (20, 48, 96), np.uint8)
    lips = rng.standard_normal((20, 40, 3), np.float32)
    before = student.encode_video(crops, lips)
    lips[10] += 1
    changed = np.flatnonzero((student.encode_video(crops, lips) != before).any(axis=1))
    assert set(changed) <= {6, 7, 8, 9, 10}


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_fewer_frames_than_a_window_give_no_window(student, frames):
    video = student.encode_video(np.zeros((frames, 48, 96), np.uint8), np.zeros((frames, 40, 3), np.float32))
    assert len(video) == 0


def test_no_audio_windows_and_no_pairs_are_no_error(student):
    assert student.encode_audio(made_mel(40), np.arange(0)).shape == (0, 5)
    assert student.score(np.zeros((0, 5), np.float32), np.zeros((0, 5), np.float32)).shape == (0,)


def made_mel(steps: int, *, origin_tick: int = -2) -> MelTrack:
    mel = np.random.default_rng(2).standard_normal((steps, 80), np.float32)
    return MelTrack(mel, origin_tick, origin_tick, (steps - 16) * 5 // 16)


@pytest.mark.parametrize("chunk", [1, 3, 32, 1000])
def test_results_do_not_depend_on_the_chunks_and_only_ends_are_repeated(tmp_path, chunk):
    """A student that gives what it sees beyond its windows, against numpy on the whole clip."""
    student = load_student(write_far_student(tmp_path / "far", chunk_windows=chunk))
    lips = np.random.default_rng(1).standard_normal((75, 40, 3), np.float32)
    gap = np.pad(lips[:, 2, 1] - lips[:, 3, 1], REACH_FRAMES, "edge")
    video = student.encode_video(np.zeros((75, 48, 96), np.uint8), lips)
    np.testing.assert_allclose(video, sliding_window_view(gap, 5 + 2 * REACH_FRAMES), atol=1e-5)

    mel = made_mel(260)
    loud = np.pad(mel.mel.sum(axis=1), REACH_MEL_STEPS, "edge")
    for ticks in (mel.all_ticks, mel.all_ticks[7:30], mel.all_ticks[-1:]):
        steps = (ticks - mel.origin_tick) * 16 // 5
        expected = sliding_window_view(loud, 16 + 2 * REACH_MEL_STEPS)[steps]
        np.testing.assert_allclose(student.encode_audio(mel, ticks), expected, atol=1e-4)

    audio = student.encode_audio(mel, mel.all_ticks)[: len(video)]
    np.testing.assert_allclose(student.score(video, audio), video.sum(1) + audio.sum(1), atol=1e-3)


def test_a_graph_that_does_not_give_what_the_contract_says_is_refused(tmp_path):
    student = load_student(write_far_student(tmp_path / "far", reach_frames=1, reach_mel_steps=0))
    with pytest.raises(ModelError, match=r"video graph gave \[14, 9\], expected \[16, 9\]"):
        student.encode_video(np.zeros((20, 48, 96), np.uint8), np.zeros((20, 40, 3), np.float32))
    with pytest.raises(ModelError, match="audio graph failed"):
        student.encode_audio(made_mel(60), np.arange(-2, 10))


def test_scores_are_those_of_the_pair_graph(student):
    video, audio = np.eye(5, dtype=np.float32), np.full((5, 5), 2, np.float32)
    np.testing.assert_allclose(student.score(video, audio), np.full(5, 2.0))


@pytest.mark.parametrize("key", sorted({**contract(), **LAYOUT}))
def test_every_term_of_the_contract_is_checked(tmp_path, key):
    folder = write_student(tmp_path / "student", **{key: "something else"})
    with pytest.raises(ModelError, match=key):
        load_student(folder)


def test_the_bundled_student_is_whole_and_names_no_machine():
    student = load_student()
    assert student.calibration is not None
    assert (student.layout.video_width, student.layout.reach_frames) == (256, 2)
    for path in DEFAULT_STUDENT.glob("*.onnx"):
        assert b"stack_trace" not in path.read_bytes()


@pytest.mark.parametrize("change", [{"reach_frames": -1}, {"chunk_windows": 0}, {"audio_width": True}])
def test_a_layout_that_cannot_be_is_refused(tmp_path, change):
    folder = write_student(tmp_path / "student", **change)
    with pytest.raises(ModelError, match=f"{next(iter(change))} = .* is not a whole number"):
        load_student(folder)


def test_a_student_of_the_first_version_is_refused_in_one_line(tmp_path):
    folder = write_student(tmp_path / "student", version=1)
    with pytest.raises(ModelError, match=r"version 1, but .* runs version 3: export its checkpoint again$"):
        load_student(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"graphs": 3}', json.dumps(contract() | {"graphs": {"video": "x"}})]
)
def test_a_contract_that_is_none_is_refused(tmp_path, text):
    folder = write_student(tmp_path / "student")
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_student(folder)


def test_a_graph_that_changed_is_refused(tmp_path):
    folder = write_student(tmp_path / "student")
    graph = folder / "audio.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"audio\.onnx.*damaged"):
        load_student(folder)
    write_student(folder, graphs={name: {"file": 3, "sha256": ""} for name in ("video", "audio", "pair")})
    with pytest.raises(ModelError, match="video graph"):
        load_student(folder)
    write_student(folder)
    (folder / "video.onnx").write_bytes((folder / "audio.onnx").read_bytes())
    declared = json.loads((folder / "model.json").read_text())
    declared["graphs"]["video"]["sha256"] = declared["graphs"]["audio"]["sha256"]
    (folder / "model.json").write_text(json.dumps(declared))
    with pytest.raises(ModelError, match=r"video\.onnx.*inputs"):
        load_student(folder)
    write_student(folder)
    graph.unlink()
    with pytest.raises(ModelError, match=r"audio\.onnx"):
        load_student(folder)


@pytest.mark.parametrize(
    "calibration",
    [
        {},
        {"weights": "x"},
        3,
        {"weights": [1], "min_confidence": 0.5},
        CALIBRATION | {"weights": [1.0]},
        CALIBRATION | {"spread_ms": [1.0, None]},
    ],
)
def test_a_calibration_that_cannot_be_read_is_refused(tmp_path, calibration):
    folder = write_student(tmp_path / "student", calibration=calibration)
    with pytest.raises(ModelError, match="calibration"):
        load_student(folder)


def test_int8_runs_the_int8_graphs_and_the_others_as_they_are(tmp_path):
    folder = add_int8(write_student(tmp_path / "student"))
    assert precisions_of(folder) == ("fp32", "int8")
    plain, int8 = load_student(folder), load_student(folder, precision="int8")
    assert (plain.precision, int8.precision) == ("fp32", "int8")
    rng = np.random.default_rng(0)
    lips = rng.standard_normal((30, 40, 3), np.float32)
    video = plain.encode_video(np.zeros((30, 48, 96), np.uint8), lips)
    np.testing.assert_array_equal(int8.encode_video(np.zeros((30, 48, 96), np.uint8), lips), video)
    np.testing.assert_array_equal(int8.score(video, video[::-1]), 2 * plain.score(video, video[::-1]))


def test_precisions_have_different_identities_and_that_of_fp32_is_the_files(tmp_path):
    folder = add_int8(write_student(tmp_path / "student"))
    plain, int8 = (load_student(folder, precision=precision).sha256 for precision in precisions_of(folder))
    assert plain == hashlib.sha256((folder / "model.json").read_bytes()).hexdigest() != int8
    assert identify_student(folder) == ("lips-and-loudness", plain)
    assert identify_student(folder, precision="int8") == ("lips-and-loudness", int8)


def test_int8_is_refused_where_there_is_none(tmp_path):
    folder = write_student(tmp_path / "student")
    assert precisions_of(folder) == ("fp32",)
    for ask in (load_student, identify_student):
        with pytest.raises(ModelError, match=r"model\.json: has no int8 graphs; .*export quantize"):
            ask(folder, precision="int8")


@pytest.mark.parametrize("int8", [3, {"mouth": {}}, {"pair": {"file": "pair.int8.onnx"}}])
def test_int8_that_is_not_described_is_refused(tmp_path, int8):
    folder = write_student(tmp_path / "student", int8=int8)
    for ask in (load_student, identify_student):
        with pytest.raises(ModelError, match=r"int8 graphs are not|describe the pair graph"):
            ask(folder, precision="int8")
    with pytest.raises(ModelError, match=r"model\.json"):
        precisions_of(folder)
    assert load_student(folder).precision == "fp32"


def test_an_int8_graph_that_changed_or_is_missing_is_refused(tmp_path):
    folder = add_int8(write_student(tmp_path / "student"))
    graph = folder / "pair.int8.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"pair\.int8\.onnx: damaged"):
        load_student(folder, precision="int8")
    graph.unlink()
    with pytest.raises(ModelError, match=r"pair\.int8\.onnx: No such file"):
        load_student(folder, precision="int8")
    assert load_student(folder).precision == "fp32"
