"""Mutated media, each file from one number: what decoding must survive.

`python tests/fuzz/mutate.py COUNT [FIRST_SEED]` reads COUNT of them in a process apart, a part of them with
the whole of a check, and prints what became of them. `texts.py` does the same with what is no media, and
`test_seeds.py` runs some of the seeds again.
"""

import multiprocessing
import os
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import time
from typing import Any

import av
import numpy as np
import psutil

from avsync_cli.check import Engine, check_file, load_engine
from avsync_cli.errors import AvsyncError
from avsync_cli.machine import MB
from avsync_cli.media import open_media
from avsync_cli.seeking import open_places

MAKES = {  # suffix of the file: codecs of pictures and of sound
    "mp4": ("libx264", "aac"),
    "mov": ("mpeg4", "pcm_s16le"),
    "mkv": ("libx264", "pcm_s16le"),
    "webm": ("libvpx", "libopus"),
    "avi": ("mpeg4", "pcm_s16le"),
    "ts": ("mpeg2video", "mp2"),
    "mpg": ("mpeg2video", "mp2"),
    "ogg": ("libvpx", "libopus"),
    "flv": ("flv1", "libmp3lame"),
    "mxf": ("mpeg2video", "pcm_s16le"),
}
HEADER_BYTES = 2_000  # in which half of the changes fall
CHECK_EVERY = 16  # seeds; with the models a file takes ten times as long
LONGEST_S = 60.0
MOST_BYTES = 600 * MB


def write_original(path: Path) -> Path:
    """Fifty small pictures and two seconds of noise, in the make that goes with the suffix."""
    pictures, sound = MAKES[path.suffix[1:]]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(pictures, rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio: Any = container.add_stream(
            sound, rate=48_000, layout="mono" if path.suffix == ".mxf" else "stereo"
        )
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 96, 3), np.uint8), "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = rng.integers(-9_000, 9_000, (1, 96_000 * len(audio.layout.channels))).astype(np.int16)
        noise = av.AudioFrame.from_ndarray(samples, "s16", audio.layout)
        noise.sample_rate, noise.pts = 48_000, 0
        resampler = av.AudioResampler(
            audio.format, audio.layout, 48_000, audio.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(noise), *resampler.resample(None)]:
            container.mux(audio.encode(part))
        container.mux(audio.encode())
    return path


def mutate(data: bytes, seed: int) -> bytes:
    """The bytes with some changed, repeated, removed or cut off; the same for the same seed."""
    rng, changed = random.Random(seed), bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 20, 100))):
        reach = len(changed) if rng.random() < 0.5 else min(HEADER_BYTES, len(changed))
        place = rng.randrange(max(1, reach))
        match rng.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[place : place + 4] = rng.choice(
                    (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80" + bytes(3))
                )
            case 2:
                changed[place : place + rng.randrange(1, 64)] = b""
            case 3:
                changed[place:place] = changed[place : place + rng.randrange(1, 64)]
            case 4:
                changed[place : place + 2] = rng.randrange(1 << 16).to_bytes(2, "big")
            case 5 if rng.random() < 0.2:
                del changed[place:]
    return bytes(changed)


def read(path: Path) -> None:
    """Decode a file as `check` does. Raises AvsyncError."""
    with open_media(path, threads=1) as media:
        for _ in media.pictures():
            pass
        media.sound()
    with open_places(path, threads=1) as places:
        first = places.approach(20)
        if first is not None:
            for _ in places.pictures(first, 40):
                pass
            places.sound(20, 40)


def try_seed(seed: int, folder: Path) -> None:
    """Write the file of one seed and read it. Raises AvsyncError."""
    suffix = list(MAKES)[seed % len(MAKES)]
    path = folder / f"mutated.{suffix}"
    path.write_bytes(mutate(original_bytes(suffix), seed))
    if seed // len(MAKES) % CHECK_EVERY:
        read(path)
    else:
        check_file(path, engine=_engine())


@cache
def original_bytes(suffix: str) -> bytes:
    """A whole file of a make."""
    with tempfile.TemporaryDirectory() as folder:
        return write_original(Path(folder) / f"original.{suffix}").read_bytes()


@cache
def _engine() -> Engine:
    return load_engine(threads=1)


def run_seeds(
    seeds: range,
    try_one: Callable[[int, Path], None],
    found: "multiprocessing.SimpleQueue[tuple[str, int]]",
    folder: Path,
) -> None:
    """Try seeds in this process, and tell each one's beginning, its end and the memory that was held."""
    descriptors = None
    for seed in seeds:
        found.put(("begin", seed))
        try:
            try_one(seed, folder)
            end = "read"
        except AvsyncError as error:
            end = type(error).__name__
        except Exception as error:
            end = f"bug {type(error).__name__}: {error}"
        held = len(os.listdir("/proc/self/fd"))
        if seed - seeds.start == 2 * CHECK_EVERY * len(MAKES):  # by then all that stays open is
            descriptors = held
        if descriptors is not None and held > descriptors:
            end, descriptors = f"bug: {held} descriptors", held
        found.put((end, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10))


def _worked_s(child: multiprocessing.Process) -> float:
    """For how long a process has worked, or waited a twentieth of it: on a busy machine files take longer."""
    try:
        process = psutil.Process(child.pid)
        times = process.cpu_times()
        return float(times.user + times.system + (time() - process.create_time()) / 20)
    except psutil.Error:
        return 0.0


def run(count: int, first_seed: int, try_one: Callable[[int, Path], None]) -> int:
    """Try so many seeds and print how each ended; 1 where anything but an answer or an error came."""
    ends, wrong, most_bytes, seed = Counter[str](), list[tuple[int, str]](), 0, first_seed
    end_seed = first_seed + count
    while seed < end_seed:
        found: multiprocessing.SimpleQueue[tuple[str, int]] = multiprocessing.SimpleQueue()
        with tempfile.TemporaryDirectory() as folder:
            arguments = (range(seed, end_seed), try_one, found, Path(folder))
            child = multiprocessing.Process(target=run_seeds, args=arguments)
            child.start()
            heard_s, hangs = _worked_s(child), False
            while child.is_alive() or not found.empty():
                if found.empty():
                    child.join(0.01)
                    hangs = hangs or _worked_s(child) - heard_s > LONGEST_S
                    if hangs:
                        child.kill()
                    continue
                heard_s = _worked_s(child)
                end, number = found.get()
                if end == "begin":
                    seed = number
                    continue
                ends[end] += 1
                most_bytes = max(most_bytes, number)
                wrong += [(seed, end)] if end.startswith("bug") else []
                seed += 1
                if seed % 1000 == 0:
                    print(f"{seed}: {dict(ends)}", file=sys.stderr, flush=True)
        if seed < end_seed:
            end = "hang" if hangs else f"crashed {child.exitcode}"
            ends[end] += 1
            wrong.append((seed, end))
            seed += 1
    print(f"{count} inputs from seed {first_seed}: {dict(ends)}")
    print(f"at most {most_bytes / MB:.0f} MB; wrong: {wrong}")
    return int(bool(wrong) or most_bytes > MOST_BYTES)


if __name__ == "__main__":
    first, *more = map(int, sys.argv[1:])
    sys.exit(run(first, more[0] if more else 0, try_seed))
