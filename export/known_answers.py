"""What every graph gives for known inputs, kept beside it for `avsync doctor`.

It is computed with onnx's reference implementation in numpy, not with ONNX Runtime: kernels are what is to be
tested, and those for 8 bits are not exact on every CPU.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from avsync_cli.contract import CONTRACT_FILE, describe_graphs, precisions_of
from avsync_cli.errors import ConfigError
from avsync_cli.faces import ANSWERS_FILE, FACE_INPUTS
from avsync_cli.known_answer import (
    FP32_TOLERANCE,
    INT8_TOLERANCE,
    Arrays,
    describe_answer,
    face_inputs,
    student_inputs,
)
from avsync_cli.model import load_student
from avsync_cli.spec import Precision
from training.whole_file import write_contract, write_json

REFERENCE_OPSET = 21  # it has no quantisation from before 19
TOLERANCES: Mapping[Precision, float] = {"fp32": FP32_TOLERANCE, "int8": INT8_TOLERANCE}


def add_known_answers(folder: Path) -> None:
    """Put the known answers of all of a student's graphs into its `model.json`, whole or not at all."""
    answers = {precision: answer_student(folder, precision=precision) for precision in precisions_of(folder)}
    declared = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    for precision, of_graphs in answers.items():
        entries = declared["graphs" if precision == "fp32" else "int8"]
        for graph, answer in of_graphs.items():
            entries[graph]["known_answer"] = answer
    write_contract(folder, declared)


def answer_student(folder: Path, *, precision: Precision) -> dict[str, dict[str, Any]]:
    """The known answers of a student's graphs by name. Raises ConfigError or ModelError."""
    load_student(folder, precision=precision)  # what is damaged gets no answer
    layout, files = describe_graphs(folder, precision=precision)
    inputs = student_inputs(layout)
    return {
        graph: _answer(file.path, inputs[graph], tolerance=TOLERANCES[precision])
        for graph, file in files.items()
    }


def write_face_answers(folder: Path) -> Path:
    """Write the known answers of the face models of a folder beside them."""
    answers = {
        file: _answer(folder / file, face_inputs(shapes), tolerance=FP32_TOLERANCE)
        for file, shapes in FACE_INPUTS.items()
    }
    path = folder / ANSWERS_FILE
    write_json(path, answers)
    return path


def _answer(path: Path, inputs: Arrays, *, tolerance: float) -> dict[str, Any]:
    """Raises ConfigError where it is no graph, or has operators that the reference does not know."""
    try:
        model = version_converter.convert_version(onnx.load(path), REFERENCE_OPSET)
        names = [output.name for output in model.graph.output]
        outputs: Any = ReferenceEvaluator(model).run(None, dict(inputs))
    except Exception as error:  # those of onnx and of protobuf share no public base class
        raise ConfigError(f"{path}: onnx's reference cannot run it: {error}") from error
    return describe_answer(dict(zip(names, outputs, strict=True)), tolerance=tolerance)
