"""A trained network into a student: three ONNX graphs and the `model.json` that describes them."""

import hashlib
import inspect
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from avsync_cli.contract import CONTRACT_FILE, contract, is_calibrated
from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.model import load_student
from avsync_cli.spec import LIP_NUMBERS, MEL_BINS, UNKNOWN_ZERO_MS, WINDOW_FRAMES, WINDOW_MEL_STEPS
from export.graphs import Graphs, make_graphs
from export.known_answers import add_known_answers
from export.trained import Trained
from training.whole_file import write_contract

OPSET = 18


def export_student(
    trained: Trained, folder: Path, *, calibration: Path | None = None, name: str | None = None
) -> Path:
    """Write a student's folder whole or not at all; an older one in its place is replaced."""
    folder = folder.resolve()  # also of "."
    fitted = read_calibration(calibration) if calibration is not None else None
    with made_whole(folder) as made:
        if folder.exists() and any(folder.iterdir()) and not (folder / CONTRACT_FILE).exists():
            raise ConfigError(f"{folder}: holds something else than a student; choose another folder")
        graphs = make_graphs(trained.net, crop=trained.crop)
        declared = contract() | {
            **asdict(graphs.layout),
            "name": name or folder.name,
            "graphs": write_graphs(graphs, made),
            "zero_ms": 0.0,  # until `training zero` has measured it
            "zero_uncertainty_ms": UNKNOWN_ZERO_MS,
            "calibration": fitted,
            "training": trained.origin,
        }
        write_contract(made, declared)
        load_student(made)  # what cannot be loaded is not put in place
        add_known_answers(made)
    return folder


def loses_calibration(folder: Path) -> bool:
    """Whether a calibrated student is there, which one without a calibration would replace."""
    try:
        return is_calibrated(folder)
    except ModelError:  # none that this version can run
        return False


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the place of `folder`; after an error nothing has changed.

    Raises ConfigError where the system refuses to write.
    """
    folder = folder.resolve()  # the system renames no "."
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".student-") as temporary:
            made = Path(temporary) / "student"
            made.mkdir()
            yield made
            _put_in_place(made, folder, replaced=Path(temporary) / "replaced")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror or error}") from error


def _put_in_place(made: Path, folder: Path, *, replaced: Path) -> None:
    """Move `made` to `folder`, and what was there to `replaced`, or back where that fails."""
    try:
        if folder.exists():
            folder.rename(replaced)
        made.rename(folder)
    except BaseException:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise


def write_graph(model: onnx.ModelProto, path: Path) -> dict[str, str]:
    """Write a graph; returns its entry for `model.json`."""
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()}


def write_graphs(graphs: Graphs, folder: Path) -> dict[str, dict[str, str]]:
    """Write the three graphs; returns their entries for `model.json`."""
    layout = graphs.layout
    # Any sizes but 0 and 1, which the exporter would take for constants.
    frames = WINDOW_FRAMES + 2 * layout.reach_frames + 2
    steps = WINDOW_MEL_STEPS + 2 * layout.reach_mel_steps + 7
    clip = (torch.zeros(frames, *layout.frame_shape), torch.zeros(frames, LIP_NUMBERS))
    sound = (torch.zeros(steps, MEL_BINS), torch.tensor([0, 3, 6]))
    pairs = (torch.zeros(4, layout.video_width), torch.zeros(4, layout.audio_width))
    n, t, a, p = (Dim(name) for name in ("frames", "mel_steps", "windows", "pairs"))
    return {
        "video": _write(graphs.video, clip, (n, n), folder / "video.onnx"),
        "audio": _write(graphs.audio, sound, (t, a), folder / "audio.onnx"),
        "pair": _write(graphs.pair, pairs, (p, p), folder / "pair.onnx"),
    }


def read_calibration(path: Path) -> dict[str, Any]:
    """The calibration of `avsync_cli.model.Calibration` as JSON. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no calibration that can be read") from error
    if not isinstance(values, dict) or set(values) != {"weights", "min_confidence", "spread_ms"}:
        raise ConfigError(f"{path}: a calibration has weights, min_confidence and spread_ms")
    return values


def _write(
    graph: nn.Module, examples: tuple[Tensor, Tensor], first_axes: tuple[Dim, Dim], path: Path
) -> dict[str, str]:
    """Export one graph whose first axes are free; returns its entry for `model.json`."""
    # They warn of their own internals and of packages that we do not use; a test compares the numbers.
    for exporter in ("torch.onnx", "onnxscript"):
        logging.getLogger(exporter).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inspect.signature(graph.forward).parameters),
            output_names=["score" if path.stem == "pair" else path.stem],
            dynamic_shapes=tuple({0: axis} for axis in first_axes),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    model = program.model_proto
    _forget_the_source(model)
    return write_graph(model, path)


def _forget_the_source(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces of every node, with the paths of this machine."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
