"""Files that users have too: cut off, overwritten, endless, and larger than they look."""

import os
import struct
from pathlib import Path

import numpy as np
from bombs import write_pictures
from boxes import edit_boxes, find_box
from clips import write_clip

_TOO_LARGE = 8_192, 4_096


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
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile liar.mp4\n")
    write_pictures(folder / "large.mov", *_TOO_LARGE, codec="png")
    # Nothing that a header claims tells these from files that are what they seem.
    (folder / "loop.mp4").write_bytes(claim_pictures(data, 900_000, ticks=3))
    (folder / "swell.mp4").write_bytes(claim_pictures(data, 20_000_000, ticks=1, in_a_row=True))
    os.mkfifo(folder / "pipe.mp4")
    with (folder / "sparse.mp4").open("wb") as file:
        file.truncate(1 << 40)
    unreadable = ("empty.mp4", "noise.mkv", "cut.mp4", "pipe.mp4", "sparse.mp4", "list.mp4", "large.mov")
    return dict.fromkeys(unreadable, "unreadable") | {
        "mute.mp4": "no_audio",
        "faceless.mp4": "no_face",
        "loop.mp4": "timeout",
        "swell.mp4": "memory_limit",
        "liar.mp4": None,
    }


def claim_pictures(data: bytes, count: int, *, ticks: int, in_a_row: bool = False) -> bytes:
    """An MP4 whose index names its first picture so many times, `ticks` of the track's clock apart.

    Each is there to be decoded, for minutes of work in 30 s; or, `in_a_row`, they lie one behind the other
    and so beyond the end, and the index of a few bytes needs 36 in memory for each.
    """

    def claim(kind: bytes, track: bytes) -> bytes:
        if kind != b"trak" or find_box(track, b"mdia", b"hdlr")[8:12] != b"vide":
            return track
        tables = find_box(track, b"mdia", b"minf", b"stbl")
        (size,) = struct.unpack_from(">I", find_box(tables, b"stsz"), 12)
        place = find_box(tables, b"stco")[8:12]
        chunks = 1 if in_a_row else count
        claims = {
            b"stts": struct.pack(">4I", 0, 1, count, ticks),
            b"stsz": struct.pack(">3I", 0, size, count),
            b"stsc": struct.pack(">5I", 0, 1, 1, count // chunks, 1),
            b"stco": struct.pack(">2I", 0, chunks) + place * chunks,
            b"stss": None,
            b"ctts": None,
        }
        return edit_boxes(track, lambda kind, payload: claims.get(kind, payload))

    return edit_boxes(data, claim)


def _claim_duration(data: bytes, ticks: int) -> bytes:
    """An MP4 with other durations in its headers of movie, tracks and media."""
    changed = bytearray(data)
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = changed.find(box)
        while place >= 0:
            struct.pack_into(">I", changed, place + offset, ticks)
            place = changed.find(box, place + 4)
    return bytes(changed)
