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

from avsync_cli.contract import CONTRACT_FILE, contract
from avsync_cli.spec import CROP_DEFINITION, FACE_CROP_DEFINITION

UPPER_LIP_Y, LOWER_LIP_Y = 3 * 2 + 1, 3 * 3 + 1  # points 13 and 14 stand third and fourth; y points up
CALIBRATION = {"weights": [-6.0, 0.0, 120.0, 0.5, 0.0], "min_confidence": 0.5, "spread_ms": [20.0, 100.0]}
LAYOUT = {
    "crop": CROP_DEFINITION,
    "reach_frames": 0,
    "reach_mel_steps": 0,
    "chunk_windows": 32,
    "video_width": 5,
    "audio_width": 5,
}
REACH_FRAMES, REACH_MEL_STEPS = 2, 3


def write_student(folder: Path, **changes: Any) -> Path:
    """Write the three graphs and their contract, with `changes` to the contract."""
    colours = [3] if changes.get("crop") == FACE_CROP_DEFINITION else []
    graphs = {"video": _video(5, colours), "audio": _audio(), "pair": _pair(5, 5)}
    return _write(folder, graphs, changes)


def write_far_student(folder: Path, **changes: Any) -> Path:
    """A student that looks beyond its windows, and gives what it sees there.

    A video row is the gap in the window's frames and in two on either side [9], an audio row the loudness
    of its mel steps and of three on either side [22]; a score is the sum of both.
    """
    wide, long = 5 + 2 * REACH_FRAMES, 16 + 2 * REACH_MEL_STEPS
    layout = {"reach_frames": REACH_FRAMES, "reach_mel_steps": REACH_MEL_STEPS}
    layout |= {"video_width": wide, "audio_width": long}
    graphs = {"video": _video(wide), "audio": _far_audio(long), "pair": _sum_pair(wide, long)}
    return _write(folder, graphs, layout | changes)


def add_int8(folder: Path, *, factor: float = 2.0) -> Path:
    """Give a student an int8 pair graph that can be told from its own: scores are `factor` times those."""
    model = onnx.load(folder / "pair.onnx")
    model.graph.node[-1].output[0] = "own"
    model.graph.node.append(helper.make_node("Mul", ["own", "factor"], ["score"]))
    model.graph.initializer.append(_constant("factor", np.float32(factor)))
    data = model.SerializeToString()
    (folder / "pair.int8.onnx").write_bytes(data)
    declared = json.loads((folder / CONTRACT_FILE).read_text())
    declared["int8"] = {"pair": {"file": "pair.int8.onnx", "sha256": hashlib.sha256(data).hexdigest()}}
    (folder / CONTRACT_FILE).write_text(json.dumps(declared))
    return folder


def _write(folder: Path, graphs: dict[str, onnx.GraphProto], changes: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        data = model.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
        entries[name] = {"file": f"{name}.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    declared = contract() | LAYOUT | {"name": "lips-and-loudness", "graphs": entries}
    declared |= {"zero_ms": 0.0, "zero_uncertainty_ms": 0.0, "calibration": CALIBRATION}
    (folder / CONTRACT_FILE).write_text(json.dumps(declared | changes))
    return folder


def _video(length: int, colours: list[int] | None = None) -> onnx.GraphProto:
    """The gap in `length` frames from each on that has so many: [N, 120] -> [N - length + 1, length]."""
    gap = np.zeros((120, 1), np.float32)
    gap[UPPER_LIP_Y], gap[LOWER_LIP_Y] = 1, -1
    nodes = [helper.make_node("MatMul", ["lips", "gap"], ["open"])]
    constants = [_constant("gap", gap), _constant("first_axis", np.array([0], np.int64))]
    for place in range(length):
        end = place - length + 1
        constants.append(_constant(f"begin{place}", np.array([place], np.int64)))
        constants.append(_constant(f"end{place}", np.array([end or 2**31], np.int64)))
        cut = ["open", f"begin{place}", f"end{place}", "first_axis"]
        nodes.append(helper.make_node("Slice", cut, [f"frame{place}"]))
    frames = [f"frame{place}" for place in range(length)]
    nodes.append(helper.make_node("Concat", frames, ["video"], axis=1))
    inputs = [_floats("frames", ["N", 48, 96, *(colours or [])]), _floats("lips", ["N", 120])]
    return helper.make_graph(nodes, "video", inputs, [_floats("video", ["V", length])], constants)


def _audio() -> onnx.GraphProto:
    frames = np.zeros((16, 5), np.float32)
    for step in range(16):
        frames[step, step * 5 // 16] = 1 / 80 / 3.2
    nodes, constants = _windows_of_mel(16, "loud")
    nodes.append(helper.make_node("MatMul", ["loud", "by_frame"], ["audio"]))
    return _audio_graph(nodes, [*constants, _constant("by_frame", frames)], 5)


def _far_audio(length: int) -> onnx.GraphProto:
    nodes, constants = _windows_of_mel(length, "audio")
    return _audio_graph(nodes, constants, length)


def _windows_of_mel(length: int, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The sum over all bins of `length` mel steps from every start on: [A, length]."""
    nodes = [
        helper.make_node("Unsqueeze", ["starts", "last"], ["begin"]),
        helper.make_node("Add", ["begin", "places"], ["steps"]),
        helper.make_node("Gather", ["mel", "steps"], ["windows"], axis=0),
        helper.make_node("ReduceSum", ["windows", "bins"], [output], keepdims=0),
    ]
    places = _constant("places", np.arange(length)[None])
    axes = {"last": 1, "bins": 2}
    return nodes, [places, *(_constant(name, np.array([axis], np.int64)) for name, axis in axes.items())]


def _audio_graph(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], width: int
) -> onnx.GraphProto:
    starts = helper.make_tensor_value_info("starts", TensorProto.INT64, ["A"])
    inputs = [_floats("mel", ["T", 80]), starts]
    return helper.make_graph(nodes, "audio", inputs, [_floats("audio", ["A", width])], constants)


def _pair(wide: int, long: int) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Mul", ["video", "audio"], ["both"]),
        helper.make_node("ReduceSum", ["both", "axis"], ["score"], keepdims=0),
    ]
    return _pair_graph(nodes, wide, long)


def _sum_pair(wide: int, long: int) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Concat", ["video", "audio"], ["both"], axis=1),
        helper.make_node("ReduceSum", ["both", "axis"], ["score"], keepdims=0),
    ]
    return _pair_graph(nodes, wide, long)


def _pair_graph(nodes: list[onnx.NodeProto], wide: int, long: int) -> onnx.GraphProto:
    inputs = [_floats("video", ["P", wide]), _floats("audio", ["P", long])]
    axis = _constant("axis", np.array([1], np.int64))
    return helper.make_graph(nodes, "pair", inputs, [_floats("score", ["P"])], [axis])


def _floats(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _constant(name: str, values: np.ndarray | np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)
