"""What a long watch takes: its memory minute by minute, and how much of a core.

    python tests/benchmarks/soak_watch.py CLIP.ts [--minutes 15] [--model DIR] [--once]

The clip is sent round and round over the loopback interface, in real time, in three connections. In each,
three seconds are lost after a third of it, and the clock jumps by an hour after two thirds.
With --once the file itself is watched, as fast as it can be: for its load on a busy machine.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from serving import Airing, serve

CONNECTIONS = 3
DROP_S = 3.0
JUMP_S = 3600.0
_EVERY_S = 5.0


@dataclass(frozen=True)
class Sample:
    """What a process had taken after so many seconds."""

    at_s: float
    resident_mb: float
    cpu_s: float


@dataclass(frozen=True)
class Soak:
    """What was measured every few seconds, and what the watch printed, as JSON values."""

    samples: list[Sample]
    lines: list[dict[str, Any]]
    exit_code: int

    def skipped_share(self) -> float:
        """Of the pictures, those that were not looked at."""
        skipped = [line["skipped_pictures"] for line in self.lines if line["kind"] == "verdict"][-1]
        told = re.search(r"(\d+) pictures", self.lines[-1]["message"])
        return skipped / max(1, int(told[1])) if told else 0.0

    def load(self) -> float:
        """Seconds of one core for a second of the stream that was looked at, start-up left out.

        So who skips is not taken for fast.
        """
        first, last = self.samples[0], self.samples[-1]
        looked_s = (last.at_s - first.at_s) * (1 - self.skipped_share())
        return (last.cpu_s - first.cpu_s) / max(1e-9, looked_s)

    def resident_mb(self, first_s: float, end_s: float) -> float:
        """The most that was resident in a stretch of it."""
        return max(each.resident_mb for each in self.samples if first_s <= each.at_s < end_s)


def soak(clip: Path, seconds: float, *, options: tuple[str, ...] = ()) -> Soak:
    """Watch a clip that is sent for so many seconds."""
    part_s = seconds / CONNECTIONS
    airing = Airing(
        clip,
        part_s,
        paced=True,
        drop_at_s=part_s / 3,
        drop_s=DROP_S,
        jump_at_s=part_s * 2 / 3,
        jump_s=JUMP_S,
    )
    with serve([airing] * CONNECTIONS) as address:
        line = [sys.executable, "-m", "avsync_cli", "watch", address, "--json", "--retries", "2", *options]
        return _measure(line, lambda _, running_s: running_s)


def watch_once(clip: Path, *, options: tuple[str, ...] = ()) -> Soak:
    """Watch a file that does not grow; its seconds are those of the file."""
    line = [sys.executable, "-m", "avsync_cli", "watch", str(clip), "--json", "--wait", "0", *options]
    return _measure(line, lambda told, _: float(told.get("time_s", 0.0)))


def _measure(line: list[str], second: Callable[[dict[str, Any], float], float]) -> Soak:
    """Run a watch, and take samples at its lines, of which one comes at least every two seconds."""
    began, next_s = time.monotonic(), 0.0
    samples: list[Sample] = []
    lines: list[dict[str, Any]] = []
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watched = psutil.Process(process.pid)
        for text in process.stdout:
            lines.append(json.loads(text))
            at_s = second(lines[-1], time.monotonic() - began)
            if at_s >= next_s and lines[-1]["kind"] == "verdict":
                cpu, memory = watched.cpu_times(), watched.memory_info()
                samples.append(Sample(at_s, memory.rss / 1e6, cpu.user + cpu.system))
                next_s = at_s + _EVERY_S
    return Soak(samples, lines, process.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--model")
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    options = () if arguments.model is None else ("--model", arguments.model)
    if arguments.once:
        done = watch_once(arguments.clip, options=options)
    else:
        done = soak(arguments.clip, arguments.minutes * 60, options=options)
    minutes = range(int(done.samples[-1].at_s // 60) + 1)
    for minute in minutes:
        part = [each for each in done.samples if minute * 60 <= each.at_s < minute * 60 + 60]
        if part:
            print(f"minute {minute:2d}: {max(each.resident_mb for each in part):6.1f} MB")
    verdicts = [line for line in done.lines if line["kind"] == "verdict"]
    print(f"load: {done.load():.3f} s of a core for a second of stream that was looked at")
    print("lines:", dict(Counter(line["kind"] for line in done.lines)))
    print("verdicts:", dict(Counter(line["reason"] or line["status"] for line in verdicts)))
    print(f"skipped pictures: {verdicts[-1]['skipped_pictures']}, clock jumps: {verdicts[-1]['clock_jumps']}")
    print(f"end: {done.lines[-1]['message']}, exit code {done.exit_code}")


if __name__ == "__main__":
    main()
