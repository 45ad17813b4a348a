"""The one place that reads media: what PyAV stumbles over goes no further."""

import re
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from avsync_cli.container import main_video
from avsync_cli.copies import read_contents
from avsync_cli.decoder import (
    PictureClock,
    decode_packets,
    open_container,
    read_packets,
    seek_key,
    timed_packets,
)
from avsync_cli.fix import FixOptions, fix_file

PICTURES = 200  # more than are read when a file is opened
ROOT = Path(__file__).parents[1]


def write_flv(path, *, pictures=0, sounds=0):
    """An FLV of 25 pictures a second, or of packets of silence."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream("flv1", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            for number in range(pictures):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 96, 3), np.uint8), "rgb24")
                frame.pts = number
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if sounds:
            audio = container.add_stream("libmp3lame", rate=44_100, layout="mono")
            for number in range(sounds):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16p", "mono")
                frame.sample_rate, frame.pts = 44_100, 1152 * number
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


@pytest.fixture
def late_sound(tmp_path):
    """A file whose sound begins behind all that is read when it is opened: its header knows nothing of it."""
    head = write_flv(tmp_path / "pictures.flv", pictures=PICTURES).read_bytes()
    header = 13  # bytes, before the first packet
    tail = write_flv(tmp_path / "sound.flv", sounds=40).read_bytes()[header:]
    path = tmp_path / "late.flv"
    path.write_bytes(head + tail)
    return path


def test_a_stream_that_begins_within_the_file_is_passed_over(late_sound):
    """Whether PyAV stumbles depends on what its memory held before, so it is asked more than once."""
    for _ in range(10):
        with open_container(late_sound) as container:
            sizes = [packet.size for packet in read_packets(container)]
        assert len(sizes) == PICTURES + 1
        assert all(sizes[:-1])
        assert sizes[-1] == 0  # the one that asks the decoder for the rest comes once
        assert [track.packets for track in read_contents(late_sound).tracks] == [PICTURES]


def test_a_copy_of_such_a_file_is_no_bug(late_sound, tmp_path):
    refused = fix_file(late_sound, None, FixOptions(out=tmp_path / "0.flv", by_ms=80))
    assert (refused.status, (tmp_path / "0.flv").exists()) == ("refused", False)
    for number in range(5):
        out = tmp_path / f"{number}.flv"
        fix_file(late_sound, None, FixOptions(out=out, by_ms=80, force=True))
        assert [track.packets for track in read_contents(out).tracks] == [PICTURES]


def test_where_no_file_reaches_cannot_be_sought(tmp_path):
    path = write_flv(tmp_path / "pictures.flv", pictures=PICTURES)
    with open_container(path) as container:
        assert seek_key(container, main_video(container), Fraction(2))
        assert not seek_key(container, main_video(container), Fraction(10) ** 30)


def test_a_second_pass_keeps_the_clock_of_the_first(tmp_path):
    path = write_flv(tmp_path / "pictures.flv", pictures=PICTURES)
    with open_container(path) as container:
        video = main_video(container)
        clock = PictureClock(container, video)
        first = [clock.time_picture(frame) for frame in decode_packets(timed_packets(container, video))]
        assert first == [Fraction(number, 25) for number in range(PICTURES)]
        assert seek_key(container, video, Fraction(0))
        frames = list(islice(decode_packets(timed_packets(container, video)), 3))
        assert [clock.time_picture(frame) for frame in frames] == [None] * 3  # no later than the last
        clock.begin_pass()
        assert [clock.time_picture(frame) for frame in frames] == first[:3]
        clock.begin_pass()
        early = [clock.time_picture(frame, earliest_s=clock.origin_s + first[1]) for frame in frames]
        assert early == [None, *first[1:3]]
        assert clock.decoded_pictures == PICTURES + 9


def test_nothing_else_reads_media():
    """Packets, and files that are opened otherwise than to be written; streams have a door of their own."""
    reads = re.compile(r"\.demux\(|\bav\.open\((?!.*\"w\")")
    sources = (ROOT / "avsync_cli").rglob("*.py")
    reading = {path.name for path in sources if reads.search(path.read_text("utf-8"))}
    assert reading == {"decoder.py", "source.py"}
