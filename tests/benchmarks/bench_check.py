"""How long a check takes and how much memory, against a plain decode of the same file in the same run.

    python tests/benchmarks/bench_check.py [--seconds 60] [--height 1080] [--fps 30] [--model DIR]

Makes a talking head of the given size, then times fresh processes, so that start-up is included.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from clips import write_clip
from talking import RATE, TalkingHead, syllables, voice

PLAIN_DECODE = """
import sys, av
with av.open(sys.argv[1]) as container:
    container.streams.video[0].thread_type = "AUTO"
    for _ in container.decode(video=0): pass
"""


def make_video(path: Path, *, seconds: float, height: int, fps: int) -> Path:
    """A talking head in the middle of a wide noisy picture, so that decoding is real work."""
    import cv2
    import numpy as np

    loudness = syllables(seconds)
    head = TalkingHead(loudness, fps=Fraction(fps), side=height // 2 * 2)
    width = height * 16 // 9 // 2 * 2
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 60, (height, width // 4, 3), np.uint8)

    def paint(number: int) -> np.ndarray:
        picture = cv2.resize(np.roll(grain, number, axis=0), (width, height))
        left = (width - height) // 2
        picture[:, left : left + height] = head(number)
        return picture

    return write_clip(path, fps=Fraction(fps), seconds=seconds, paint=paint, sound=voice(loudness), rate=RATE)


def run(*command: str) -> tuple[float, float]:
    """Seconds and peak MB of the children so far."""
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - begin
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.mp4"
        # In a process of its own: what painting needs must not count as the tool's peak.
        make_video(path, seconds=options.seconds, height=options.height, fps=options.fps)
        model = ["--model", options.model] if options.model else []
        run(sys.executable, "-c", PLAIN_DECODE, str(path))  # warm the file cache
        decode_s, decode_mb = run(sys.executable, "-c", PLAIN_DECODE, str(path))
        check_s, check_mb = run(sys.executable, "-m", "avsync_cli", "check", str(path), *model)
    name = f"{options.seconds:g} s at {options.height}p{options.fps}"
    print(f"{name}: plain decode {decode_s:.1f} s, {decode_mb:.0f} MB")
    print(f"{name}: avsync check {check_s:.1f} s, {check_mb:.0f} MB, {check_s / decode_s:.2f} x the decode")


if __name__ == "__main__":
    main()
