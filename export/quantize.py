"""int8 graphs for a student that is there already, calibrated and judged on clips that it was trained on."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx

from avsync_cli.contract import CONTRACT_FILE, GRAPHS, precisions_of
from avsync_cli.errors import ConfigError
from avsync_cli.model import Student, load_student
from export.half import is_in_half, store_in_half
from export.int8 import (
    Method,
    has_convolutions,
    has_products,
    quantize_encoder,
    quantize_products,
)
from export.known_answers import add_known_answers
from export.stretches import Stretch, Stretches, draw_stretches, inputs_of
from export.student import made_whole, write_graph
from training.data.cache import MANIFEST, sha256_of
from training.whole_file import write_contract

Storage = Literal["fp32", "fp16"]

_MOVES_WINDOWS = (0, 1, 5, 12)  # of the sound against the picture, when scores are compared


@dataclass(frozen=True)
class Quantized:
    """What was made: `drift` of scores by method (root mean square over fp32's spread), and the one taken.

    `storage` is that of the fp32 graphs' weights now.
    """

    folder: Path
    graphs: tuple[str, ...]
    method: Method | None
    drift: dict[Method, float]
    storage: Storage


def quantize_student(
    folder: Path,
    cache: Path | None = None,
    *,
    method: Method | None = None,
    storage: Storage = "fp32",
    seed: int = 0,
) -> Quantized:
    """Give a student's folder int8 graphs, whole or not at all; older ones are replaced.

    Encoders are calibrated on train clips of `cache`, without which they stay as they are, by the method
    that moves scores least on further train clips where none is given. With `storage` fp16 the fp32 graphs'
    weights are stored so, before anything is made from them. Raises ConfigError or ModelError.
    """
    folder = folder.resolve()  # also of ".", which is another folder once it is replaced
    student = load_student(folder)
    if cache is None and method is not None:
        raise ConfigError("--method: needs --cache with clips to calibrate on")
    if cache is None and _int8_of(folder).keys() & {"video", "audio"}:
        raise ConfigError(f"{folder}: its encoders would lose their int8 graphs; give --cache")
    stretches = None if cache is None else draw_stretches(cache, student.layout, seed=seed)
    with made_whole(folder) as made:
        declared = _take_over(folder, made, storage)
        drift: dict[Method, float] = {}
        if stretches is not None:
            drift = _quantize_encoders(made, declared, stretches, method)
        graph = made / declared["graphs"]["pair"]["file"]
        if has_products(graph):
            declared["int8"]["pair"] = write_graph(quantize_products(graph), made / "pair.int8.onnx")
        if not declared["int8"] and storage == "fp32":
            raise ConfigError(f"{folder}: without --cache there is nothing in it to quantize")
        taken = min(drift.items(), key=lambda item: item[1])[0] if drift else None
        if stretches is not None and cache is not None:
            declared["quantization"] = {
                "method": taken,
                "seed": seed,
                "drift": {name: round(value, 5) for name, value in drift.items()},
                "cache_manifest_sha256": sha256_of(cache / MANIFEST),
                "calibrated_on": [stretch.file for stretch in stretches.calibrated],
                "judged_on": [stretch.file for stretch in stretches.held_back],
            }
        write_contract(made, declared)
        load_student(made, precision="int8" if declared["int8"] else "fp32")
        add_known_answers(made)
        halves = [is_in_half(onnx.load(made / declared["graphs"][name]["file"])) for name in GRAPHS]
    return Quantized(folder, tuple(declared["int8"]), taken, drift, "fp16" if any(halves) else "fp32")


def scores_drift(student: Student, reference: Student, stretches: Iterable[Stretch]) -> float:
    """Root mean square of how far scores are off, over the standard deviation of the reference's.

    Pairs are those of each window with the sound of its own and of some other windows of the stretch.
    """
    errors, expected = [], []
    for stretch in stretches:
        found, right = (_scores(each, stretch) for each in (student, reference))
        errors.append(found - right)
        expected.append(right)
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)) / np.std(np.concatenate(expected)))


def _scores(student: Student, stretch: Stretch) -> np.ndarray[Any, np.dtype[np.float32]]:
    video = student.encode_video(stretch.crops, stretch.lips)
    audio = student.encode_audio(stretch.mel, stretch.ticks)
    count = min(len(video), len(audio))
    moved = [np.roll(audio[:count], move, axis=0) for move in _MOVES_WINDOWS]
    return student.score(np.concatenate([video[:count]] * len(moved)), np.concatenate(moved))


def _int8_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of a student's int8 graphs, if it has any. Raises ModelError."""
    precisions_of(folder)
    declared = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    return declared.get("int8") or {}


def _take_over(folder: Path, made: Path, storage: Storage) -> dict[str, Any]:
    """Put the fp32 graphs into the new folder, and whatever else lies there but int8 graphs."""
    declared: dict[str, Any] = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    old = {entry["file"] for entry in _int8_of(folder).values()}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.copytree(path, made / path.name, symlinks=True)
        elif path.name not in old | {CONTRACT_FILE}:
            shutil.copy2(path, made / path.name)
    if storage == "fp16":
        for graph in GRAPHS:
            path = made / declared["graphs"][graph]["file"]
            declared["graphs"][graph] = write_graph(store_in_half(onnx.load(path)), path)
    declared.pop("quantization", None)
    declared["int8"] = {}
    return declared


def _quantize_encoders(
    made: Path, declared: dict[str, Any], stretches: Stretches, method: Method | None
) -> dict[Method, float]:
    """Write the encoders' int8 graphs and their entries; returns the drift of each method tried."""
    write_contract(made, declared)
    reference = load_student(made)
    encoders = [
        graph for graph in ("video", "audio") if has_convolutions(made / declared["graphs"][graph]["file"])
    ]
    inputs = {graph: inputs_of(stretches.calibrated, reference.layout, graph) for graph in encoders}
    drift: dict[Method, float] = {}
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        for name in (method,) if method is not None else get_args(Method):
            candidate = Path(scratch) / name
            shutil.copytree(made, candidate)
            entries = {}
            for graph in encoders:
                path = made / declared["graphs"][graph]["file"]
                model = quantize_encoder(path, inputs[graph], method=name)
                entries[graph] = write_graph(model, candidate / f"{graph}.int8.onnx")
            write_contract(candidate, declared | {"int8": entries})
            student = load_student(candidate, precision="int8")
            drift[name] = scores_drift(student, reference, stretches.held_back)
            if drift[name] == min(drift.values()):
                declared["int8"] = entries
                for entry in entries.values():
                    shutil.copy2(candidate / entry["file"], made / entry["file"])
    return drift
