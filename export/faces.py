"""MediaPipe's face models, from the official wheel to ONNX files.

The wheel is fetched with pip and pinned by hash, so the same bytes come out on every machine. The models are
"MediaPipe, Copyright The MediaPipe Authors", Apache-2.0; avsync_cli/assets/NOTICE says so beside the files.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from avsync_cli.errors import AvsyncError
from export.known_answers import write_face_answers
from export.tflite_graph import Output, convert
from training.whole_file import whole_file

MEDIAPIPE_VERSION = "0.10.21"  # the last release whose wheels carry the models
WHEEL_PLATFORM = "manylinux_2_28_x86_64"  # one wheel, whatever machine this runs on: the hash is its
WHEEL_PYTHON = "3.11"
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"


@dataclass(frozen=True)
class FaceModel:
    """One model: where it lies in the wheel, and the ONNX file it becomes."""

    member: str
    filename: str
    input_name: str
    outputs: Mapping[str, Output]


FACE_MODELS = (
    FaceModel(
        member="mediapipe/modules/face_detection/face_detection_short_range.tflite",
        filename="face_detector.onnx",
        input_name="image",  # [N, 3, 128, 128], RGB in [-1, 1]
        outputs={
            # Centre, size and six points of each box, in input pixels from its anchor.
            "regressors": Output("boxes", (-1, 896, 16)),
            "classificators": Output("logits", (-1, 896)),
        },
    ),
    FaceModel(
        member="mediapipe/modules/face_landmark/face_landmark.tflite",
        filename="face_mesh.onnx",
        input_name="image",  # [N, 3, 192, 192], RGB in [0, 1]
        outputs={
            "conv2d_21": Output("landmarks", (-1, 468, 3)),  # x, y, z in input pixels
            "conv2d_31": Output("presence", (-1,)),  # logit
        },
    ),
)


class WheelError(AvsyncError):
    """The wheel could not be fetched, or is not the pinned one."""

    exit_code = 1


def export_faces(directory: Path) -> list[Path]:
    """Write every face model and their known answers into `directory`; returns the paths written."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(download_wheel(Path(scratch))) as wheel:
        written = [_export(wheel, model, directory) for model in FACE_MODELS]
    return [*written, write_face_answers(directory)]


def download_wheel(directory: Path) -> Path:
    """Fetch the pinned mediapipe wheel into `directory` and verify its SHA-256."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", WHEEL_PLATFORM, "--python-version", WHEEL_PYTHON, "--dest", str(directory)]
    command.append(f"mediapipe=={MEDIAPIPE_VERSION}")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise WheelError(f"pip download failed:\n{finished.stderr.strip()}")
    (wheel,) = directory.glob("mediapipe-*.whl")
    require_pinned(wheel)
    return wheel


def require_pinned(wheel: Path) -> None:
    """Raises WheelError for any other file than the wheel that the models are taken from."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise WheelError(f"{wheel.name}: sha256 {digest}, expected {WHEEL_SHA256}")


def _export(wheel: zipfile.ZipFile, model: FaceModel, directory: Path) -> Path:
    converted = convert(
        wheel.read(model.member),
        name=Path(model.filename).stem,
        input_name=model.input_name,
        outputs=model.outputs,
    )
    target = directory / model.filename
    with whole_file(target) as unfinished:
        unfinished.write_bytes(converted.SerializeToString(deterministic=True))
    return target
