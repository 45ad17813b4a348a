"""How many videos a minute `avsync scan` checks with 1 and with 2 workers, and what 1,000 hours would cost.

    python tests/benchmarks/bench_scan.py [FOLDER] [--files 24] [--seconds 10] [--jobs 1 2] [--rounds 2]

Scans FOLDER, or talking heads made for it. Start-up is included; the best of the rounds counts. Wants a
machine that does nothing else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from talking import write_talking_head


def make_videos(folder: Path, *, files: int, seconds: float) -> Path:
    """Heads of 256 pixels that talk each in its own way."""
    for number in range(files):
        write_talking_head(folder / f"{number:03}.mp4", audio_lead_ms=40 * (number % 9 - 4), seconds=seconds)
    return folder


def scan(folder: Path, *, jobs: int) -> tuple[float, dict[str, float]]:
    """Seconds that a scan took, and its summary."""
    with tempfile.TemporaryDirectory() as out:
        results, summary = Path(out) / "results.jsonl", Path(out) / "summary.json"
        command = [sys.executable, "-m", "avsync_cli", "scan", str(folder), "-o", str(results), "--exit-zero"]
        begin = time.perf_counter()
        subprocess.run([*command, "-q", "--jobs", str(jobs), "--summary", str(summary)], check=True)
        return time.perf_counter() - begin, json.loads(summary.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or make_videos(Path(made), files=options.files, seconds=options.seconds)
        # Taken in turns, so that a disturbance does not fall on one of them alone.
        runs = [(jobs, *scan(folder, jobs=jobs)) for _ in range(options.rounds) for jobs in options.jobs]
    best = {jobs: min(took for other, took, _ in runs if other == jobs) for jobs in options.jobs}
    summary = runs[-1][2]
    hours = summary["video_hours"]
    print(f"{summary['files']} files, {hours * 60:.1f} min of video")
    for jobs, took_s in best.items():
        rate = (
            f"{60 * summary['files'] / took_s:.1f} videos, {3600 * hours / took_s:.2f} min of video a minute"
        )
        print(f"{jobs} jobs: {took_s:.1f} s, {rate}, {best[options.jobs[0]] / took_s:.2f} x the first")
        print(f"  1,000 hours of video: {1000 * took_s * jobs / 3600 / hours:.0f} hours of a core")


if __name__ == "__main__":
    main()
