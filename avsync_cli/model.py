"""The student as an artefact: three ONNX graphs and a `model.json` that says what they expect.

The video encoder and the audio encoder run once per window; the pair scorer runs on each pair, so 31
candidates cost 31 small products and not 31 networks. A student made for another sample rate, mel,
crop or window is refused, because it would answer, and wrongly.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from avsync_cli import spec
from avsync_cli.errors import ModelError
from avsync_cli.scan import CURVE_FEATURES

DEFAULT_STUDENT = Path(__file__).parent / "assets" / "student"
CONTRACT_FILE = "model.json"
# The graphs and their inputs, without the batch; D, the width of the embeddings, is the student's own.
GRAPHS: dict[str, dict[str, list[int] | None]] = {
    "video": {
        "frames": [spec.WINDOW_FRAMES, spec.CROP_HEIGHT, spec.CROP_WIDTH],
        "lips": [spec.WINDOW_FRAMES, spec.LIP_NUMBERS],
    },
    "audio": {"mels": [spec.MEL_BINS, spec.WINDOW_MEL_STEPS]},
    "pair": {"video": None, "audio": None},
}

_BATCH_WINDOWS = 32  # windows encoded at a time: larger batches are no faster on small CPUs
_BATCH_PAIRS = 4096

Floats = NDArray[np.float32]


def contract() -> dict[str, Any]:
    """What a student must declare to be run by this version: plain JSON values."""
    return {
        "format": spec.ARTEFACT_FORMAT,
        "version": spec.ARTEFACT_VERSION,
        "video_fps": spec.VIDEO_FPS,
        "sample_rate_hz": spec.SAMPLE_RATE_HZ,
        "window_frames": spec.WINDOW_FRAMES,
        "window_mel_steps": spec.WINDOW_MEL_STEPS,
        "range_frames": spec.RANGE_FRAMES,
        "mel": {
            "n_fft": spec.N_FFT,
            "hop_samples": spec.HOP_SAMPLES,
            "bins": spec.MEL_BINS,
            "min_hz": spec.MEL_MIN_HZ,
            "max_hz": spec.MEL_MAX_HZ,
        },
        "crop": spec.CROP_DEFINITION,
        "lips": spec.LIPS_DEFINITION,
    }


@dataclass(frozen=True)
class Calibration:
    """Turns a curve into a probability; fitted on clips that were not trained on (see `assess`).

    `weights` belong to `scan.curve_features`. 90 % of the accepted answers are right to within
    spread_ms[0] + spread_ms[1] / sqrt(windows).
    """

    weights: tuple[float, ...]
    min_confidence: float
    spread_ms: tuple[float, float]


class Student:
    """A loaded student. V, A, P: video windows, audio windows, pairs; D: embedding width."""

    def __init__(
        self,
        name: str,
        sha256: str,
        calibration: Calibration | None,
        sessions: Mapping[str, ort.InferenceSession],
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.calibration = calibration
        self._sessions = sessions

    def encode_video(self, crops: NDArray[np.uint8], lips: Floats) -> Floats:
        """Crops [N, 48, 96] and lip geometry [N, 40, 3] of consecutive ticks -> [N - 4, D].

        Row i stands for the window of ticks i .. i + 4.
        """
        windows = len(crops) - spec.WINDOW_FRAMES + 1
        if windows < 1:
            return np.zeros((0, 0), np.float32)
        steps = np.arange(windows)[:, None] + np.arange(spec.WINDOW_FRAMES)
        flat = lips.reshape(len(lips), spec.LIP_NUMBERS)
        return np.concatenate(
            [
                self._run("video", {"frames": crops[rows].astype(np.float32), "lips": flat[rows]})
                for rows in np.split(steps, range(_BATCH_WINDOWS, windows, _BATCH_WINDOWS))
            ]
        )

    def encode_audio(self, mels: Floats) -> Floats:
        """Audio windows [A, 80, 16] -> [A, D]."""
        parts = np.split(mels, range(_BATCH_WINDOWS, len(mels), _BATCH_WINDOWS))
        return np.concatenate([self._run("audio", {"mels": part}) for part in parts])

    def score(self, video: Floats, audio: Floats) -> Floats:
        """Scores [P] of the pairs video [P, D], audio [P, D]: higher = more in sync."""
        cuts = range(_BATCH_PAIRS, len(video), _BATCH_PAIRS)
        pairs = zip(np.split(video, cuts), np.split(audio, cuts), strict=True)
        return np.concatenate([self._run("pair", {"video": v, "audio": a}) for v, a in pairs])

    def _run(self, graph: str, inputs: dict[str, Floats]) -> Floats:
        try:
            output: Floats = self._sessions[graph].run(None, inputs)[0]
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise ModelError(
                f"{self.name}: its {graph} graph failed: {str(error).splitlines()[0]}"
            ) from error
        return output


def load_student(folder: str | Path | None = None, *, threads: int = 1) -> Student:
    """Load a student's folder, the bundled one by default.

    Raises ModelError where a file is missing, is not what `model.json` says, or was made for another
    contract.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, sha256 = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    sessions = {}
    for graph, inputs in GRAPHS.items():
        entry = declared["graphs"].get(graph)
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("file", "sha256")):
            raise ModelError(f"{folder / CONTRACT_FILE}: does not describe the {graph} graph")
        sessions[graph] = open_session(
            folder / entry["file"], threads=threads, inputs=inputs, sha256=entry["sha256"]
        )
    return Student(_name_of(folder, declared), sha256, _read_calibration(folder, declared), sessions)


def identify_student(folder: str | Path | None = None) -> tuple[str, str]:
    """Name and SHA-256 of a student, the bundled one by default, without loading its graphs.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, sha256 = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    return _name_of(folder, declared), sha256


def open_session(
    path: Path, *, threads: int, inputs: Mapping[str, list[int] | None], sha256: str | None = None
) -> ort.InferenceSession:
    """Open an ONNX graph for a CPU that others use too: given threads, none of them spinning.

    `inputs` are the names that it must have, with their shapes after the batch (None: any). Raises
    ModelError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path}: damaged, its SHA-256 is not the one that {CONTRACT_FILE} gives")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelError(f"{path}: not a model that ONNX Runtime can load") from error
    found = {entry.name: entry.shape[1:] for entry in session.get_inputs()}
    wrong = [name for name, shape in inputs.items() if shape not in (None, found.get(name))]
    if found.keys() != inputs.keys() or wrong:
        raise ModelError(f"{path}: has the inputs {found}, expected {dict(inputs)}")
    return session


def _read_contract(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / CONTRACT_FILE
    try:
        data = path.read_bytes()
        declared = json.loads(data)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON") from error
    if not isinstance(declared, dict) or not isinstance(declared.get("graphs"), dict):
        raise ModelError(f"{path}: does not describe a student")
    return declared, hashlib.sha256(data).hexdigest()


def _name_of(folder: Path, declared: dict[str, Any]) -> str:
    return str(declared.get("name", folder.name))


def _refuse_mismatch(folder: Path, declared: dict[str, Any]) -> None:
    for key, expected in contract().items():
        if declared.get(key) != expected:
            raise ModelError(
                f"{folder / CONTRACT_FILE}: made for {key} = {declared.get(key)!r}, "
                f"but this version of avsync needs {expected!r}"
            )


def _read_calibration(folder: Path, declared: dict[str, Any]) -> Calibration | None:
    values = declared.get("calibration")
    if values is None:
        return None
    try:
        weights = tuple(float(weight) for weight in values["weights"])
        floor_ms, slope_ms = (float(value) for value in values["spread_ms"])
        least = float(values["min_confidence"])
        if len(weights) != CURVE_FEATURES or not np.isfinite([*weights, floor_ms, slope_ms, least]).all():
            raise ValueError("not the numbers that the confidence is made from")
        return Calibration(weights, least, (floor_ms, slope_ms))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONTRACT_FILE}: its calibration cannot be read") from error
