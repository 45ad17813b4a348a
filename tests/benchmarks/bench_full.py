"""What it costs to look at every picture: `check --full` beside a plain decode, and where its time goes.

    python tests/benchmarks/bench_full.py [--rounds 3] [--seconds 60] [--model DIR]

Real footage of 1080p30 from the corpus (AVSYNC_CORPUS), looped. Each round times, one after the other and in
fresh processes, a plain decode and a check, start-up included: ratios are those within a round, since other
work on the machine slows both. CPU time is that of all threads. Last, stages are timed in one thread each.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_check import PLAIN_DECODE
from bench_long import CORPUS, Run, check, describe, longest_hd_clip, loop, run

from avsync_cli.faces import FaceModels, roi_from_detection
from avsync_cli.grid import Picture
from avsync_cli.media import open_media
from avsync_cli.pixels import grey_part, part_of, thin_grey

RATIO, CPU_RATIO = 1.3, 1.6  # what was to be kept
STAGE_PICTURES = 250


def decode(path: Path) -> Run:
    return run(sys.executable, "-c", PLAIN_DECODE, str(path))


def time_rounds(path: Path, *, rounds: int, extra: list[str]) -> None:
    ratios, cpu_ratios = [], []
    for _ in range(rounds):
        plain, done = decode(path), check(path, "--full", *extra)
        ratios.append(done.seconds / plain.seconds)
        cpu_ratios.append(done.cpu_s / plain.cpu_s)
        print(
            f"decode {plain.seconds:.1f} s, {plain.cpu_s:.1f} s of CPU time; --full {done.seconds:.1f} s, "
            f"{done.cpu_s:.1f} s, {done.memory_mb:.0f} MB: {ratios[-1]:.2f} and {cpu_ratios[-1]:.2f} times; "
            f"{describe(done)}"
        )
    print(
        f"median of {rounds}: {statistics.median(ratios):.2f} times the decode (bar {RATIO}), "
        f"{statistics.median(cpu_ratios):.2f} times its CPU time (bar {CPU_RATIO})"
    )


def time_each(act: Callable[[Picture], object], pictures: list[Picture]) -> float:
    """ms of CPU time a picture."""
    begin = time.process_time()
    for picture in pictures:
        act(picture)
    return 1000 * (time.process_time() - begin) / len(pictures)


def time_stages(path: Path) -> None:
    """What a picture costs: decoded, thinned, cut to the face, and meshed."""
    models = FaceModels(threads=1)
    decoded_s = time.process_time()
    with open_media(path, threads=1) as media:
        decoded = sum(1 for _ in islice(media.pictures(), STAGE_PICTURES))
    decoded_s = time.process_time() - decoded_s
    with open_media(path, threads=1) as media:
        pictures = list(islice(media.pictures(), 60))
    roi = roi_from_detection(models.detect(pictures[0].rgb, tiles=True)[0])
    left, top, size = (int(edge) for edge in (roi.center_x, roi.center_y, roi.size / 2))
    around, mouth = (
        (left - size, top - size, left + size, top + size),
        (left, top, left + size, top + size // 2),
    )
    stages: dict[str, Callable[[Picture], object]] = {
        "thin copy for cuts": lambda picture: thin_grey(picture.pixels, least_rows=180),
        "face to RGB": lambda picture: part_of(picture.pixels, around),
        "mouth to grey": lambda picture: grey_part(picture.pixels, mouth),
        "mesh": lambda picture: models.mesh(picture.pixels, [roi]),
        "whole to RGB, which is not done": lambda picture: picture.rgb,
    }
    print(f"a picture decoded: {1000 * decoded_s / decoded:.2f} ms of CPU time")
    for name, act in stages.items():
        print(f"{name}: {time_each(act, pictures):.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model")
    options = parser.parse_args()
    found = longest_hd_clip()
    if found is None:
        print(f"skipped: no clip of 1080 lines in a corpus at {CORPUS}; set AVSYNC_CORPUS")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = loop(Path(folder) / "minute.mp4", *found, options.seconds)
        decode(path)  # warm the file cache
        extra = ["--model", options.model] if options.model else []
        time_rounds(path, rounds=options.rounds, extra=extra)
        time_stages(path)


if __name__ == "__main__":
    main()
