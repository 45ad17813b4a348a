"""avsync on emulated 64-bit ARM against this machine: doctor on three CPUs, then one check, number by number.

    python tests/aarch64/compare.py [--root DIR] [--video FILE] [--model DIR]

Needs root, Debian's `qemu-user-static` and `debootstrap`, and mirrors of Debian and PyPI. The root is built
once (800 MB in DIR) and used again. Functional only: an emulator says nothing about speed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from talking import write_talking_head

REPOSITORY = Path(__file__).parents[2]
# As the Raspberry Pi 4, the Raspberry Pi 5, and all that the emulator knows, SME among it.
CPUS = ("cortex-a72", "cortex-a76", "max")
CHECKED_ON = "cortex-a76"
SUITE = "bookworm"
PYTHON = "3.11"  # that suite's
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
SCORE_TOLERANCE = 1e-4
LEAD_TOLERANCE_MS = 1.0
TOOLS = ("qemu-aarch64-static", "debootstrap", "dpkg", "unshare")

# ONNX Runtime counts CPUs there, and user-mode emulation does not provide it.
IN_THE_GUEST = """
mount -t tmpfs none /sys/devices/system/cpu
echo 0-1 | tee /sys/devices/system/cpu/possible > /sys/devices/system/cpu/present
exec "$@"
"""
# The whole way from the file, where colours are converted by other code: they differ by up to 2 of 255.
CHECK = """
import json, sys
from avsync_cli import check_file
video, precision, model = sys.argv[1:]
report = check_file(video, threads=1, precision=precision, model=model or None)
lead = report.audio_lead_ms
print(json.dumps({"status": report.status, "reason": report.reason, "lead_ms": lead, "curve": report.curve}))
"""
# The student alone, on the mouths and the sound of this machine.
CUT = """
import sys
import numpy as np
from avsync_cli.faces import FaceModels
from avsync_cli.media import open_media
from avsync_cli.mel import mel_track
from avsync_cli.model import load_student
from avsync_cli.tracks import track_faces
video, path, model = sys.argv[1:]
crop = load_student(model or None).layout.crop
with open_media(video, threads=1) as media:
    faces = list(track_faces(media.pictures(), FaceModels(), crop=crop))
    mel = mel_track(media.sound())
face = max(faces, key=lambda face: len(face.crops))
numbers = np.array([face.first_tick, mel.origin_tick, mel.first_tick, mel.ticks])
np.savez(path, crops=face.crops, lips=face.lips, mel=mel.mel, numbers=numbers)
print("{}")
"""
SCORE = """
import json, sys
import numpy as np
from avsync_cli.mel import MelTrack
from avsync_cli.model import load_student
from avsync_cli.offsets import average_curve, score_offsets
path, precision, model = sys.argv[1:]
student, cut = load_student(model or None, precision=precision), np.load(path)
first, *numbers = cut["numbers"].tolist()
mel = MelTrack(cut["mel"], *numbers)
video, audio = student.encode_video(cut["crops"], cut["lips"]), student.encode_audio(mel, mel.all_ticks)
ticks = {"first_tick_video": first, "first_tick_audio": mel.first_tick}
scores = score_offsets(video, audio, **ticks, score=student.score)
print(json.dumps({"scores": np.nan_to_num(scores).ravel().tolist()}))
"""


class CannotRunError(Exception):
    """Something that this comparison needs is not here."""


@dataclass(frozen=True)
class Difference:
    """Of a check there and here: the largest of its 31 scores, and of the offset."""

    curve: float
    lead_ms: float
    same_verdict: bool


def build_root(root: Path) -> None:
    """A Debian root for aarch64 with our dependencies in `opt/wheels`; nothing where it is there already.

    Raises CannotRunError.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise CannotRunError(f"needs {', '.join(missing)}: apt-get install qemu-user-static debootstrap")
    if os.geteuid() != 0:
        raise CannotRunError("needs root, to mount and to unpack a root")
    if (root / "complete").exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    needed = f"--include=python{PYTHON},libstdc++6,libgomp1"
    _run("debootstrap", "--foreign", "--variant=minbase", "--arch=arm64", needed, SUITE, str(root))
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(root))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wheels = ["--target", str(root / "opt/wheels"), "--only-binary=:all:", "--python-version", PYTHON]
    wheels += [word for name in PLATFORMS for word in ("--platform", name)]
    _run(sys.executable, "-m", "pip", "install", "--quiet", *wheels, *project["dependencies"])
    (root / "complete").touch()


def run_there(root: Path, cpu: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on an emulated CPU."""
    environment = {"PYTHONPATH": f"{root / 'opt/wheels'}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}
    guest = ["qemu-aarch64-static", "-cpu", cpu, "-L", str(root), str(root / f"usr/bin/python{PYTHON}")]
    command = ["unshare", "-m", "sh", "-ec", IN_THE_GUEST, "sh", *guest, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def examine_there(root: Path, cpu: str, *, model: str) -> dict[str, Any]:
    """What `avsync doctor --json` says on an emulated CPU. Raises CannotRunError where it says nothing."""
    options = ["--model", model] if model else []
    result = run_there(root, cpu, "-m", "avsync_cli", "doctor", "--json", *options)
    return _read_answer(result)


def compare_check(root: Path, video: Path, *, precision: str, model: str) -> Difference:
    """Check a video there and here, from the file on. Raises CannotRunError where there is no offset."""
    arguments = ["-c", CHECK, str(video), precision, model]
    here, there = run_here(*arguments), _read_answer(run_there(root, CHECKED_ON, *arguments))
    if here["lead_ms"] is None or there["lead_ms"] is None:
        raise CannotRunError(f"{video}: has no offset to compare: {here['reason']}, {there['reason']}")
    pairs = zip(here["curve"], there["curve"], strict=True)
    return Difference(
        curve=max(abs(a - b) for a, b in pairs),
        lead_ms=abs(here["lead_ms"] - there["lead_ms"]),
        same_verdict=here["status"] == there["status"],
    )


def compare_scores(root: Path, video: Path, *, precision: str, model: str) -> float:
    """The largest difference of all scores of all windows, for the mouths and the sound of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        cut = str(Path(folder) / "cut.npz")
        run_here("-c", CUT, str(video), cut, model)
        arguments = ["-c", SCORE, cut, precision, model]
        here, there = run_here(*arguments), _read_answer(run_there(root, CHECKED_ON, *arguments))
    differences = [abs(a - b) for a, b in zip(here["scores"], there["scores"], strict=True)]
    return float(max(differences))


def run_here(*arguments: str) -> dict[str, Any]:
    """What a program prints on this machine."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    return _read_answer(subprocess.run(command, capture_output=True, text=True, env=environment, check=False))


def _read_answer(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise CannotRunError(f"ended with {result.returncode}: {result.stderr.strip()[-500:]}") from None
    return answer


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()[-500:]
        raise CannotRunError(f"{' '.join(command[:3])} ... ended with {result.returncode}: {said}")


def compare(root: Path, video: Path | None, model: str) -> bool:
    """Print what was found; whether all of it is right."""
    build_root(root)
    right = True
    for cpu in CPUS:
        health = examine_there(root, cpu, model=model)
        print(f"doctor on {cpu}: {_describe(health)}", flush=True)
        right = right and health["healthy"] and not health["warnings"]
    with tempfile.TemporaryDirectory() as folder:
        video = video or write_talking_head(Path(folder) / "head.mp4", audio_lead_ms=80, seconds=3)
        for precision in health["student"]["precisions"]:
            score = compare_scores(root, video, precision=precision, model=model)
            found = compare_check(root, video, precision=precision, model=model)
            verdict = "the same verdict" if found.same_verdict else "ANOTHER VERDICT"
            print(
                f"{CHECKED_ON} against {platform.machine()}, {precision}: {verdict}, offset within "
                f"{found.lead_ms:.3f} ms, curve within {found.curve:.1e}; scores of the same mouths within "
                f"{score:.1e}",
                flush=True,
            )
            right = right and found.same_verdict and found.lead_ms <= LEAD_TOLERANCE_MS
            right = right and (precision != "fp32" or score <= SCORE_TOLERANCE)
    return right


def _describe(health: dict[str, Any]) -> str:
    """One line for a healthy device, one more for each thing that is wrong."""
    precisions = health["student"]["precisions"]
    worst = {p: max(g["error"] or 0.0 for g in health["graphs"] if g["precision"] == p) for p in precisions}
    errors = ", ".join(f"{precision} off by {error:.1e}" for precision, error in worst.items())
    state = "all is well" if health["healthy"] else "ill"
    lines = [f"{state}; {errors}; auto takes {health['student']['auto']}"]
    return "\n  ".join(lines + health["problems"] + health["warnings"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path.home() / ".cache" / "avsync-aarch64"
    parser.add_argument("--root", type=Path, default=default, help=f"where the root is kept; {default}")
    parser.add_argument("--video", type=Path, help="check this one instead of a generated talking head")
    parser.add_argument("--model", default="", help="folder of another student than the bundled one")
    options = parser.parse_args()
    try:
        right = compare(options.root.resolve(), options.video, options.model)
    except CannotRunError as error:
        sys.exit(f"cannot run: {error}")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
