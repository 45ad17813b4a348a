"""Graphs in 8 bits and weights in 16: what is in the file, and the numbers it gives."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from synthetic_cache import make_cache

from avsync_cli.contract import Layout
from avsync_cli.errors import ConfigError
from avsync_cli.spec import CROP_DEFINITION, FACE_CROP_DEFINITION
from export.half import store_in_half
from export.int8 import quantize_encoder, quantize_products
from export.stretches import draw_stretches
from training.data.cache import read_manifest

CHANNELS = 6
FOREIGN = {"ConvInteger", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear"}


def write_graph(path, nodes, weights, inputs, outputs):
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(
        nodes,
        "graph",
        *(
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
            for values in (inputs, outputs)
        ),
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def run(model, **inputs):
    data = model.read_bytes() if hasattr(model, "read_bytes") else model.SerializeToString()
    return onnxruntime.InferenceSession(data).run(None, inputs)[0]


def constants_of(model):
    return {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}


def operators_of(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """3 x 3, ReLU, 1 x 1; the channels of the first have weights of very different sizes."""
    rng = np.random.default_rng(0)
    first = (
        rng.standard_normal((CHANNELS, 2, 3, 3), np.float32)
        * np.logspace(-2, 1, CHANNELS)[:, None, None, None]
    )
    nodes = [
        helper.make_node("Conv", ["picture", "first"], ["seen"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["seen"], ["bright"], "relu"),
        helper.make_node("Conv", ["bright", "last"], ["out"], "last"),
    ]
    weights = {
        "first": first.astype(np.float32),
        "last": rng.standard_normal((3, CHANNELS, 1, 1), np.float32),
    }
    shapes = {"picture": ["N", 2, 8, 8]}, {"out": ["N", 3, 8, 8]}
    return write_graph(tmp_path_factory.mktemp("graph") / "graph.onnx", nodes, weights, *shapes)


@pytest.mark.parametrize("method", ["percentile", "entropy", "minmax"])
def test_convolutions_take_u8_activations_and_s8_weights_by_channel(convolutions, method):
    rng = np.random.default_rng(1)
    pictures = [{"picture": rng.standard_normal((4, 2, 8, 8), np.float32)} for _ in range(5)]
    model = quantize_encoder(convolutions, pictures[:4], method=method)
    operators, constants = operators_of(model), constants_of(model)
    assert not FOREIGN & operators.keys()
    assert [entry.domain for entry in model.opset_import] == [""]
    assert all(node.domain == "" for node in model.graph.node)
    scales = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    first, last = (n for n in model.graph.node if n.op_type == "Conv")
    assert last.input[1] == "last"
    assert "last" in constants
    weights, activations = scales[first.input[1]], scales[first.input[0]]
    quantised, by_channel, _ = (constants[name] for name in weights.input)
    assert (quantised.dtype, quantised.shape) == (np.int8, (CHANNELS, 2, 3, 3))
    assert np.abs(quantised).max() <= 64  # 7 bits
    np.testing.assert_allclose(
        quantised * by_channel[:, None, None, None],
        constants_of(onnx.load(convolutions))["first"],
        atol=0.51 * by_channel.max(),
    )
    assert by_channel.shape == (CHANNELS,)
    assert constants[activations.input[2]].dtype == np.uint8
    expected, found = (run(graph, **pictures[4]) for graph in (convolutions, model))
    error = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert 1e-4 < error < (0.2 if method == "entropy" else 0.05)  # entropy cuts a normal distribution off


def test_products_with_constant_matrices_are_integer_and_others_are_not(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["rows", "matrix"], ["seen"], "constant"),
        helper.make_node("Transpose", ["seen"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["seen", "turned"], ["related"], "free"),
        helper.make_node("Gemm", ["related", "head", "bias"], ["out"], "head", transB=1),
    ]
    weights = {
        "matrix": rng.standard_normal((32, 48), np.float32),
        "head": rng.standard_normal((1, 5), np.float32),
        "bias": np.ones(1, np.float32),
    }
    path = write_graph(tmp_path / "graph.onnx", nodes, weights, {"rows": [5, 32]}, {"out": [5, 1]})
    model = quantize_products(path)
    operators = operators_of(model)
    assert (operators["MatMulInteger"], operators["MatMul"], operators["Gemm"]) == (2, 1, 0)
    assert not {"ConvInteger", "QLinearMatMul"} & operators.keys()
    matrices = [
        values for values in constants_of(model).values() if values.dtype == np.int8 and values.ndim == 2
    ]
    assert len(matrices) == 2
    assert max(np.abs(values).max() for values in matrices) <= 64
    rows = rng.standard_normal((5, 32), np.float32)
    seen = rows @ weights["matrix"]
    expected = seen @ seen.T @ weights["head"].T + 1
    found = run(model, rows=rows)
    assert 1e-5 < np.abs(found - expected).max() / np.abs(expected).max() < 0.05


def test_half_storage_halves_the_file_and_computes_with_rounded_weights(tmp_path):
    rng = np.random.default_rng(0)
    matrix, large = rng.standard_normal((64, 64), np.float32), np.full((64, 64), 1e5, np.float32)
    nodes = [
        helper.make_node("MatMul", ["rows", "matrix"], ["seen"], "product"),
        helper.make_node("Mul", ["seen", "small"], ["scaled"], "scale"),
        helper.make_node("MatMul", ["scaled", "large"], ["out"], "beyond"),
    ]
    weights = {"matrix": matrix, "small": np.full(64, 1.0001, np.float32), "large": large}
    path = write_graph(tmp_path / "graph.onnx", nodes, weights, {"rows": ["N", 64]}, {"out": ["N", 64]})
    halved = store_in_half(onnx.load(path))
    onnx.checker.check_model(halved)
    kept = {name: values.dtype for name, values in constants_of(halved).items()}
    assert kept == {"matrix_fp16": np.float16, "small": np.float32, "large": np.float32}
    assert path.stat().st_size - halved.ByteSize() == pytest.approx(2 * 64 * 64, abs=200)
    rows = rng.standard_normal((3, 64), np.float32)
    rounded = rows @ matrix.astype(np.float16).astype(np.float32) * np.float32(1.0001) @ large
    np.testing.assert_allclose(run(halved, rows=rows), rounded, rtol=1e-3, atol=1e3 * 1e-3)
    assert store_in_half(halved) == halved


LAYOUT = Layout(CROP_DEFINITION, 0, 0, 8, 4, 4)


def test_stretches_are_of_train_clips_and_those_held_back_of_others(tmp_path):
    cache = make_cache(tmp_path / "cache", clips=30, frames=40)
    train = {clip.file for clip in read_manifest(cache) if clip.split == "train"}
    drawn = draw_stretches(cache, LAYOUT, seed=0)
    calibrated, held_back = ([s.file for s in part] for part in (drawn.calibrated, drawn.held_back))
    assert len(calibrated) > len(held_back) > 0
    assert sorted(calibrated + held_back) == sorted(train)  # each clip once
    for stretch in drawn.calibrated:
        assert (len(stretch.crops), len(stretch.lips), len(stretch.ticks)) == (12, 12, 8)
    again, other = (draw_stretches(cache, LAYOUT, seed=seed) for seed in (0, 1))
    assert [s.file for s in again.calibrated] == calibrated != [s.file for s in other.calibrated]


def test_stretches_need_clips_that_are_long_enough_and_the_students_crops(tmp_path):
    cache = make_cache(tmp_path / "cache", clips=6, frames=11)
    with pytest.raises(ConfigError, match="fewer than two train clips of 8 windows"):
        draw_stretches(cache, LAYOUT, seed=0)
    with pytest.raises(ConfigError, match="RGB"):
        draw_stretches(cache, Layout(FACE_CROP_DEFINITION, 0, 0, 8, 4, 4), seed=0)
