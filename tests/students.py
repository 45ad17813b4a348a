"""A student made by hand, for tests of what is around a student.

It compares how far the lips are open with how loud the sound is: the video embedding of a window is the
gap between the inner lips in its 5 frames, the audio embedding the mean mel of the same 5 frames, and
the score of a pair their product. No training, so its answers follow from the media alone.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from avsync_cli.model import CONTRACT_FILE, contract

UPPER_LIP_Y, LOWER_LIP_Y = 3 * 2 + 1, 3 * 3 + 1  # points 13 and 14 stand third and fourth; y points up
CALIBRATION = {"weights": [-6.0, 0.0, 120.0, 0.5], "min_confidence": 0.5, "spread_ms": [20.0, 100.0]}


def write_student(folder: Path, **changes: Any) -> Path:
    """Write the three graphs and their contract, with `changes` to the contract."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {}
    for name, graph in {"video": _video(), "audio": _audio(), "pair": _pair()}.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        data = model.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
        graphs[name] = {"file": f"{name}.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    declared = contract() | {"name": "lips-and-loudness", "graphs": graphs, "calibration": CALIBRATION}
    (folder / CONTRACT_FILE).write_text(json.dumps(declared | changes))
    return folder


def _video() -> onnx.GraphProto:
    gap = np.zeros((5 * 120, 5), np.float32)
    for frame in range(5):
        gap[frame * 120 + UPPER_LIP_Y, frame] = 1
        gap[frame * 120 + LOWER_LIP_Y, frame] = -1
    nodes = [
        helper.make_node("Flatten", ["lips"], ["flat"]),
        helper.make_node("MatMul", ["flat", "gap"], ["video"]),
    ]
    inputs = [_floats("frames", ["B", 5, 48, 96]), _floats("lips", ["B", 5, 120])]
    return helper.make_graph(nodes, "video", inputs, [_floats("video", ["B", 5])], [_constant("gap", gap)])


def _audio() -> onnx.GraphProto:
    frames = np.zeros((16, 5), np.float32)
    for step in range(16):
        frames[step, step * 5 // 16] = 1 / 80 / 3.2
    nodes = [
        helper.make_node("ReduceSum", ["mels", "bins"], ["loud"], keepdims=0),
        helper.make_node("MatMul", ["loud", "frames"], ["audio"]),
    ]
    constants = [_constant("frames", frames), _constant("bins", np.array([1], np.int64))]
    return helper.make_graph(
        nodes, "audio", [_floats("mels", ["B", 80, 16])], [_floats("audio", ["B", 5])], constants
    )


def _pair() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Mul", ["video", "audio"], ["product"]),
        helper.make_node("ReduceSum", ["product", "axis"], ["score"], keepdims=0),
    ]
    inputs = [_floats("video", ["P", 5]), _floats("audio", ["P", 5])]
    axis = _constant("axis", np.array([1], np.int64))
    return helper.make_graph(nodes, "pair", inputs, [_floats("score", ["P"])], [axis])


def _floats(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _constant(name: str, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)
