"""What a phone-class board can do: one core at a quarter of this machine's speed, 512 MB of memory.

    python tests/benchmarks/bench_board.py [--share 0.25] [--memory-mb 512]

As root on Linux: a CPU quota and a memory limit (cgroups, version 1 or 2) hold each process. A minute of real
footage of the corpus (AVSYNC_CORPUS) is encoded at 720 lines for `check`, and at 480 lines as a stream that
comes at its own pace for `watch`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Thread

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
from bench_long import CORPUS, longest_hd_clip
from looping import join_clips
from serving import Airing, send_airing

_GROUPS = Path("/sys/fs/cgroup")
_NAME = "avsync-board"
_PERIOD_US = 20_000
_SECONDS = 60


@dataclass(frozen=True)
class Board:
    """The groups whose limits hold a process, and the file that tells the most memory it had."""

    folders: tuple[Path, ...]
    peak: Path

    def enter(self) -> None:
        """Put this process into the groups, and on one core."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def peak_mb(self) -> float:
        return int(self.peak.read_text()) / 2**20


@contextmanager
def make_board(share: float, memory_mb: int) -> Iterator[Board]:
    quota_us, memory = round(share * _PERIOD_US), str(memory_mb << 20)
    if (_GROUPS / "cgroup.controllers").exists():
        folder = _GROUPS / _NAME
        (_GROUPS / "cgroup.subtree_control").write_text("+cpu +memory")
        settings = {folder / "cpu.max": f"{quota_us} {_PERIOD_US}", folder / "memory.max": memory}
        board = Board((folder,), folder / "memory.peak")
    else:
        cpu, held = _GROUPS / "cpu" / _NAME, _GROUPS / "memory" / _NAME
        settings = {
            cpu / "cpu.cfs_period_us": str(_PERIOD_US),
            cpu / "cpu.cfs_quota_us": str(quota_us),
            held / "memory.limit_in_bytes": memory,
        }
        board = Board((cpu, held), held / "memory.max_usage_in_bytes")
    for folder in board.folders:
        folder.mkdir()
    try:
        for path, value in settings.items():
            path.write_text(value)
        yield board
    finally:
        for folder in board.folders:
            folder.rmdir()


def encode(path: Path, clip: Path, lasts_s: Fraction, height: int) -> Path:
    """The clip at so many lines in H.264 and AAC, again and again for a minute."""
    small = path.with_name(f"small-{path.name}")
    with av.open(str(clip)) as source, av.open(str(small), "w") as out:
        video, sound = source.streams.video[0], source.streams.audio[0]
        width = round(video.width * height / video.height / 2) * 2
        pictures = out.add_stream("libx264", rate=video.average_rate, width=width, height=height)
        pictures.pix_fmt, pictures.options = "yuv420p", {"preset": "veryfast"}
        voice = out.add_stream("aac", rate=sound.rate)
        for frame in source.decode(video, sound):
            if isinstance(frame, av.VideoFrame):
                picture = frame.reformat(width=width, height=height, format="yuv420p")
                picture.pict_type = av.video.frame.PictureType.NONE
                out.mux(pictures.encode(picture))
            elif isinstance(frame, av.AudioFrame):
                out.mux(voice.encode(frame))
        for stream in (pictures, voice):
            out.mux(stream.encode(None))
    return join_clips(path, ((small, lasts_s) for _ in range(round(_SECONDS / lasts_s))))


def run(
    board: Board, *arguments: str, feed: Callable[[Callable[[bytes], object]], None] | None = None
) -> tuple[float, float, int, list[str]]:
    """Seconds, CPU seconds, exit code and lines of `avsync ARGUMENTS`, held by the board."""
    begin, before = time.monotonic(), os.times()
    process = subprocess.Popen(
        [sys.executable, "-m", "avsync_cli", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=board.enter,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if feed is not None:

        def send() -> None:
            assert process.stdin is not None
            with process.stdin:
                feed(process.stdin.write)

        Thread(target=send, daemon=True).start()
    lines = process.stdout.read().decode().splitlines()
    code = process.wait()
    after = os.times()
    worked_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - begin, worked_s, code, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--memory-mb", type=int, default=512)
    options = parser.parse_args()
    found = longest_hd_clip()
    if found is None:
        print(f"skipped: no clip of 1080 lines in a corpus at {CORPUS}; set AVSYNC_CORPUS")
        return
    with tempfile.TemporaryDirectory() as folder:
        film = encode(Path(folder) / "film.mp4", *found, 720)
        camera = encode(Path(folder) / "camera.mp4", *found, 480)
        with make_board(options.share, options.memory_mb) as board:
            seconds, worked_s, code, lines = run(board, "check", "--json", str(film))
            report = json.loads(lines[-1]) if lines else {}
            told = f"exit {code}, {report.get('status')}, {report.get('audio_lead_ms')} ms"
            print(f"check, 60 s of 720 lines: {told}; {seconds:.1f} s, {worked_s:.1f} s of CPU time")
            airing = Airing(camera, _SECONDS, paced=True)
            seconds, worked_s, code, lines = run(
                board, "watch", "-", "--json", feed=lambda send: send_airing(airing, send)
            )
            events = [json.loads(line) for line in lines]
            told = f"exit {code}, {len(events)} lines, the last: {json.dumps(events[-1]) if events else None}"
            print(f"watch, {_SECONDS} s of 480 lines: {told}; {seconds:.1f} s, {worked_s:.1f} s of CPU time")
            print(f"at most {board.peak_mb():.0f} MB of both, with the files that the kernel keeps")


if __name__ == "__main__":
    main()
