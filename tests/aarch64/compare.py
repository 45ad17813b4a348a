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
CHECK = """
import json, sys
from avsync_cli import check_file
video, precision, model = sys.argv[1:]
report = check_file(video, threads=1, precision=precision, model=model or None)
lead = report.audio_lead_ms
print(json.dumps({"status": report.status, "reason": report.reason, "lead_ms": lead, "curve": report.curve}))
"""


class CannotRunError(Exception):
    """Something that this comparison needs is not here."""


@dataclass(frozen=True)
class Difference:
    """Of a check there and here: the largest of the 31 scores, and of the offset."""

    score: float
    lead_ms: float | None
    same_verdict: bool

    @property
    def is_small(self) -> bool:
        return (
            self.same_verdict
            and self.score <= SCORE_TOLERANCE
            and (self.lead_ms is None or self.lead_ms <= LEAD_TOLERANCE_MS)
        )


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
    """Check a video there and here. Raises CannotRunError where a check gives no answer."""
    arguments = ["-c", CHECK, str(video), precision, model]
    there = _read_answer(run_there(root, CHECKED_ON, *arguments))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    here = _read_answer(subprocess.run(command, capture_output=True, text=True, env=environment, check=False))
    if here["curve"] is None or there["curve"] is None:
        raise CannotRunError(f"{video}: has no face to compare")
    pairs = zip(here["curve"], there["curve"], strict=True)
    leads = here["lead_ms"], there["lead_ms"]
    return Difference(
        score=max(abs(a - b) for a, b in pairs),
        lead_ms=None if None in leads else abs(leads[0] - leads[1]),
        same_verdict=(here["status"], here["reason"]) == (there["status"], there["reason"]),
    )


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
    right, precisions = True, []
    for cpu in CPUS:
        health = examine_there(root, cpu, model=model)
        precisions = health["student"]["precisions"]
        worst = {
            precision: max(g["error"] or 0.0 for g in health["graphs"] if g["precision"] == precision)
            for precision in precisions
        }
        errors = ", ".join(f"{precision} off by {error:.1e}" for precision, error in worst.items())
        well = health["healthy"] and not health["warnings"]
        state, auto = "all is well" if well else "ill", health["student"]["auto"]
        print(f"doctor on {cpu}: {state}; {errors}; auto: {auto}")
        for text in health["problems"] + health["warnings"]:
            print(f"  {text}")
        right = right and well
    with tempfile.TemporaryDirectory() as folder:
        video = video or write_talking_head(Path(folder) / "head.mp4", audio_lead_ms=80, seconds=3)
        difference = compare_check(root, video, precision="fp32", model=model)
    print(
        f"check on {CHECKED_ON} against {platform.machine()}, fp32: same verdict: {difference.same_verdict}, "
        f"scores within {difference.score:.1e}, offset within {difference.lead_ms} ms"
    )
    return right and difference.is_small


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
