"""Look at this device: what is installed, what the CPU can do, whether every graph computes right on it."""

import importlib
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avsync_cli import __version__
from avsync_cli.errors import EXIT_IN_SYNC, EXIT_MODEL, AvsyncError, ModelError, first_line
from avsync_cli.machine import MB, Cpu, count_cores, free_memory_bytes, may_use_kleidiai, read_cpu
from avsync_cli.telemetry import is_telemetry_off

if TYPE_CHECKING:
    from avsync_cli.contract import GraphFile
    from avsync_cli.known_answer import Arrays
    from avsync_cli.spec import Precision

DOCTOR_SCHEMA_VERSION = 1
NEEDED_MEMORY_MB = 400  # of a check of 1080p video
PACKAGES = ("numpy", "onnxruntime", "av", "cv2", "soundfile")  # as they are imported

Outcome = Literal["right", "wrong", "unusable", "untested"]


@dataclass(frozen=True)
class GraphState:
    """What a graph computed for inputs to which the answer is known.

    `error` is its largest deviation and `tolerance` what is allowed, both in root mean squares of the output;
    None where they are not known. `default` says whether a check would run this graph on this device.
    """

    graph: str
    precision: str
    outcome: Outcome
    error: float | None
    tolerance: float | None
    default: bool
    message: str

    @property
    def is_problem(self) -> bool:
        """A wrong int8 graph is no problem if a check would not use it by default."""
        spared = self.precision == "int8" and not self.default
        return self.outcome == "unusable" or (self.outcome == "wrong" and not spared)


@dataclass(frozen=True)
class StudentState:
    """`precisions` are those that it has, `auto` the one that a check takes here, whose `sha256` is given.

    None where the student is unusable.
    """

    folder: str
    name: str | None
    sha256: str | None
    precisions: tuple[str, ...]
    auto: str | None


@dataclass(frozen=True)
class FolderState:
    path: str
    writable: bool
    free_mb: int | None


@dataclass(frozen=True)
class Health:
    """All that was found; `versions` are None where a package cannot be imported."""

    versions: dict[str, str | None]
    cpu: Cpu
    cores: int
    free_memory_mb: int | None
    temporary_folder: FolderState
    student: StudentState
    graphs: tuple[GraphState, ...]
    telemetry_off: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_MODEL if self.problems else EXIT_IN_SYNC

    def to_json(self) -> dict[str, Any]:
        """Schema 1 as plain JSON values."""
        head = {"schema_version": DOCTOR_SCHEMA_VERSION, "healthy": not self.problems}
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return head | values


def examine_device(student: str | Path | None = None) -> Health:
    """Examine this device with a student, the bundled one by default. What is wrong is told, not raised."""
    versions, problems = _import_all()
    state = StudentState("bundled" if student is None else str(student), None, None, (), None)
    graphs: list[GraphState] = []
    warnings: list[str] = []
    if not problems:  # else no graph can be run
        try:
            state = _describe_student(state.folder, student)
            graphs += try_student(student, auto=state.auto)
            warnings += _warn_of_calibration(state.name, student)
        except AvsyncError as error:
            problems.append(str(error))
        graphs += try_faces()
    folder = find_temporary_folder()
    if not folder.writable:
        problems.append(f"{folder.path}: the temporary folder cannot be written to")
    free_mb = _free_memory_mb()
    warnings += [state.message for state in graphs if state.outcome != "right" and not state.is_problem]
    asked = os.environ.get("TMPDIR")
    if asked and os.path.abspath(asked) != folder.path:
        warnings.append(f"TMPDIR is {asked}, but temporary files go to {folder.path}")
    if free_mb is not None and free_mb < NEEDED_MEMORY_MB:
        warnings.append(f"{free_mb} MB of memory are free, a check takes about {NEEDED_MEMORY_MB} MB")
    if not is_telemetry_off():
        problems.append("onnxruntime was imported before avsync_cli could turn its telemetry off")
    problems += [state.message for state in graphs if state.is_problem]
    return Health(
        versions=versions,
        cpu=read_cpu(),
        cores=count_cores(),
        free_memory_mb=free_mb,
        temporary_folder=folder,
        student=state,
        graphs=tuple(graphs),
        telemetry_off=is_telemetry_off(),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def try_student(folder: str | Path | None, *, auto: str | None) -> Iterator[GraphState]:
    """Run every graph of a student on inputs to which the answer is known. Raises ModelError."""
    from avsync_cli.contract import describe_graphs, precisions_of
    from avsync_cli.known_answer import student_inputs

    taken: dict[str, Precision] = {}
    for precision in precisions_of(folder):
        _, files = describe_graphs(folder, precision=precision)
        taken |= dict.fromkeys(files, precision) if precision in ("fp32", auto) else {}
    for precision in precisions_of(folder):
        layout, files = describe_graphs(folder, precision=precision)
        for graph, inputs in student_inputs(layout).items():
            if graph in files:
                default = taken[graph] == precision
                yield _try_graph(graph, precision, files[graph], inputs, default=default)


def try_faces() -> Iterator[GraphState]:
    """Run the face models on pictures to which the answer is known."""
    from avsync_cli.contract import GraphFile
    from avsync_cli.faces import ANSWERS_FILE, ASSETS, FACE_INPUTS
    from avsync_cli.known_answer import face_inputs

    try:
        answers = json.loads((ASSETS / ANSWERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        answers = {}
    for name, shapes in FACE_INPUTS.items():
        file = GraphFile(ASSETS / name, None, shapes, answers.get(name))
        yield _try_graph(Path(name).stem, "fp32", file, face_inputs(shapes), default=True)


def _try_graph(
    graph: str, precision: str, file: "GraphFile", inputs: "Arrays", *, default: bool
) -> GraphState:
    """Run one graph; one that is wrong is run again without Arm's kernels, to tell whether these are why."""
    name = f"{graph} in {precision}"
    if file.known_answer is None:
        text = f"{name}: no known answer to compare with; `python -m export answers` makes it"
        return GraphState(graph, precision, "untested", None, None, default, text)
    try:
        tolerance = float(file.known_answer["tolerance"])
        error = _measure(file, inputs, kleidiai=None)
        if error > tolerance and may_use_kleidiai() and _measure(file, inputs, kleidiai=False) <= tolerance:
            text = f"{name}: wrong with KleidiAI's kernels only; set AVSYNC_KLEIDIAI=0"
            return GraphState(graph, precision, "wrong", _finite(error), tolerance, default, text)
    except (ModelError, KeyError, TypeError, ValueError) as failure:
        why = str(failure) if isinstance(failure, ModelError) else "its known answer cannot be read"
        return GraphState(graph, precision, "unusable", None, None, default, f"{name}: {why}")
    outcome: Outcome = "right" if error <= tolerance else "wrong"
    text = f"{name}: {outcome}, off by {error:.1e}, allowed are {tolerance:g}"
    if outcome == "wrong" and not default:
        text += f"; do not use --precision {precision} on this CPU"
    return GraphState(graph, precision, outcome, _finite(error), tolerance, default, text)


def _measure(file: "GraphFile", inputs: "Arrays", *, kleidiai: bool | None) -> float:
    """How far a graph is from its known answer. Raises ModelError, or ValueError where there is none."""
    from avsync_cli.known_answer import measure_error, run_graph
    from avsync_cli.session import open_session

    session = open_session(
        file.path, threads=count_cores(), inputs=file.inputs, sha256=file.sha256, kleidiai=kleidiai
    )
    try:
        outputs = run_graph(session, inputs)
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelError(f"{file.path}: cannot be run: {first_line(error)}") from error
    return measure_error(outputs, file.known_answer)


def _import_all() -> tuple[dict[str, str | None], list[str]]:
    """The versions of all that is needed, and what cannot be imported."""
    versions: dict[str, str | None] = {"avsync": __version__, "python": platform.python_version()}
    problems = []
    for package in PACKAGES:
        try:
            module = importlib.import_module(package)
        except Exception as error:  # a library that is missing or made for another CPU fails in its own way
            versions[package] = None
            problems.append(f"{package} cannot be imported: {first_line(error)}")
        else:
            versions[package] = str(module.__version__)
            if package == "av":
                versions["ffmpeg"] = str(module.ffmpeg_version_info)
    return versions, problems


def _describe_student(name: str, folder: str | Path | None) -> StudentState:
    """Raises ModelError."""
    from avsync_cli.contract import identify_student, precisions_of
    from avsync_cli.precision import choose_precision

    auto = choose_precision("auto", folder)
    student, sha256 = identify_student(folder, precision=auto)
    return StudentState(name, student, sha256, precisions_of(folder), auto)


def find_temporary_folder() -> FolderState:
    """The folder that Python takes for temporary files, or the one asked for where none can be written to."""
    try:
        return examine_folder(Path(tempfile.gettempdir()))
    except OSError:
        return FolderState(os.path.abspath(os.environ.get("TMPDIR") or "/tmp"), False, None)


def _warn_of_calibration(name: str | None, folder: str | Path | None) -> list[str]:
    """Raises ModelError."""
    from avsync_cli.contract import is_calibrated

    return [] if is_calibrated(folder) else [f"{name}: not calibrated: check refuses it"]


def examine_folder(folder: Path) -> FolderState:
    """Try to write where copies of remote videos and the benchmark's clip go."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="avsync-") as file:
            file.write(b"0")
        return FolderState(str(folder), True, shutil.disk_usage(folder).free // MB)
    except OSError:
        return FolderState(str(folder), False, None)


def _free_memory_mb() -> int | None:
    try:
        return free_memory_bytes() // MB
    except (AttributeError, ValueError, OSError):  # Windows does not tell it so
        return None


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
