"""What long videos cost: time as a ratio to a plain decode in the same run, seconds, and peak memory.

    python tests/benchmarks/bench_long.py [--minutes 60] [--model DIR]

Real footage of the corpus (AVSYNC_CORPUS) is looped packet by packet: 60 s for the ratios, and the given
minutes for the bound. Fresh processes are timed, start-up included. Without the corpus there is nothing
to loop, and it says so.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
from bench_check import PLAIN_DECODE
from looping import join_clips

CORPUS = Path(os.environ.get("AVSYNC_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
RATIO, FULL_RATIO, LONG_S, MEMORY_MB = 0.7, 1.3, 20.0, 400.0  # what is to be kept


def longest_hd_clip() -> tuple[Path, Fraction] | None:
    """The longest H.264 clip of 1080 lines at about 30 pictures a second, and its whole seconds."""
    table = CORPUS / "manifest.csv"
    if not table.is_file():
        return None
    with table.open(newline="", encoding="utf-8") as rows:
        fitting = [
            row
            for row in csv.DictReader(rows)
            if row["height"] == "1080" and 29 < float(row["fps"]) < 31 and row["file"].endswith(".mp4")
        ]
    for row in sorted(fitting, key=lambda row: -float(row["seconds"])):
        with av.open(str(CORPUS / row["file"])) as container:
            if container.streams.video[0].codec_context.name == "h264":
                return CORPUS / row["file"], Fraction(int(float(row["seconds"])))
    return None


def loop(path: Path, clip: Path, lasts_s: Fraction, seconds: float) -> Path:
    def parts() -> Iterator[tuple[Path, Fraction]]:
        for _ in range(round(seconds / lasts_s)):
            yield clip, lasts_s

    return join_clips(path, parts())


@dataclass(frozen=True)
class Run:
    """One process: seconds, those of all cores together, peak memory, and what it printed."""

    seconds: float
    cpu_s: float
    memory_mb: float
    output: str


def run(*command: str) -> Run:
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        pid = os.posix_spawn(
            command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        )
        usage = os.wait4(pid, 0)[2]
        seconds = time.perf_counter() - begin
        output.seek(0)
        cpu_s = usage.ru_utime + usage.ru_stime
        return Run(seconds, cpu_s, usage.ru_maxrss / 1024, output.read().decode())


def check(path: Path, *options: str) -> Run:
    return run(sys.executable, "-m", "avsync_cli", "check", "--json", str(path), *options)


def describe(done: Run) -> str:
    report = json.loads(done.output)
    lead = report["audio_lead_ms"]
    where = f"{report['looked_at_s']} s looked at, {report['decoded_pictures']} pictures decoded"
    return f"{report['status']}, {'no offset' if lead is None else f'{lead:+.0f} ms'}; {where}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--model")
    options = parser.parse_args()
    model = ["--model", options.model] if options.model else []
    found = longest_hd_clip()
    if found is None:
        print(f"skipped: no clip of 1080 lines in a corpus at {CORPUS}; set AVSYNC_CORPUS")
        return
    clip, lasts_s = found
    with tempfile.TemporaryDirectory() as folder:
        minute = loop(Path(folder) / "minute.mp4", clip, lasts_s, 60)
        run(sys.executable, "-c", PLAIN_DECODE, str(minute))  # warm the file cache
        plain = run(sys.executable, "-c", PLAIN_DECODE, str(minute))
        print(f"60 s of 1080p30, plain decode: {plain.seconds:.1f} s, {plain.memory_mb:.0f} MB")
        for name, extra, bar in (("by default", [], RATIO), ("with --full", ["--full"], FULL_RATIO)):
            done = check(minute, *extra, *model)
            ratio, cpu_ratio = done.seconds / plain.seconds, done.cpu_s / plain.cpu_s
            print(
                f"60 s of 1080p30, {name}: {done.seconds:.1f} s, {done.memory_mb:.0f} MB, {ratio:.2f} x the "
                f"decode (bar {bar}), {cpu_ratio:.2f} x its CPU time; {describe(done)}"
            )
        minute.unlink()
        long = loop(Path(folder) / "long.mp4", clip, lasts_s, options.minutes * 60)
        done = check(long, *model)
        print(
            f"{options.minutes:g} minutes, by default: {done.seconds:.1f} s (bar {LONG_S:g}), "
            f"{done.memory_mb:.0f} MB (bar {MEMORY_MB:g}); {describe(done)}"
        )


if __name__ == "__main__":
    main()
