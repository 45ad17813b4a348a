"""What one form of a student costs in time and memory, in a process that runs nothing else.

V: video windows. The peak of a process is that of everything in it, so the ONNX forms are measured where
torch was never imported: `training.data.cache` does without it.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack
from avsync_cli.model import load_student
from avsync_cli.offsets import score_offsets
from avsync_cli.spec import Precision
from training.data.cache import read_manifest, read_parts, unpack_parts

FRAMES = 40  # of a clip, that are scanned
_REPEATS = 3
_UNITS_PER_MB = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss


@dataclass(frozen=True)
class Footprint:
    """Of a scan of V windows against 31 offsets: ms a window and, of the whole process, the peak in MB.

    The time is that of the clock with any number of threads; the best of three repeats counts.
    """

    scan_ms: float
    peak_mb: float


def measure_student(folder: Path, cache: Path, file: str, *, precision: Precision, threads: int) -> Footprint:
    """Run a student in a child process on the beginning of one clip of a cache. Raises ConfigError."""
    return _measure("student", str(folder), precision, str(cache), file, str(threads))


def measure_net(options: list[str | None], cache: Path, file: str, *, threads: int) -> Footprint:
    """Run a checkpoint by torch; `options` as for `export.scorers.open_scorer`. Raises ConfigError."""
    return _measure("net", json.dumps(options), "", str(cache), file, str(threads))


def _measure(*words: str) -> Footprint:
    command = [sys.executable, "-m", "export.footprint", *words]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        last = finished.stderr.strip().splitlines()[-1:] or [f"exit code {finished.returncode}"]
        raise ConfigError(f"the process that measures time and memory failed: {last[0]}")
    return Footprint(**json.loads(finished.stdout))


def _main(kind: str, what: str, precision: str, cache: str, file: str, threads: str) -> None:
    make = _student_scan if kind == "student" else _net_scan
    scan = make(what, precision, Path(cache), file, int(threads))
    windows = len(scan())
    print(json.dumps({"scan_ms": 1000 * time_scan_s(scan) / windows, "peak_mb": _peak_mb()}))


def time_scan_s(scan: Callable[[], object]) -> float:
    """Seconds of the clock, the best of three."""
    times_s = []
    for _ in range(_REPEATS):
        begin = perf_counter()
        scan()
        times_s.append(perf_counter() - begin)
    return min(times_s)


def _peak_mb() -> float:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss counts in what the parent held when it started us
        held = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(held.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MB


def _student_scan(
    folder: str, precision: str, cache: Path, file: str, threads: int
) -> Callable[[], np.ndarray]:
    student = load_student(folder, precision="int8" if precision == "int8" else "fp32", threads=threads)
    entry = next(entry for entry in read_manifest(cache) if entry.file == file)
    parts = unpack_parts(*read_parts(cache, entry))
    mel = MelTrack(parts["mel"], int(parts["origin_tick"]), int(parts["first_tick"]), int(parts["ticks"]))
    crops, lips = parts["crops"][:FRAMES], parts["lips"][:FRAMES].astype(np.float32)
    first = int(parts["video_tick"])
    ticks = mel.all_ticks[mel.all_ticks < first + len(crops)]

    def scan() -> np.ndarray:
        video, audio = student.encode_video(crops, lips), student.encode_audio(mel, ticks)
        return score_offsets(
            video, audio, first_tick_video=first, first_tick_audio=int(ticks[0]), score=student.score
        )

    return scan


def _net_scan(options: str, precision: str, cache: Path, file: str, threads: int) -> Callable[[], np.ndarray]:  # noqa: ARG001 - as of `_student_scan`
    import torch

    from export.scorers import open_scorer
    from training.data.clips import load_clip

    torch.set_num_threads(threads)
    checkpoint, *rest = json.loads(options)
    score = open_scorer(Path(checkpoint), *rest)
    entry = next(entry for entry in read_manifest(cache) if entry.file == file)
    clip = load_clip(cache, entry)
    return lambda: score(clip, FRAMES)


if __name__ == "__main__":
    _main(*sys.argv[1:])
