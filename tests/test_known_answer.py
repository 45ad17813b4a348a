"""Known answers: the inputs are the same everywhere, and what is wrong is found."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from students import add_int8, write_far_student, write_student
from typer.testing import CliRunner

from avsync_cli.contract import describe_graphs
from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.faces import ANSWERS_FILE, ASSETS, FACE_INPUTS
from avsync_cli.known_answer import (
    FP32_TOLERANCE,
    describe_answer,
    face_inputs,
    make_wave,
    measure_error,
    run_graph,
    student_inputs,
)
from avsync_cli.session import open_session
from export.__main__ import app
from export.known_answers import write_face_answers


def test_waves_are_a_formula_and_reach_both_ends():
    wave = make_wave([8, 48, 96], low=0, high=255)
    for n, y, x in ((0, 0, 0), (7, 47, 95), (3, 20, 61)):
        height = abs((11 * n + 5 * y + 3 * x) % 61 - 30) / 30
        assert wave[n, y, x] == pytest.approx(255 * height, abs=1e-4)
    assert (wave.min(), wave.max(), wave.dtype) == (0, 255, np.float32)
    assert len(np.unique(wave)) == 31


@pytest.mark.parametrize("write", [write_student, write_far_student])
def test_the_inputs_fit_every_student(tmp_path, write):
    layout, files = describe_graphs(write(tmp_path / "student"))
    assert set(files) == {"video", "audio", "pair"}
    for graph, inputs in student_inputs(layout).items():
        session = open_session(files[graph].path, threads=1, inputs=files[graph].inputs)
        for output in run_graph(session, inputs).values():
            assert len(output) >= 3
            assert np.ptp(output) > 0


OUTPUTS = {"a": np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 100), "b": np.ones(2, np.float32)}


def test_an_answer_agrees_with_itself_after_json():
    answer = json.loads(json.dumps(describe_answer(OUTPUTS)))
    assert measure_error(OUTPUTS, answer) < 1e-6
    assert answer["tolerance"] == FP32_TOLERANCE


def test_errors_are_in_rms_of_their_output():
    answer = describe_answer(OUTPUTS)
    rms = float(np.sqrt((OUTPUTS["a"].astype(float) ** 2).mean()))
    assert measure_error(OUTPUTS | {"a": OUTPUTS["a"] + np.float32(0.25)}, answer) == pytest.approx(
        0.25 / rms, rel=1e-3
    )
    one = OUTPUTS["a"].copy()
    one[-1, -1] += 1
    assert measure_error(OUTPUTS | {"a": one}, answer) == pytest.approx(1 / rms, rel=1e-3)
    spread = OUTPUTS["a"].copy()
    spread[1, 3:40] *= 2  # between the values that are kept
    assert measure_error(OUTPUTS | {"a": spread}, answer) > FP32_TOLERANCE


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": OUTPUTS["a"]},
        OUTPUTS | {"c": OUTPUTS["b"]},
        OUTPUTS | {"a": OUTPUTS["a"].T},
        OUTPUTS | {"b": np.array([1, np.nan], np.float32)},
        OUTPUTS | {"b": np.array([1, np.inf], np.float32)},
    ],
)
def test_what_cannot_be_compared_is_infinitely_wrong(outputs):
    assert measure_error(outputs, describe_answer(OUTPUTS)) == np.inf


@pytest.mark.parametrize("answer", [{}, {"outputs": {"a": {}}}, {"outputs": 3}, [], {"outputs": {"a": None}}])
def test_what_is_no_answer_is_said_to_be_none(answer):
    with pytest.raises(ValueError, match="not a known answer"):
        measure_error(OUTPUTS, answer)


def test_every_bundled_graph_has_an_answer_that_any_changed_layer_would_miss(tmp_path):
    """Every other weight of a layer is 5 % larger: that must be far beyond the tolerance."""
    layout, files = describe_graphs()
    faces = json.loads((ASSETS / ANSWERS_FILE).read_text())
    cases = [(f.path, f.inputs, student_inputs(layout)[g], f.known_answer) for g, f in files.items()]
    cases += [(ASSETS / n, i, face_inputs(i), faces[n]) for n, i in FACE_INPUTS.items()]
    for path, shapes, inputs, answer in cases:
        right = run_graph(open_session(path, threads=1, inputs=shapes), inputs)
        assert measure_error(right, answer) < answer["tolerance"] / 10, path
        weights = [w for w in onnx.load(path).graph.initializer if numpy_helper.to_array(w).ndim >= 2]
        for place in {0, len(weights) // 2, len(weights) - 1} if weights else ():
            model = onnx.load(path)
            [changed] = [w for w in model.graph.initializer if w.name == weights[place].name]
            weight = numpy_helper.to_array(changed).copy()
            weight.flat[::2] *= 1.05
            changed.CopyFrom(numpy_helper.from_array(weight, changed.name))
            onnx.save(model, tmp_path / "changed.onnx")
            session = open_session(tmp_path / "changed.onnx", threads=1, inputs=shapes)
            error = measure_error(run_graph(session, inputs), answer)
            assert error > 10 * answer["tolerance"], (path, weights[place].name)


def test_only_graphs_with_a_form_of_their_own_are_described(tmp_path):
    folder = add_int8(write_student(tmp_path / "student"))
    assert set(describe_graphs(folder, precision="int8")[1]) == {"pair"}
    with pytest.raises(ModelError, match="no int8"):
        describe_graphs(write_student(tmp_path / "plain"), precision="int8")


@pytest.mark.parametrize("changed", ["garbage", "other weights"])
def test_a_damaged_graph_gets_no_answer(tmp_path, changed):
    folder = write_student(tmp_path / "student")
    before = (folder / "model.json").read_bytes()
    if changed == "garbage":
        (folder / "pair.onnx").write_bytes(b"not a graph")
    else:  # a graph that runs, and is not the one declared
        model = onnx.load(folder / "pair.onnx")
        model.producer_name = "somebody else"
        onnx.save(model, folder / "pair.onnx")
    result = CliRunner().invoke(app, ["answers", str(folder)])
    assert (result.exit_code, result.output.count("\n")) == (5, 1), result.output
    assert "damaged" in result.output
    assert (folder / "model.json").read_bytes() == before


def test_a_damaged_face_model_gets_no_answer(tmp_path):
    for name in FACE_INPUTS:
        (tmp_path / name).write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"\.onnx"):
        write_face_answers(tmp_path)
    assert not (tmp_path / ANSWERS_FILE).exists()
