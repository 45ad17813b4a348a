"""What a graph must give for given inputs, kept beside it, so that a device can find out whether it does.

The inputs are waves of whole numbers: the same on every machine, unlike random numbers of a library's
version. Of each output a few numbers are kept; a wrong kernel is wrong in many of them.

An answer in JSON: {"tolerance": 0.0001, "outputs": {"score": {"shape": [4], "mean": 0.1, "rms": 0.5,
"values": [...]}}}. Its `values` stand at evenly spaced places of the output; errors are counted in its `rms`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from avsync_cli import spec
from avsync_cli.contract import Layout

Arrays = Mapping[str, NDArray[Any]]

FP32_TOLERANCE = 1e-4  # CPUs add up in different orders: 1e-5 on those that were tried
INT8_TOLERANCE = 0.02  # and a number between two steps may then be rounded either way
VALUES = 16
_PERIOD = 61  # prime, so that no axis repeats itself soon
_STEPS = (11, 5, 3, 7)  # of the wave along each axis
_DIGITS = 7


def student_inputs(layout: Layout) -> dict[str, Arrays]:
    """Inputs of the three graphs: four video windows, three audio windows, four pairs."""
    frames = spec.WINDOW_FRAMES + 2 * layout.reach_frames + 3
    starts = np.array([0, 3, 6])
    steps = spec.WINDOW_MEL_STEPS + 2 * layout.reach_mel_steps + int(starts[-1])
    return {
        "video": {
            "frames": make_wave([frames, *layout.frame_shape], low=0, high=255),
            "lips": make_wave([frames, spec.LIP_NUMBERS], low=-2, high=2),
        },
        "audio": {
            "mel": make_wave([steps, spec.MEL_BINS], low=-spec.MEL_LIMIT, high=spec.MEL_LIMIT),
            "starts": starts,
        },
        "pair": {
            "video": make_wave([4, layout.video_width], low=-1, high=1),
            "audio": make_wave([4, layout.audio_width], low=-1, high=1)[::-1],
        },
    }


def face_inputs(shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """Inputs of a face graph, whose shapes after the first axis are given: two pictures."""
    return {name: make_wave([2, *shape], low=0, high=1) for name, shape in shapes.items()}


def make_wave(shape: Sequence[int], *, low: float, high: float) -> NDArray[np.float32]:
    """A triangle wave through all axes, from `low` to `high`."""
    place = np.tensordot(_STEPS[: len(shape)], np.indices(shape), 1)
    height = np.abs(place % _PERIOD - _PERIOD // 2) / (_PERIOD // 2)
    wave: NDArray[np.float32] = (low + (high - low) * height).astype(np.float32)
    return wave


def run_graph(session: ort.InferenceSession, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
    """All outputs by name."""
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def describe_answer(outputs: Arrays, *, tolerance: float = FP32_TOLERANCE) -> dict[str, Any]:
    """What is kept of a graph's outputs, as JSON."""
    described = {}
    for name, output in outputs.items():
        mean, rms, values = _summarise(output)
        numbers = {"mean": _rounded(mean), "rms": _rounded(rms), "values": list(map(_rounded, values))}
        described[name] = {"shape": list(output.shape), **numbers}
    return {"tolerance": tolerance, "outputs": described}


def measure_error(outputs: Arrays, answer: Mapping[str, Any]) -> float:
    """The largest deviation from a kept answer, in rms of its output; infinite where shapes or numbers
    cannot be compared.

    Raises ValueError where the answer is none.
    """
    try:
        kept = {
            name: (list(entry["shape"]), float(entry["rms"]), [entry["mean"], entry["rms"], *entry["values"]])
            for name, entry in answer["outputs"].items()
        }
        expected = {name: np.array(numbers, np.float64) for name, (_, _, numbers) in kept.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a known answer") from error
    if {name: list(output.shape) for name, output in outputs.items()} != {n: k[0] for n, k in kept.items()}:
        return np.inf
    worst = 0.0
    for name, output in outputs.items():
        mean, rms, values = _summarise(output)
        found = np.array([mean, rms, *values])
        if len(found) != len(expected[name]) or not np.isfinite(found).all():
            return np.inf
        scale = max(kept[name][1], np.finfo(np.float32).tiny)
        worst = max(worst, float(np.abs(found - expected[name]).max() / scale))
    return worst


def _summarise(output: NDArray[Any]) -> tuple[float, float, list[float]]:
    """Mean, root mean square, and evenly spaced values, of which the last is the output's last."""
    flat = output.astype(np.float64).ravel()
    if not flat.size:
        return 0.0, 0.0, []
    places = np.linspace(0, flat.size - 1, min(VALUES, flat.size)).round().astype(np.int64)
    return float(flat.mean()), float(np.sqrt((flat**2).mean())), flat[places].tolist()


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
