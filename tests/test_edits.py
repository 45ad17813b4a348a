"""Edit lists of MP4 are read from files that are whole, damaged or made to do harm."""

import os
import struct
from random import Random

import pytest
from boxes import edit_boxes
from clips import click_track, write_clip

from avsync_cli.edits import Edit, media_at, read_edits, shown_at, shown_from

EDITS = (Edit(0, 10, 2), Edit(3, 20, 4))  # an empty second between them


def give_list(data: bytes, *rows: tuple[int, int, int]) -> bytes:
    table = struct.pack(">2I", 0, len(rows)) + b"".join(struct.pack(">3i", *row) for row in rows)
    return edit_boxes(data, lambda kind, payload: table if kind == b"elst" else payload)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    sound = click_track((0.5,), seconds=2, rate=48_000)
    return write_clip(tmp_path_factory.mktemp("edits") / "clip.mp4", sound=sound).read_bytes()


def test_moments_are_found_both_ways():
    assert [shown_at(EDITS, s) for s in (9, 10, 11, 12, 20, 23, 24)] == [None, 0, 1, None, 3, 6, None]
    assert [shown_from(EDITS, s) for s in (0, 11, 12, 19, 21, 99)] == [0, 1, 3, 3, 4, 7]
    assert [media_at(EDITS, s) for s in (-1, 0, 1, 2, 3, 4, 99)] == [10, 10, 11, 20, 20, 21, 24]
    assert shown_at((), 5) == media_at((), 5) == shown_from((), 5) == 5


def test_a_file_that_begins_with_its_first_picture_is_left_to_ffmpeg(tmp_path, data):
    (tmp_path / "clip.mp4").write_bytes(data)
    assert not read_edits(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("rows", "own"),
    [
        ([(1000, 30_000, 1 << 16)], True),  # within the first group of pictures
        ([(500, 30_000, 1 << 16), (500, 100_000, 1 << 16)], True),
        ([(500, 100_000, 1 << 16), (500, 0, 1 << 16)], False),  # in another order
        ([(500, 30_000, 1 << 17)], False),  # twice as fast
        ([(500, -1, 1 << 16), (500, 30_000, 1 << 16)], True),
    ],
)
def test_others_are_placed_by_their_own_edits(tmp_path, data, rows, own):
    path = tmp_path / "clip.mp4"
    path.write_bytes(give_list(data, *rows))
    assert bool(read_edits(path)) is own


def test_damage_is_nothing_worse_than_no_edits(tmp_path, data):
    data, rng, path = give_list(data, (1000, 30_000, 1 << 16)), Random(0), tmp_path / "clip.mp4"
    begins = data.index(b"moov")
    found = 0
    for _ in range(2_000):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 5, 20))):
            changed[rng.randrange(begins, len(changed))] = rng.randrange(256)
        path.write_bytes(changed[: rng.randrange(begins, len(changed))] if rng.random() < 0.2 else changed)
        found += bool(read_edits(path))
    assert 0 < found < 2_000


@pytest.mark.parametrize("kind", [b"free", b"moov"])
def test_boxes_without_end_are_given_up(tmp_path, kind):
    path = tmp_path / "clip.mp4"
    size = 8 if kind == b"free" else 0  # beside each other, or each in the one before
    path.write_bytes(struct.pack(">I4s", 8, b"ftyp") + struct.pack(">I4s", size, kind) * 200_000)
    assert not read_edits(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    assert not read_edits(tmp_path / "fifo.mp4")
