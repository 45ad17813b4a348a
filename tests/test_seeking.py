"""Reading in places, against the same file read from beginning to end: every picture carries its number."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from clips import barcode, click_track, find_clicks, read_barcode, write_clip

from avsync_cli.media import open_media
from avsync_cli.passages import spread_places
from avsync_cli.seeking import open_places, starts_anew
from avsync_cli.spec import PASSAGE_TICKS

SECONDS = 16
CLICKS_S = tuple(second + 0.13 + 0.05 * (second % 7) for second in range(SECONDS))
CONTAINERS = {
    "h264.mp4": ("libx264", "aac"),
    "h264.mov": ("libx264", "pcm_s16le"),
    "h264.mkv": ("libx264", "libopus"),
    "vp9.webm": ("libvpx-vp9", "libopus"),
    "mpeg4.avi": ("mpeg4", "libmp3lame"),
    "h264.ts": ("libx264", "aac"),
    "mpeg2.mpg": ("mpeg2video", "mp2"),
    "flv1.flv": ("flv1", "libmp3lame"),
}


def write_container(path: Path, *, start_s: int = 0) -> Path:
    """Numbered pictures with a keyframe a second and B-frames where there are any, and clicks."""
    video_codec, audio_codec = CONTAINERS[path.name]
    rate = 44_100 if path.suffix == ".flv" else 48_000
    start_s += path.suffix == ".ts"  # whose first sound would lie before 0, where none can
    late_s = Fraction(path.suffix == ".flv", 10)  # whose sound may not begin before its pictures
    stamps = [start_s + Fraction(k, 25) for k in range(SECONDS * 25)]
    return write_clip(
        path,
        stamps_s=stamps,
        sound=click_track(CLICKS_S, seconds=SECONDS, rate=rate),
        sound_start_s=start_s + late_s,
        rate=rate,
        video_codec=video_codec,
        audio_codec=audio_codec,
        keyframe_every=25,
        time_base=Fraction(1, 25),
    )


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_place_shows_and_sounds_as_in_the_whole(tmp_path, name):
    path = write_container(tmp_path / name)
    with open_media(path) as media:
        whole = {picture.tick: read_barcode(picture.rgb) for picture in media.pictures()}
        clicks = clicks_of(media.sound())
    assert len(clicks) == len(CLICKS_S)
    assert whole[SECONDS * 25 - 3] == SECONDS * 25 - 3
    with open_places(path, threads=1) as places:
        for tick in (260, 110, 333, 0):
            key_tick = places.approach(tick)
            assert key_tick is not None
            assert tick - 30 <= key_tick <= tick + 40
            first = max(key_tick, tick)
            shown = {
                picture.tick: read_barcode(picture.rgb) for picture in places.pictures(first, first + 20)
            }
            assert shown == {at: whole[at] for at in range(first, first + 20)}
            heard = clicks_of(places.sound(tick, tick + 50))
            inside = clicks[(clicks > tick / 25 + 0.01) & (clicks < tick / 25 + 1.99)]
            np.testing.assert_allclose(heard[-len(inside) :], inside, atol=0.002)
        assert places.decoded_pictures < 4 * 70


@pytest.mark.parametrize("name", ["h264.mkv", "h264.ts"])
def test_a_file_that_begins_at_hours_is_counted_from_its_first_picture(tmp_path, name):
    path = write_container(tmp_path / name, start_s=3 * 3600)
    with open_places(path, threads=1) as places:
        assert places.approach(200) in (200, 176, 175)
        assert [read_barcode(p.rgb) for p in places.pictures(200, 205)] == list(range(200, 205))
        heard = clicks_of(places.sound(200, 250))
    np.testing.assert_allclose(heard[-2:], [click for click in CLICKS_S if 8 < click < 10], atol=0.002)


def test_without_a_keyframe_at_hand_a_place_is_reached_from_the_last(tmp_path):
    path = write_clip(tmp_path / "one.mp4", seconds=8, keyframe_every=1000)
    with open_places(path, threads=1) as places:
        assert places.approach(150) == 0
        assert [read_barcode(p.rgb) for p in places.pictures(150, 155)] == list(range(150, 155))


def test_in_a_stream_without_an_index_the_last_keyframe_is_found(tmp_path):
    """A seek in MPEG-TS leads to the time and not to a keyframe; the next may come long after."""
    path = write_clip(tmp_path / "c.ts", seconds=SECONDS, keyframe_every=125, time_base=Fraction(1, 25))
    with open_places(path, threads=1) as places:
        for tick in (110, 230, 140, 333, 20):
            assert places.approach(tick) == tick // 125 * 125
            shown = [read_barcode(picture.rgb) for picture in places.pictures(tick, tick + 5)]
            assert shown == list(range(tick, tick + 5))


def test_a_file_whose_index_is_lost_leads_nowhere(tmp_path):
    """Raw H.264 has neither times nor an index."""
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        for number in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(barcode(number), format="rgb24")))
        container.mux(stream.encode(None))
    with open_places(path, threads=1) as places:
        assert places.sound(0, 25) is None
        found = places.approach(40)
        assert found is None or [read_barcode(p.rgb) for p in places.pictures(40, 42)] == [40, 41]


def test_places_are_spread_whatever_number_is_used():
    ticks = list(spread_places(1000, 91_000))
    assert len(ticks) == len(set(ticks)) == 32
    assert ticks[0] == 46_000
    for count in (4, 8, 16, 32):
        gaps = np.diff([1000, *sorted(ticks[:count]), 91_000])
        assert gaps.max() <= 2 * 90_000 / count
    few = sorted(spread_places(0, 5 * PASSAGE_TICKS))
    assert len(few) == 5
    assert min(np.diff(few)) >= PASSAGE_TICKS // 2


def clicks_of(sound) -> np.ndarray:
    return np.array(find_clicks(sound.samples, rate=16_000)) + sound.first_sample / 16_000


def read_bytes() -> int:
    """What this process has read from files so far, whether from a disk or from memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells how much a process reads from files")
    return psutil.Process().io_counters().read_chars


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_that_ended_is_not_searched_for_in_every_place(tmp_path, suffix):
    """10 s of sound under 200 s of pictures: the rest of the file is read once at most, and not each time."""
    stamps = [Fraction(k, 5) for k in range(1000)]
    apart = write_clip(
        tmp_path / f"apart{suffix}",
        stamps_s=stamps,
        sound=click_track((3.5,), seconds=10, rate=48_000),
        keyframe_every=10,
        time_base=Fraction(1, 25),
    )
    path = tmp_path / f"c{suffix}"
    with av.open(str(apart)) as source, av.open(str(path), "w") as mixed:
        streams = [mixed.add_stream_from_template(stream) for stream in source.streams]
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = streams[packet.stream_index]
            mixed.mux(packet)
    with open_places(path, threads=1) as places:
        before = read_bytes()
        for tick in (2500, 1300, 1500, 1700, 1900, 2100, 2300):
            assert places.sound(tick, tick + 50) is None
        assert read_bytes() - before < 2.5 * path.stat().st_size, "each place could read all that follows"
        np.testing.assert_allclose(clicks_of(places.sound(60, 110)), [3.5], atol=0.002)


def test_sound_behind_all_pictures_is_found(tmp_path):
    """Nothing was interleaved: a hundred seconds of pictures come first."""
    path = write_clip(
        tmp_path / "c.mkv",
        stamps_s=[Fraction(k, 5) for k in range(500)],
        sound=click_track((20.3, 60.7), seconds=100, rate=48_000),
        keyframe_every=10,
        time_base=Fraction(1, 25),
    )
    with open_places(path, threads=1) as places:
        np.testing.assert_allclose(clicks_of(places.sound(500, 550)), [20.3], atol=0.002)
        np.testing.assert_allclose(clicks_of(places.sound(1500, 1550)), [60.7], atol=0.002)


def test_a_length_that_is_not_declared_is_measured(tmp_path):
    path = tmp_path / "live.mkv"
    whole = write_container(tmp_path / "h264.mkv")
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"live": "1"}) as live:
        streams = [live.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                live.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration is None
    with open_places(path, threads=1) as places:
        assert places.measure_s() == pytest.approx(SECONDS - 0.04, abs=0.002)
        assert places.approach(260) is not None


def test_a_place_beyond_all_time_leads_nowhere(tmp_path):
    with open_places(write_container(tmp_path / "h264.mp4"), threads=1) as places:
        assert places.approach(10**22) is None
        assert places.sound(10**22, 10**22 + 50) is None


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_a_clock_that_starts_anew_is_found_without_decoding(tmp_path, suffix):
    make = {"video_codec": "mpeg2video", "audio_codec": "mp2", "time_base": Fraction(1, 25)}
    sound = click_track((1,), seconds=20, rate=48_000)
    path = write_clip(tmp_path / f"one.{suffix}", seconds=20, sound=sound, **make)
    assert not starts_anew(path)
    path.write_bytes(2 * path.read_bytes())
    assert starts_anew(path)


def test_a_clock_that_leaps_ahead_is_found_too(tmp_path):
    """The second of two recordings lies half an hour behind the first."""
    sound = click_track((1,), seconds=20, rate=48_000)
    path, late = (
        write_clip(
            tmp_path / f"{start_s}.ts",
            stamps_s=[start_s + Fraction(number, 25) for number in range(500)],
            sound=sound,
            sound_start_s=start_s,
        )
        for start_s in (Fraction(10), Fraction(1810))
    )
    assert not starts_anew(late)
    path.write_bytes(path.read_bytes() + late.read_bytes())
    assert starts_anew(path)
    with open_media(path) as media:
        assert sum(1 for _ in media.pictures()) == pytest.approx(1000, abs=5)
        assert media.starts_anew_s == pytest.approx(20, abs=0.2)
