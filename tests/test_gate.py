"""What a file may claim before anything is decoded: each limit is named, and none costs memory."""

import os
from fractions import Fraction

import pytest
from bombs import measure_check, write_pictures, write_slow_sound
from clips import write_clip
from hostile import claim_pictures

from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.faces import MAX_TILES, tile_rois
from avsync_cli.gate import LIMITS_VARIABLE, LimitError, MediaLimits, parse_limits, refuse_picture
from avsync_cli.media import open_media, read_sound_file


def read_all(path) -> int:
    with open_media(path) as media:
        return sum(1 for _ in media.pictures())


@pytest.mark.parametrize(
    ("size", "options", "limit"),
    [
        ((32_000, 16), {}, "picture_side"),
        ((8_192, 4_096), {}, "picture_pixels"),
        ((1_280, 16), {}, "picture_aspect"),
        ((16, 1_280), {"codec": "png"}, "picture_aspect"),
    ],
)
def test_pictures_beyond_a_limit_are_refused_by_its_name(tmp_path, size, options, limit):
    path = write_pictures(tmp_path / "bomb", *size, **options)
    with pytest.raises(MediaError, match=rf"bomb\.m..: pictures of .* the limit {limit} is"):
        read_all(path)


def test_a_picture_that_is_stretched_is_judged_as_it_is_shown():
    refuse_picture(64, 64, Fraction(16))
    for aspect in (Fraction(100), Fraction(1, 100)):
        with pytest.raises(LimitError, match="picture_aspect"):
            refuse_picture(64, 64, aspect)


def test_pictures_far_beyond_are_refused_without_looking(tmp_path):
    path = write_pictures(tmp_path / "huge.mkv", 15_000, 6_000)
    with pytest.raises(MediaError, match="beyond the limit picture_pixels"):
        read_all(path)


def test_a_limit_can_be_set_and_one_that_is_none_is_told(tmp_path, monkeypatch):
    path = write_pictures(tmp_path / "wide.mkv", 1_280, 16)
    monkeypatch.setenv(LIMITS_VARIABLE, "picture_aspect=80")
    assert read_all(path) == 6
    assert parse_limits("streams=3,sound_rate=48000") == MediaLimits(streams=3, sound_rate=48_000)
    for wrong in ("streams", "streams=0", "streams=-1", "colour=3", "streams=1e3"):
        with pytest.raises(ConfigError, match="NAME=NUMBER"):
            parse_limits(wrong)


@pytest.mark.parametrize(("rate_hz", "limit"), [(1, "least_sound_rate"), (2_000_000, "sound_rate")])
def test_sound_that_would_be_resampled_into_gigabytes_is_refused(tmp_path, rate_hz, limit):
    path = write_slow_sound(tmp_path / "slow.wav", rate_hz)
    with pytest.raises(MediaError, match=f"slow.wav: sound at {rate_hz} Hz: the limit {limit}"):
        read_sound_file(path)
    with pytest.raises(MediaError, match=limit), open_media(path) as media:
        media.sound_alone()


@pytest.mark.parametrize(
    ("size", "tiles"), [((1920, 1080), 15), ((1080, 1920), 15), ((1920, 120), True), ((640, 40), True)]
)
def test_there_are_never_more_tiles_than_allowed(size, tiles):
    found = tile_rois(*size)
    assert 0 < len(found) <= MAX_TILES
    assert tiles is True or len(found) == tiles
    left = min(roi.center_x - roi.size / 2 for roi in found)
    right = max(roi.center_x + roi.size / 2 for roi in found)
    assert (left, right) == pytest.approx((0, size[0]))


def test_a_picture_of_nothing_but_length_has_no_tiles():
    assert tile_rois(32_000, 16) == []


@pytest.mark.parametrize("name", ["10:30 talk.mp4", "talk: one.mp4", "data:x.mp4", "http:x.mp4", "a%03d.mp4"])
def test_a_name_with_a_colon_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip("plain.mp4", seconds=0.5)
    os.rename("plain.mp4", name)
    assert read_all(name) > 0


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {clip}\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    ],
)
def test_a_list_of_other_files_is_told_and_not_followed(tmp_path, text):
    clip = write_clip(tmp_path / "clip.ts", seconds=0.5)
    path = tmp_path / "list.mp4"
    path.write_text(text.format(clip=clip))
    with pytest.raises(MediaError, match=r"list\.mp4: a playlist: open its media"):
        read_all(path)


@pytest.mark.parametrize(
    "address", ["http://localhost/x.mp4", "tcp://localhost:1", "concat:a.ts|b.ts", "subfile,,x.mp4", "pipe:0"]
)
def test_an_address_is_never_handed_to_the_decoder(address):
    for read in (read_all, read_sound_file):
        with pytest.raises(MediaError, match="is an address"):
            read(address)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    for read in (read_all, read_sound_file):
        with pytest.raises(MediaError, match="is a pipe"):
            read(tmp_path / "fifo.mp4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "codec"),
    [
        ((1_920, 120), "ffv1"),
        ((4_000, 500), "ffv1"),
        pytest.param((5_600, 4_200), "png", marks=pytest.mark.repeats),
        pytest.param((15_800, 15_800), "png", marks=pytest.mark.repeats),
    ],
)
def test_memory_stays_small_whatever_the_picture(tmp_path, size, codec):
    code, held_mb, _, _ = measure_check(write_pictures(tmp_path / "bomb", *size, codec=codec))
    assert code in (3, 4)
    assert held_mb < 600


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [10_000_000, 24_000_000, 400_000_000])
def test_memory_stays_small_whatever_an_index_claims(tmp_path, heads, pictures):
    path = tmp_path / "swell.mp4"
    path.write_bytes(claim_pictures(heads[0].read_bytes(), pictures, ticks=1, in_a_row=True))
    code, held_mb, _, _ = measure_check(path)
    assert code == (3 if pictures == 10_000_000 else 4)
    assert held_mb < 600
