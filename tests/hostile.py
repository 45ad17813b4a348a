"""Files that users have too: cut off, overwritten, endless, and larger than they look."""

import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import write_clip


def write_hostile(folder: Path, good: Path) -> dict[str, str | None]:
    """Files made of a good one, and what is to become of each: a status, or the reason of an error."""
    folder.mkdir(exist_ok=True)
    data = good.read_bytes()
    noise = np.random.default_rng(0).bytes(len(data) // 2)
    (folder / "empty.mp4").touch()
    (folder / "noise.mkv").write_bytes(noise)
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])  # its index lies behind the cut
    (folder / "liar.mp4").write_bytes(_claim_duration(data, 0x7FFFFFFF))
    write_clip(folder / "mute.mp4", seconds=0.4)
    write_clip(folder / "faceless.mp4", seconds=2, sound=np.zeros(32_000, np.float32), rate=16_000)
    write_loop(folder / "loop.mp4", good)
    write_large_picture(folder / "large.mov")
    os.mkfifo(folder / "pipe.mp4")
    with (folder / "sparse.mp4").open("wb") as file:
        file.truncate(1 << 40)
    unreadable = ("empty.mp4", "noise.mkv", "cut.mp4", "pipe.mp4", "sparse.mp4")
    return dict.fromkeys(unreadable, "unreadable") | {
        "mute.mp4": "no_audio",
        "faceless.mp4": "no_face",
        "loop.mp4": "timeout",
        "large.mov": "memory_limit",
        "liar.mp4": None,
    }


def write_loop(path: Path, good: Path, *, times: int = 200_000) -> None:
    """A few megabytes that play another file for days."""
    name = f"{path.stem}-once{good.suffix}"
    (path.parent / name).write_bytes(good.read_bytes())
    path.write_text("ffconcat version 1.0\n" + f"file {name}\n" * times)


def write_large_picture(path: Path, *, side: int = 14_000) -> None:
    """A kilobyte or so for each megabyte of picture."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("png", rate=Fraction(25))
        video.width = video.height = side
        video.pix_fmt = "rgb24"
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24")
        picture.pts = 0
        container.mux(video.encode(picture))
        container.mux(video.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        silence.sample_rate, silence.pts = 16_000, 0
        container.mux(sound.encode(silence))


def _claim_duration(data: bytes, ticks: int) -> bytes:
    """An MP4 with other durations in its headers of movie, tracks and media."""
    changed = bytearray(data)
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = changed.find(box)
        while place >= 0:
            struct.pack_into(">I", changed, place + offset, ticks)
            place = changed.find(box, place + 4)
    return bytes(changed)
