"""Small files that claim much: the most memory that one process of a check of each takes, and CPU time.

The last is compared with 10 s and 3 times what it takes to decode the pictures that are looked at.

python tests/benchmarks/bench_bombs.py
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bombs import measure_check, measure_decoding, write_pictures, write_slow_sound
from hostile import claim_pictures, write_hostile
from talking import write_talking_head

from avsync_cli.errors import EXIT_MEDIA


def write_swelling(path: Path, head: Path, millions: int) -> Path:
    path.write_bytes(claim_pictures(head.read_bytes(), millions * 1_000_000, ticks=1, in_a_row=True))
    return path


def measure(name: str, path: Path, *options: str) -> None:
    code, held_mb, cpu_s, line = measure_check(path, *options)
    decoding_s = measure_decoding(path) if code != EXIT_MEDIA or name == "loop.mp4" else 0.0
    bound = "within" if cpu_s <= 10 + 3 * decoding_s else "BEYOND"
    times = f"{cpu_s:5.1f} s of CPU, {decoding_s:5.1f} s to decode: {bound}"
    print(f"{name:42} {held_mb:4.0f} MB  {times}  exit {code}  {line.partition(': ')[2]}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        path, head = Path(made) / "bomb", write_talking_head(Path(made) / "head.mp4")
        deep = {"codec": "libx265", "pixel_format": "yuv420p10le", "count": 25}
        bombs: dict[str, Callable[[], Path]] = {
            "32000 x 16, FFV1": partial(write_pictures, path, 32_000, 16),
            "1280 x 16, FFV1": partial(write_pictures, path, 1_280, 16),
            "1920 x 120, FFV1": partial(write_pictures, path, 1_920, 120, count=75),
            "5600 x 4200, PNG": partial(write_pictures, path, 5_600, 4_200, codec="png"),
            "16384 x 1464, H.264": partial(write_pictures, path, 16_384, 1_464, codec="libx264", count=25),
            "3840 x 2160, HEVC in 10 bits": partial(write_pictures, path, 3_840, 2_160, **deep),  # type: ignore[arg-type]
            "8192 x 8192, PNG": partial(write_pictures, path, 8_192, 8_192, codec="png"),
            "15800 x 15800, PNG": partial(write_pictures, path, 15_800, 15_800, codec="png"),
            "sound at 1 Hz": partial(write_slow_sound, path.with_suffix(".wav"), 1),
            **{
                f"MP4 that claims {millions} million pictures": partial(
                    write_swelling, path.with_suffix(".mp4"), head, millions
                )
                for millions in (10, 24, 400)
            },
        }
        for name, write in bombs.items():
            measure(name, write(), "--threads", "8")
        for name in sorted(write_hostile(Path(made) / "hostile", head)):
            if name != "swell.mp4":  # as above
                measure(name, Path(made) / "hostile" / name)
        for seconds in (4, 30):  # for comparison
            measure(f"a talking head of {seconds} s", write_talking_head(head, seconds=seconds))


if __name__ == "__main__":
    main()
