"""ONNX Runtime: a graph opened for a CPU that others use too."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from avsync_cli.contract import CONTRACT_FILE, MAX_GRAPH_BYTES, read_regular_file
from avsync_cli.errors import ModelError
from avsync_cli.machine import may_use_kleidiai
from avsync_cli.operators import OperatorError, refuse_operators


def open_session(
    path: Path,
    *,
    threads: int,
    inputs: Mapping[str, list[int]],
    sha256: str | None = None,
    kleidiai: bool | None = None,
) -> ort.InferenceSession:
    """Open an ONNX graph for a CPU that others use too: given threads, none of them spinning.

    `inputs` are the names that it must have, with their shapes after the first axis; `kleidiai` whether it
    may use Arm's own kernels, as `machine.may_use_kleidiai` says by default. Raises ModelError.
    """
    data = read_regular_file(path, most_bytes=MAX_GRAPH_BYTES)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path}: damaged, its SHA-256 is not the one that {CONTRACT_FILE} gives")
    try:
        refuse_operators(data)
    except OperatorError as error:
        raise ModelError(f"{path}: {error}") from error
    ort.disable_telemetry_events()  # beside `telemetry`: Windows knows no variable
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # memory planned for each new shape would never be given back
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A graph that names other files for its numbers finds none: a student's numbers are in its graphs.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if not (may_use_kleidiai() if kleidiai is None else kleidiai):
        options.add_session_config_entry("mlas.disable_kleidiai", "1")
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelError(f"{path}: not a model that ONNX Runtime can load") from error
    found = {entry.name: entry.shape[1:] for entry in session.get_inputs()}
    if found != dict(inputs):
        raise ModelError(f"{path}: has the inputs {found}, expected {dict(inputs)}")
    return session
