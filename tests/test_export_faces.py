"""The converted face models: what is committed is well-formed, and what the exporter makes."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from avsync_cli.faces import ANSWERS_FILE, ASSETS, DETECTOR_FILE, MESH_FILE

SHAPES = {
    DETECTOR_FILE: {"image": ["N", 3, 128, 128], "boxes": ["N", 896, 16], "logits": ["N", 896]},
    MESH_FILE: {"image": ["N", 3, 192, 192], "landmarks": ["N", 468, 3], "presence": ["N"]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_asset_is_a_valid_model_of_the_declared_shape(name: str) -> None:
    model = onnx.load(ASSETS / name)
    onnx.checker.check_model(model, full_check=True)
    declared = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert declared == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_asset_avoids_the_slow_kernel_and_vendor_operators(name: str) -> None:
    graph = onnx.load(ASSETS / name).graph
    assert {node.domain for node in graph.node} == {""}
    assert "PRelu" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize("name", SHAPES)
def test_asset_runs_on_any_batch(name: str) -> None:
    session = ort.InferenceSession(ASSETS / name, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, *SHAPES[name]["image"][1:]), np.float32)
    together = session.run(None, {"image": images})
    for index, image in enumerate(images):
        alone = session.run(None, {"image": image[None]})
        for both, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(both[index], one[0], rtol=1e-4, atol=1e-3)


def test_notice_names_every_model() -> None:
    notice = (ASSETS / "NOTICE").read_text()
    assert "The MediaPipe Authors" in notice
    assert all(name in notice for name in SHAPES)
    assert "Version 2.0, January 2004" in (ASSETS / "LICENSE-APACHE-2.0.txt").read_text()


@pytest.mark.parametrize("name", SHAPES)
def test_padding_is_tensorflows_with_the_odd_pixel_last(name: str) -> None:
    """As TensorFlow documents "SAME": an output for every stride that begins in the input."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(ASSETS / name), data_prop=True).graph
    sides = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim[2:]]
        for value in (*graph.input, *graph.value_info)
    }
    odd = 0
    for node in graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Conv" and any(given["pads"]):
            pads, kernel, strides = given["pads"], given["kernel_shape"], given["strides"]
            for axis, side in enumerate(sides[node.input[0]]):
                missing = max(0, (math.ceil(side / strides[axis]) - 1) * strides[axis] + kernel[axis] - side)
                assert (pads[axis], pads[axis + 2]) == (missing // 2, missing - missing // 2), node.name
                odd += missing % 2
    assert odd  # or nothing was looked at


def test_wheel_of_another_hash_is_refused(tmp_path: Path) -> None:
    faces = pytest.importorskip("export.faces", exc_type=ImportError)
    (tmp_path / "mediapipe-0.10.21-any.whl").write_bytes(b"something else")
    with pytest.raises(faces.WheelError, match="sha256"):
        faces.require_pinned(tmp_path / "mediapipe-0.10.21-any.whl")


@pytest.mark.network
def test_exporter_reproduces_the_assets(tmp_path: Path) -> None:
    faces = pytest.importorskip("export.faces", exc_type=ImportError)
    for written in faces.export_faces(tmp_path):
        assert written.read_bytes() == (ASSETS / written.name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*SHAPES, ANSWERS_FILE])
