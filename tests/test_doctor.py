"""`avsync doctor`: a graph that computes something else is found, and what is said and returned of it."""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from students import add_int8, write_student
from test_cli import assert_one_line, avsync

from avsync_cli.doctor import examine_device, examine_folder, try_student
from avsync_cli.machine import count_cores
from export.known_answers import add_known_answers

PAGE = (Path(__file__).parents[1] / "docs/device.md").read_text(encoding="utf-8")


def change_weights(folder: Path, file: str, graph: str, *, part: str = "graphs") -> None:
    """Make one constant of a graph 1 % larger, as a wrong kernel would, and let its SHA-256 be right."""
    model = onnx.load(folder / file)
    [weights] = [w for w in model.graph.initializer if numpy_helper.to_array(w).dtype == np.float32]
    changed = numpy_helper.to_array(weights) * np.float32(1.01)
    weights.CopyFrom(numpy_helper.from_array(changed, weights.name))
    data = model.SerializeToString()
    (folder / file).write_bytes(data)
    declared = json.loads((folder / "model.json").read_text())
    declared[part][graph]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(declared))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = write_student(tmp_path / "student")
    add_known_answers(folder)
    return folder


def outcomes(folder: Path, *, auto: str = "fp32") -> dict[tuple[str, str], str]:
    return {(state.graph, state.precision): state.outcome for state in try_student(folder, auto=auto)}


def test_the_bundled_models_are_right_here():
    health = examine_device()
    assert (health.problems, health.exit_code) == ((), 0)
    needed = {("video", "fp32"), ("audio", "fp32"), ("pair", "fp32")}
    needed |= {("face_detector", "fp32"), ("face_mesh", "fp32")}
    assert needed <= {(state.graph, state.precision) for state in health.graphs if state.outcome == "right"}
    assert all(state.outcome != "untested" for state in health.graphs)
    assert health.cores == count_cores()


def test_other_weights_with_the_old_answer_are_wrong_and_5(student):
    assert outcomes(student) == dict.fromkeys([(g, "fp32") for g in ("video", "audio", "pair")], "right")
    change_weights(student, "video.onnx", "video")
    assert outcomes(student)["video", "fp32"] == "wrong"
    result = avsync("doctor", "--student", student)
    assert (result.returncode, result.stderr) == (5, "")
    assert "video in fp32: wrong" in result.stdout
    assert "audio in fp32: right" in result.stdout
    assert "all is well" not in result.stdout


def test_an_int8_graph_that_is_wrong_matters_where_it_is_taken(student):
    add_int8(student)
    add_known_answers(student)
    both = {("pair", "fp32"): "right", ("pair", "int8"): "right"}
    assert outcomes(student).items() >= both.items()
    declared = json.loads((student / "model.json").read_text())
    declared["int8"]["pair"]["known_answer"] = declared["graphs"]["pair"]["known_answer"]  # half as high
    (student / "model.json").write_text(json.dumps(declared))
    for auto, is_problem in (("fp32", False), ("int8", True)):
        [state] = [state for state in try_student(student, auto=auto) if state.precision == "int8"]
        assert (state.outcome, state.default, state.is_problem) == ("wrong", is_problem, is_problem)
    assert "do not use --precision int8" in next(
        state.message for state in try_student(student, auto="fp32") if state.precision == "int8"
    )


def test_a_damaged_graph_is_5_and_the_others_are_still_tried(student):
    (student / "audio.onnx").write_bytes(b"not a graph")
    health = examine_device(student)
    assert health.exit_code == 5
    assert [state.graph for state in health.graphs if state.outcome == "unusable"] == ["audio"]
    assert [problem for problem in health.problems if "damaged" in problem]
    assert sum(state.outcome == "right" for state in health.graphs) == 4


@pytest.mark.parametrize("answer", [3, {}, {"tolerance": 1}, {"tolerance": "x", "outputs": {}}])
def test_an_answer_that_cannot_be_read_is_5(student, answer):
    declared = json.loads((student / "model.json").read_text())
    declared["graphs"]["pair"]["known_answer"] = answer
    (student / "model.json").write_text(json.dumps(declared))
    assert outcomes(student)["pair", "fp32"] == "unusable"


def test_without_an_answer_nothing_is_claimed(tmp_path):
    health = examine_device(write_student(tmp_path / "student"))
    assert health.exit_code == 0
    assert len([warning for warning in health.warnings if "no known answer" in warning]) == 3


def test_a_student_that_is_not_there_is_5_and_json_all_the_same(tmp_path):
    result = avsync("doctor", "--model", tmp_path / "missing", "--json")
    assert (result.returncode, result.stderr) == (5, "")
    health = json.loads(result.stdout)
    assert health["healthy"] is False
    assert "model.json" in health["problems"][0]
    assert health["student"]["sha256"] is None
    assert [state["graph"] for state in health["graphs"]] == ["face_detector", "face_mesh"]


def test_json_is_the_promise(student):
    result = avsync("doctor", "--json", "--model", student)
    health = json.loads(result.stdout)
    assert list(health) == [
        "schema_version", "healthy", "versions", "cpu", "cores", "free_memory_mb", "temporary_folder",
        "student", "graphs", "telemetry_off", "problems", "warnings",
    ]  # fmt: skip
    assert all(f"`{name}`" in PAGE for name in health)
    assert set(health["cpu"]) == {"arch", "model", "features"}
    assert set(health["student"]) == {"folder", "name", "sha256", "precisions", "auto"}
    assert {"avsync", "python", "numpy", "onnxruntime", "av", "ffmpeg", "cv2"} <= health["versions"].keys()
    for state in health["graphs"]:
        assert set(state) == {
            "graph", "precision", "outcome", "error", "tolerance", "default", "message"
        }  # fmt: skip


def test_a_library_that_cannot_be_imported_is_told_and_5(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    result = avsync("doctor", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[1]}")
    assert result.returncode == 5
    assert "cv2 cannot be imported: libGL.so.1" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_written_to_is_seen(tmp_path):
    assert examine_folder(tmp_path).writable
    assert not examine_folder(tmp_path / "missing").writable
    assert list(tmp_path.iterdir()) == []
    assert examine_device().temporary_folder.path == tempfile.gettempdir()


def test_a_student_without_a_calibration_is_a_warning(tmp_path):
    for calibrated, folder in enumerate(("plain", "fitted")):
        changes = {} if calibrated else {"calibration": None}
        health = examine_device(write_student(tmp_path / folder, **changes))
        assert health.exit_code == 0
        assert ("lips-and-loudness: not calibrated: check refuses it" in health.warnings) != calibrated


def test_no_folder_for_temporary_files_is_5_and_2():
    without = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "avsync_cli"]
    result = subprocess.run([*without, "doctor", "--json"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (5, "")
    health = json.loads(result.stdout)
    assert health["temporary_folder"] == {"path": tempfile.gettempdir(), "writable": False, "free_mb": None}
    assert [problem for problem in health["problems"] if "cannot be written to" in problem]
    result = subprocess.run([*without, "bench"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert_one_line(result, "no temporary folder")


@pytest.mark.parametrize(("asked", "differs"), [("missing", True), ("there/", False)])
def test_a_temporary_folder_that_was_not_asked_for_is_told(tmp_path, asked, differs):
    (tmp_path / "there").mkdir()
    result = avsync("doctor", "--json", "--model", tmp_path, TMPDIR=f"{tmp_path}/{asked}")
    warnings = json.loads(result.stdout)["warnings"]
    assert any("TMPDIR" in warning for warning in warnings) == differs
