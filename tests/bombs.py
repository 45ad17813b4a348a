"""Small files that claim much: pictures, sound and lists that would fill memory or lead elsewhere."""

import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np


def write_pictures(
    path: Path,
    width: int,
    height: int,
    *,
    codec: str = "ffv1",
    pixel_format: str | None = None,
    count: int = 6,
) -> Path:
    """Grey pictures of one size, and a second of sound, in a file whose suffix goes with the codec."""
    path = path.with_suffix(".mov" if codec == "png" else ".mkv")
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = width, height
        video.pix_fmt = pixel_format or ("rgb24" if codec == "png" else "yuv420p")
        if codec.startswith("libx26"):
            video.options = {"preset": "ultrafast"}
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.VideoFrame(width, height, video.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        for number in range(count):
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), "s16", "mono")
        samples.sample_rate, samples.pts = 16_000, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


def measure_check(path: Path, *options: str) -> tuple[int, float, float, str]:
    """Of a check: exit code, the MB that the larger of its processes held at once, CPU seconds, last line.

    CPU time says the same on a machine that is busy with other work.
    """
    # In a process of its own, whose children are those of this check alone.
    measure = (
        "import resource, subprocess, sys\n"
        "ran = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(ran.returncode, used.ru_maxrss, used.ru_utime + used.ru_stime)\n"
        "print((ran.stderr or ran.stdout).strip().splitlines()[-1])"
    )
    command = [
        sys.executable,
        "-c",
        measure,
        sys.executable,
        "-m",
        "avsync_cli",
        "check",
        "-q",
        *options,
        str(path),
    ]
    numbers, line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    code, held_kb, cpu_s = numbers.split()
    return int(code), int(held_kb) / 1024, float(cpu_s), line


def measure_decoding(path: Path) -> float:
    """CPU seconds in which the pictures of a file that a check looks at are decoded; 0 where it has none."""
    measure = (
        "import sys, time\n"
        "from avsync_cli.errors import MediaError\n"
        "from avsync_cli.media import open_media\n"
        "before = time.process_time()\n"
        "try:\n"
        "    with open_media(sys.argv[1], threads=1) as media:\n"
        "        before = time.process_time()\n"
        "        sum(1 for _ in media.pictures())\n"
        "    print(time.process_time() - before)\n"
        "except MediaError:\n"
        "    print(0)\n"
    )
    return float(subprocess.check_output([sys.executable, "-c", measure, str(path)], timeout=900))


def write_slow_sound(path: Path, rate_hz: int) -> Path:
    """A sound of 4,000 samples at a rate."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(bytes(8_000))
    return path
