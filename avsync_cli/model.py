"""The student as an artefact: three ONNX graphs and a `model.json` that says what they expect.

N frames and T mel steps of a clip; V, A, P: video windows, audio windows, pairs; D, E: numbers that a video
and an audio window are encoded into: one embedding, or the tokens of 5 frames and of 16 mel steps.

    video   frames [N, 48, 96] in 0..255 (RGB faces: [N, 48, 96, 3]), lips [N, 120] -> [N - 4 - 2r, D]
    audio   mel [T, 80], starts [A] -> [A, E]
    pair    video [P, D], audio [P, E] -> score [P]

Both encoders run once on each stretch of a clip, so windows share what they have in common, and the pair
scorer on each pair. An encoder may look r frames or s mel steps beyond its window: row i of `video` stands
for frames r + i .. r + i + 4, and `starts` says where the s steps before each audio window begin. A student
made for another sample rate, mel, crop or window is refused, because it would answer, and wrongly.

Beside `graphs` there may be `int8`, with entries of the same kind for some of the graphs: the same functions
in 8 bits, nearly. A graph that has no such form runs as it is.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from avsync_cli import spec
from avsync_cli.cpu import may_use_kleidiai
from avsync_cli.errors import ModelError
from avsync_cli.mel import MelTrack
from avsync_cli.scan import CURVE_FEATURES
from avsync_cli.spec import Precision

DEFAULT_STUDENT = Path(__file__).parent / "assets" / "student"
CONTRACT_FILE = "model.json"
GRAPHS = ("video", "audio", "pair")
CROPS = (spec.CROP_DEFINITION, spec.FACE_CROP_DEFINITION)  # that `tracks` can cut

_PAIR_NUMBERS = 1 << 19  # in a batch of pairs, 2 MB: larger batches are no faster on small CPUs

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """What differs from student to student: keys of `model.json` beside those of `contract`."""

    crop: str
    reach_frames: int  # r
    reach_mel_steps: int  # s
    chunk_windows: int  # that its encoders take at a time: memory and speed, not results
    video_width: int  # D
    audio_width: int  # E

    @property
    def frame_shape(self) -> list[int]:
        """Of one frame of `crop`."""
        colours = [3] if self.crop == spec.FACE_CROP_DEFINITION else []
        return [spec.CROP_HEIGHT, spec.CROP_WIDTH, *colours]

    def inputs(self) -> dict[str, dict[str, list[int]]]:
        """The graphs and the shapes of their inputs after the first axis, which is free."""
        return {
            "video": {"frames": self.frame_shape, "lips": [spec.LIP_NUMBERS]},
            "audio": {"mel": [spec.MEL_BINS], "starts": []},
            "pair": {"video": [self.video_width], "audio": [self.audio_width]},
        }


def contract() -> dict[str, Any]:
    """What every student must declare to be run by this version: plain JSON values."""
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
            "floor": spec.MEL_FLOOR,
            "reference_db": spec.MEL_REFERENCE_DB,
            "range_db": spec.MEL_RANGE_DB,
            "limit": spec.MEL_LIMIT,
        },
        "lips": spec.LIPS_DEFINITION,
    }


@dataclass(frozen=True)
class GraphFile:
    """What `model.json` says of a graph; `known_answer` is what the module of that name compares with."""

    path: Path
    sha256: str | None
    inputs: Mapping[str, list[int]]
    known_answer: Any


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
    """A loaded student; the module says what its graphs take and give."""

    def __init__(
        self,
        name: str,
        sha256: str,
        calibration: Calibration | None,
        layout: Layout,
        sessions: Mapping[str, ort.InferenceSession],
        *,
        precision: Precision = "fp32",
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.precision = precision
        self.calibration = calibration
        self.layout = layout
        self._sessions = sessions

    def encode_video(self, crops: NDArray[np.uint8], lips: Floats) -> Floats:
        """Crops [N, 48, 96] (RGB faces: [N, 48, 96, 3]) and lip geometry [N, 40, 3] -> [N - 4, D].

        Row i stands for the window of frames i .. i + 4. Beyond the ends the first and the last frame are
        repeated where the encoder looks there.
        """
        encoded = [np.zeros((0, self.layout.video_width), np.float32)]
        for count, inputs in video_inputs(self.layout, crops, lips):
            encoded.append(self._run("video", inputs, [count, self.layout.video_width]))
        return np.concatenate(encoded)

    def encode_audio(self, mel: MelTrack, ticks: NDArray[np.int64]) -> Floats:
        """The audio windows of consecutive ticks [A] that have one -> [A, E].

        Beyond the ends of the mel its first and last step are repeated where the encoder looks there.
        """
        encoded = [np.zeros((0, self.layout.audio_width), np.float32)]
        for count, inputs in audio_inputs(self.layout, mel, ticks):
            encoded.append(self._run("audio", inputs, [count, self.layout.audio_width]))
        return np.concatenate(encoded)

    def score(self, video: Floats, audio: Floats) -> Floats:
        """Scores [P] of the pairs video [P, D], audio [P, E]: higher = more in sync."""
        size = max(1, _PAIR_NUMBERS // (self.layout.video_width + self.layout.audio_width))
        scores = [np.zeros(0, np.float32)]
        for first in range(0, len(video), size):
            part = slice(first, first + size)
            inputs = {"video": video[part], "audio": audio[part]}
            scores.append(self._run("pair", inputs, [len(video[part])]))
        return np.concatenate(scores)

    def _run(self, graph: str, inputs: Mapping[str, NDArray[Any]], shape: list[int]) -> Floats:
        try:
            output: Floats = self._sessions[graph].run(None, dict(inputs))[0]
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise ModelError(
                f"{self.name}: its {graph} graph failed: {str(error).splitlines()[0]}"
            ) from error
        if list(output.shape) != shape:
            raise ModelError(f"{self.name}: its {graph} graph gave {list(output.shape)}, expected {shape}")
        return output


def video_inputs(
    layout: Layout, crops: NDArray[np.uint8], lips: Floats
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """What the video graph is given for crops and lips as of `Student.encode_video`: windows and inputs."""
    windows, r = max(0, len(crops) - spec.WINDOW_FRAMES + 1), layout.reach_frames
    flat = lips.reshape(len(lips), spec.LIP_NUMBERS)
    for first in range(0, windows, layout.chunk_windows):
        count = min(layout.chunk_windows, windows - first)
        frames = np.arange(first - r, first + count + spec.WINDOW_FRAMES - 1 + r)
        rows = frames.clip(0, len(crops) - 1)
        yield count, {"frames": crops[rows].astype(np.float32), "lips": flat[rows]}


def audio_inputs(
    layout: Layout, mel: MelTrack, ticks: NDArray[np.int64]
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """What the audio graph is given for the ticks of `Student.encode_audio`: windows and inputs."""
    steps, s = mel.starts(ticks), layout.reach_mel_steps
    for first in range(0, len(steps), layout.chunk_windows):
        part = steps[first : first + layout.chunk_windows]
        rows = np.arange(part[0] - s, part[-1] + spec.WINDOW_MEL_STEPS + s).clip(0, len(mel.mel) - 1)
        yield len(part), {"mel": mel.mel[rows].astype(np.float32), "starts": part - part[0]}


def load_student(
    folder: str | Path | None = None, *, threads: int = 1, precision: Precision = "fp32"
) -> Student:
    """Load a student's folder, the bundled one by default.

    Raises ModelError where a file is missing, is not what `model.json` says, or was made for another
    contract, and where int8 is asked of a student that has no graph in it.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, data = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    layout = _read_layout(folder, declared)
    entries = _entries(folder, declared, precision)
    sessions = {
        graph: open_session(folder / file, threads=threads, inputs=layout.inputs()[graph], sha256=sha256)
        for graph, (file, sha256) in entries.items()
    }
    calibration, name = _read_calibration(folder, declared), _name_of(folder, declared)
    return Student(name, _identity(data, precision), calibration, layout, sessions, precision=precision)


def identify_student(folder: str | Path | None = None, *, precision: Precision = "fp32") -> tuple[str, str]:
    """Name and SHA-256 of a student, the bundled one by default, without loading its graphs.

    The SHA-256 is that of `model.json`, which holds those of the graphs; in int8, where scores differ, it is
    another. Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, data = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    _entries(folder, declared, precision)
    return _name_of(folder, declared), _identity(data, precision)


def precisions_of(folder: str | Path | None = None) -> tuple[Precision, ...]:
    """The precisions that a student, the bundled one by default, can run in, without loading its graphs.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, _ = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    if not declared.get("int8"):
        return ("fp32",)
    _entries(folder, declared, "int8")
    return ("fp32", "int8")


def is_calibrated(folder: str | Path | None = None) -> bool:
    """Whether a student, the bundled one by default, can say how sure it is; a check refuses it otherwise.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, _ = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    return _read_calibration(folder, declared) is not None


def describe_graphs(
    folder: str | Path | None = None, *, precision: Precision = "fp32"
) -> tuple[Layout, dict[str, GraphFile]]:
    """The layout of a student, the bundled one by default, and its graphs that have a form in a precision.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, _ = _read_contract(folder)
    _refuse_mismatch(folder, declared)
    layout, entries = _read_layout(folder, declared), _entries(folder, declared, precision)
    described = declared["graphs" if precision == "fp32" else "int8"]
    files = {
        graph: GraphFile(folder / file, sha256, layout.inputs()[graph], described[graph].get("known_answer"))
        for graph, (file, sha256) in entries.items()
        if graph in described
    }
    return layout, files


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
    may use Arm's own kernels, as `cpu.may_use_kleidiai` says by default. Raises ModelError.
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


def _read_contract(folder: Path) -> tuple[dict[str, Any], bytes]:
    """What `model.json` declares, and its bytes."""
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
    return declared, data


def _entries(folder: Path, declared: dict[str, Any], precision: Precision) -> dict[str, tuple[str, str]]:
    """File and SHA-256 of every graph in the given precision."""
    path, chosen = folder / CONTRACT_FILE, dict(declared["graphs"])
    if precision == "int8":
        int8 = declared.get("int8")
        if not int8:
            raise ModelError(f"{path}: has no int8 graphs; make them with `python -m export quantize`")
        if not isinstance(int8, dict) or not int8.keys() <= set(GRAPHS):
            raise ModelError(f"{path}: its int8 graphs are not some of {', '.join(GRAPHS)}")
        chosen |= int8
    entries = {}
    for graph in GRAPHS:
        entry = chosen.get(graph)
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("file", "sha256")):
            raise ModelError(f"{path}: does not describe the {graph} graph")
        entries[graph] = entry["file"], entry["sha256"]
    return entries


def _identity(data: bytes, precision: Precision) -> str:
    return hashlib.sha256(data if precision == "fp32" else data + precision.encode()).hexdigest()


def _name_of(folder: Path, declared: dict[str, Any]) -> str:
    return str(declared.get("name", folder.name))


def _refuse_mismatch(folder: Path, declared: dict[str, Any]) -> None:
    version = declared.get("version")
    if declared.get("format") == spec.ARTEFACT_FORMAT and version != spec.ARTEFACT_VERSION:
        raise ModelError(
            f"{folder / CONTRACT_FILE}: a student of version {version!r}, but this version of avsync runs "
            f"version {spec.ARTEFACT_VERSION}: export its checkpoint again"
        )
    for key, expected in contract().items():
        if declared.get(key) != expected:
            raise ModelError(
                f"{folder / CONTRACT_FILE}: made for {key} = {declared.get(key)!r}, "
                f"but this version of avsync needs {expected!r}"
            )


def _read_layout(folder: Path, declared: dict[str, Any]) -> Layout:
    values: dict[str, Any] = {entry.name: declared.get(entry.name) for entry in fields(Layout)}
    path = folder / CONTRACT_FILE
    if values["crop"] not in CROPS:
        raise ModelError(f"{path}: made for crop = {values['crop']!r}, not one of {', '.join(CROPS)}")
    for key, value in values.items():
        least = 0 if key.startswith("reach") else 1
        if key != "crop" and (type(value) is not int or value < least):
            raise ModelError(f"{path}: {key} = {value!r} is not a whole number of {least} or more")
    return Layout(**values)


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
