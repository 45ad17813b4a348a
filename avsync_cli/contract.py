"""What a student's folder declares in its `model.json`, read and checked without loading a graph.

A student made for another sample rate, mel, crop or window is refused, because it would answer, and wrongly.
`model` says what the graphs take and give.
"""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from avsync_cli import spec
from avsync_cli.confidence import read_calibration
from avsync_cli.errors import ModelError
from avsync_cli.spec import Precision

DEFAULT_STUDENT = Path(__file__).parent / "assets" / "student"
CONTRACT_FILE = "model.json"
MAX_GRAPH_BYTES = 512 << 20
_MAX_CONTRACT_BYTES = 64 << 20  # known answers are in it
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_MOST = MappingProxyType(  # of what decides how much memory a student takes
    {
        "reach_frames": 250,
        "reach_mel_steps": 1_000,
        "chunk_windows": 4_096,
        "video_width": 65_536,
        "audio_width": 65_536,
    }
)
GRAPHS = ("video", "audio", "pair")
CROPS = (spec.CROP_DEFINITION, spec.FACE_CROP_DEFINITION)  # that `tracks` can cut


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


def identify_student(folder: str | Path | None = None, *, precision: Precision = "fp32") -> tuple[str, str]:
    """Name and SHA-256 of a student, the bundled one by default, without loading its graphs.

    The SHA-256 is that of `model.json`, which holds those of the graphs; in int8, where scores differ, it is
    another. Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, data = read_contract(folder)
    graph_entries(folder, declared, precision)
    return name_of(folder, declared), identity_of(data, precision)


def precisions_of(folder: str | Path | None = None) -> tuple[Precision, ...]:
    """The precisions that a student, the bundled one by default, can run in, without loading its graphs.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, _ = read_contract(folder)
    if not declared.get("int8"):
        return ("fp32",)
    graph_entries(folder, declared, "int8")
    return ("fp32", "int8")


def is_calibrated(folder: str | Path | None = None) -> bool:
    """Whether a student, the bundled one by default, can say how sure it is; a check refuses it otherwise.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, _ = read_contract(folder)
    return read_calibration(declared.get("calibration"), folder / CONTRACT_FILE) is not None


def describe_graphs(
    folder: str | Path | None = None, *, precision: Precision = "fp32"
) -> tuple[Layout, dict[str, GraphFile]]:
    """The layout of a student, the bundled one by default, and its graphs that have a form in a precision.

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    declared, _ = read_contract(folder)
    layout, entries = read_layout(folder, declared), graph_entries(folder, declared, precision)
    described = declared["graphs" if precision == "fp32" else "int8"]
    files = {
        graph: GraphFile(folder / file, sha256, layout.inputs()[graph], described[graph].get("known_answer"))
        for graph, (file, sha256) in entries.items()
        if graph in described
    }
    return layout, files


def zero_of(folder: str | Path | None = None) -> tuple[float, float]:
    """`zero_ms` and its uncertainty of a student, the bundled one by default (see `read_zero`).

    Raises ModelError where `load_student` would raise it for what `model.json` says.
    """
    folder = Path(folder) if folder is not None else DEFAULT_STUDENT
    return read_zero(folder, read_contract(folder)[0])


def read_contract(folder: Path) -> tuple[dict[str, Any], bytes]:
    """What `model.json` declares, and its bytes.

    Raises ModelError where it cannot be read or does not declare a student of this version.
    """
    path = folder / CONTRACT_FILE
    data = read_regular_file(path, most_bytes=_MAX_CONTRACT_BYTES)
    try:
        declared = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON") from error
    if not isinstance(declared, dict) or not isinstance(declared.get("graphs"), dict):
        raise ModelError(f"{path}: does not describe a student")
    _refuse_mismatch(folder, declared)
    return declared, data


def read_regular_file(path: Path, *, most_bytes: int) -> bytes:
    """What a file of a student holds. Raises ModelError where it is a pipe, a device or too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: is not a regular file")
        if status.st_size > most_bytes:
            raise ModelError(f"{path}: has {status.st_size} bytes, allowed are {most_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error


def read_zero(folder: Path, declared: dict[str, Any]) -> tuple[float, float]:
    """A student's `zero_ms` and how well it is known, in 90 of 100 cases. Raises ModelError.

    `zero_ms` is the audio lead that its graphs see where sound and picture are in sync.
    """
    if declared.get("version") in spec.OLD_ARTEFACT_VERSIONS:
        return 0.0, spec.UNKNOWN_ZERO_MS
    values: tuple[Any, Any] = declared.get("zero_ms"), declared.get("zero_uncertainty_ms")
    for value, least in zip(values, (-spec.MAX_ZERO_MS, 0.0), strict=True):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= spec.MAX_ZERO_MS:
            raise ModelError(
                f"{folder / CONTRACT_FILE}: zero_ms = {values[0]!r}, zero_uncertainty_ms = {values[1]!r}: "
                f"must be numbers of at most {spec.MAX_ZERO_MS:g} ms"
            )
    return float(values[0]), float(values[1])


def graph_entries(folder: Path, declared: dict[str, Any], precision: Precision) -> dict[str, tuple[str, str]]:
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
        if not _PLAIN_NAME.fullmatch(entry["file"]):
            raise ModelError(f"{path}: the {graph} graph is no plain name of a file in its folder")
        entries[graph] = entry["file"], entry["sha256"]
    return entries


def identity_of(data: bytes, precision: Precision) -> str:
    """The SHA-256 that a student of these bytes of `model.json` goes by in a precision."""
    return hashlib.sha256(data if precision == "fp32" else data + precision.encode()).hexdigest()


def name_of(folder: Path, declared: dict[str, Any]) -> str:
    """What a student calls itself; by its folder's name where it does not say."""
    return str(declared.get("name", folder.name))


def _refuse_mismatch(folder: Path, declared: dict[str, Any]) -> None:
    version = declared.get("version")
    if declared.get("format") == spec.ARTEFACT_FORMAT and version not in (
        spec.ARTEFACT_VERSION,
        *spec.OLD_ARTEFACT_VERSIONS,
    ):
        raise ModelError(
            f"{folder / CONTRACT_FILE}: a student of version {version!r}, but this version of avsync runs "
            f"version {spec.ARTEFACT_VERSION}: export its checkpoint again"
        )
    for key, expected in contract().items():
        if key != "version" and declared.get(key) != expected:
            raise ModelError(
                f"{folder / CONTRACT_FILE}: made for {key} = {declared.get(key)!r}, "
                f"but this version of avsync needs {expected!r}"
            )


def read_layout(folder: Path, declared: dict[str, Any]) -> Layout:
    """What differs from student to student. Raises ModelError."""
    values: dict[str, Any] = {entry.name: declared.get(entry.name) for entry in fields(Layout)}
    path = folder / CONTRACT_FILE
    if values["crop"] not in CROPS:
        raise ModelError(f"{path}: made for crop = {values['crop']!r}, not one of {', '.join(CROPS)}")
    for key, value in values.items():
        least = 0 if key.startswith("reach") else 1
        if key != "crop" and (type(value) is not int or value < least):
            raise ModelError(f"{path}: {key} = {value!r} is not a whole number of {least} or more")
        if key in _MOST and value > _MOST[key]:
            raise ModelError(f"{path}: {key} = {value} is more than {_MOST[key]}")
    return Layout(**values)
