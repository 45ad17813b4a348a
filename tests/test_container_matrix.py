"""Sound and picture of many makes of file against the truth known by construction: pictures that carry their
number, and clicks at whole seconds. `pytest -m containers`; ffmpeg makes what PyAV cannot.
"""

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import pytest
from boxes import edit_boxes, find_box
from clips import barcode, click_track, find_clicks, read_barcode, write_clip

from avsync_cli.media import open_media
from avsync_cli.seeking import open_places
from avsync_cli.spec import SAMPLE_RATE_HZ, VIDEO_FPS

FFMPEG = shutil.which("ffmpeg")
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(FFMPEG is None, reason="needs ffmpeg on the path, which makes the files"),
]
BAR_MS = 10.0
SECONDS = 6
FILM, NTSC_FIELDS = Fraction(24_000, 1001), Fraction(60_000, 1001)

X264 = "-c:v libx264 -preset ultrafast -bf 2 -g 25"
MPEG2 = "-c:v mpeg2video -bf 2 -b:v 4M"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
INTERLACED = "-flags +ildct+ilme -b:v 8M"
# Suffix, how the file is made, and by how many ms its sound is late in it: what an encoder puts in front of
# its sound stays there where the container cannot say so.
MAKES = [
    ("mp4", f"{X264} -c:a aac", 0.0),
    ("mp4", "-c:v libx264 -preset ultrafast -bf 0 -c:a aac", 0.0),
    ("mp4", f"{X264} -c:a aac -movflags frag_keyframe+empty_moov", 0.0),
    ("mp4", f"{X264} -c:a aac -movflags negative_cts_offsets", 0.0),
    ("mp4", "-c:v libx265 -preset ultrafast -c:a ac3", 0.0),
    ("mp4", "-c:v mpeg4 -bf 2 -c:a libmp3lame", 0.0),
    ("mp4", f"{VP9} -c:a libopus", 0.0),
    ("mov", f"{X264} -c:a pcm_s16le", 0.0),
    ("mov", "-c:v prores_ks -c:a pcm_s24le", 0.0),
    ("mov", "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16be", 0.0),
    ("mov", "-c:v qtrle -c:a adpcm_ima_qt", 0.0),
    ("mov", "-c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p -s 256x120 -c:a pcm_s16le", 0.0),
    ("mkv", f"{X264} -c:a aac", 0.0),
    ("mkv", f"{X264} -c:a flac", 0.0),
    ("mkv", f"{X264} -c:a libopus", 0.0),
    ("mkv", f"{X264} -c:a libvorbis", 0.0),
    ("mkv", f"{X264} -c:a libmp3lame", 0.0),
    ("mkv", f"{X264} -c:a eac3", 0.0),
    ("mkv", f"{X264} -c:a dca -strict -2", 10.7),
    ("mkv", "-c:v libx265 -preset ultrafast -c:a pcm_s16le", 0.0),
    ("mkv", "-c:v ffv1 -c:a pcm_s16le -ac 8", 0.0),
    ("mkv", f"{MPEG2} -c:a mp2", 0.0),
    ("webm", "-c:v libvpx -deadline realtime -c:a libvorbis", 0.0),
    ("webm", f"{VP9} -c:a libopus", 0.0),
    ("ts", f"{X264} -c:a aac", 0.0),
    ("ts", f"{X264} -c:a ac3", 0.0),
    ("ts", "-c:v libx265 -preset ultrafast -c:a aac", 0.0),
    ("ts", f"{MPEG2} -c:a mp2", 0.0),
    ("m2ts", f"{X264} -c:a ac3", 0.0),
    ("mpg", f"{MPEG2} -c:a mp2", 0.0),
    ("mpg", "-c:v mpeg1video -bf 2 -c:a mp2", 0.0),
    ("vob", f"{MPEG2} -c:a ac3", 0.0),
    ("flv", f"{X264} -c:a aac", 0.0),
    ("flv", "-c:v flv1 -c:a libmp3lame -ar 44100", 0.0),
    ("f4v", f"{X264} -c:a aac", 0.0),
    ("avi", f"{X264} -c:a pcm_s16le", 0.0),
    ("avi", f"{X264} -c:a aac", 21.3),
    ("avi", f"{X264} -c:a libmp3lame", 23.0),
    ("avi", f"{X264} -c:a ac3", 5.3),
    ("avi", "-c:v mpeg4 -bf 2 -c:a pcm_s16le", 0.0),
    ("avi", "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le", 0.0),
    ("avi", "-c:v huffyuv -pix_fmt yuv422p -c:a pcm_s16le", 0.0),
    ("wmv", "-c:v wmv2 -c:a wmav2", 0.0),
    ("asf", "-c:v msmpeg4 -c:a wmav1", 0.0),
    ("ogv", "-c:v libtheora -c:a libvorbis", 0.0),
    ("ogv", "-c:v libtheora -c:a libopus", 0.0),
    ("ogv", "-c:v libtheora -c:a flac", 0.0),
    ("mxf", "-c:v mpeg2video -pix_fmt yuv422p -bf 2 -c:a pcm_s16le", 0.0),
    ("mxf", "-c:v mpeg2video -pix_fmt yuv422p -bf 0 -c:a pcm_s16le", 0.0),
    ("mxf", f"{X264} -c:a pcm_s16le -ac 1", 0.0),
    ("mxf", "-c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p -s 256x120 -c:a pcm_s16le -ac 1", 0.0),
    ("nut", "-c:v ffv1 -c:a pcm_s16le", 0.0),
    ("3gp", "-c:v h263 -s 176x144 -c:a aac", 0.0),
    ("dv", "-c:v dvvideo -s 720x576 -pix_fmt yuv420p -c:a pcm_s16le", 0.0),
    ("gxf", f"{MPEG2} -s 720x576 -c:a pcm_s16le -ac 1", 0.0),
    ("rm", "-c:v rv20 -c:a ac3", 5.3),
]
# Container, codec, field rate, size, first field.
FIELDS = [
    ("ts", f"{MPEG2} {INTERLACED} -c:a mp2", NTSC_FIELDS, (720, 480), "tff"),
    ("mpg", f"{MPEG2} {INTERLACED} -c:a mp2", NTSC_FIELDS, (720, 480), "bff"),
    ("mpg", f"{MPEG2} {INTERLACED} -c:a mp2", Fraction(50), (720, 576), "bff"),
    (
        "dv",
        "-c:v dvvideo -flags +ildct -pix_fmt yuv420p -c:a pcm_s16le -ac 2",
        Fraction(50),
        (720, 576),
        "bff",
    ),
    ("mp4", "-c:v libx264 -preset ultrafast -x264-params bff=1 -c:a aac", Fraction(50), (720, 576), "bff"),
    ("mp4", "-c:v libx264 -preset ultrafast -x264-params tff=1 -c:a aac", NTSC_FIELDS, (720, 480), "tff"),
    (
        *("mxf", "-c:v dnxhd -flags +ildct+ilme -b:v 120M -pix_fmt yuv422p -c:a pcm_s16le"),
        *(Fraction(50), (1920, 1080), "tff"),
    ),
]


def make(source: Path, target: Path, options: str, *before: str) -> Path:
    command = [
        str(FFMPEG),
        "-v",
        "error",
        "-nostdin",
        *before,
        "-i",
        str(source),
        *options.split(),
        str(target),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "nknown encoder" in ran.stderr:
        pytest.skip(f"this ffmpeg cannot encode it: {ran.stderr.splitlines()[0]}")
    assert ran.returncode == 0, ran.stderr
    return target


def write_master(
    path: Path, *, fps: Fraction = Fraction(25), size=(192, 128), seconds: int = SECONDS
) -> Path:
    """Numbered pictures and a click at each whole second, without loss."""
    return write_clip(
        path,
        fps=fps,
        seconds=seconds,
        paint=lambda number: barcode(number, width=size[0], height=size[1]),
        sound=click_track(range(1, seconds), seconds=seconds, rate=48_000),
        layout="stereo",
        video_codec="ffv1",
        audio_codec="pcm_f32le",
        time_base=Fraction(1, 1000) if fps == VIDEO_FPS else 1 / fps,
    )


@pytest.fixture(scope="module")
def masters(tmp_path_factory):
    """Masters by rate and size, each made once."""
    folder, made = tmp_path_factory.mktemp("masters"), {}

    def get(fps: Fraction = Fraction(25), size=(192, 128)) -> Path:
        if (fps, size) not in made:
            made[fps, size] = write_master(folder / f"{len(made)}.mkv", fps=fps, size=size)
        return made[fps, size]

    return get


def read_times(path: Path, *, row: int = 0) -> tuple[list[tuple[float, int]], list[float]]:
    """When pictures are shown, and their numbers; when clicks are heard. `row` is the field to read."""
    with open_media(path) as media:
        shown = [
            (picture.tick / VIDEO_FPS, read_barcode(picture.rgb[row::2])) for picture in media.pictures()
        ]
        sound = media.sound()
    clicks = find_clicks(sound.samples, rate=SAMPLE_RATE_HZ)
    return shown, [sound.first_sample / SAMPLE_RATE_HZ + click for click in clicks]


def measure_late_ms(
    shown: list[tuple[float, int]], clicks: list[float], *, fps: Fraction = Fraction(25), cut_s: float = 0.0
) -> float:
    """By how much sound is later than the pictures, where picture n was taken n / fps after the start and all
    begins at `cut_s`. The mean, as the grid of 25 a second shows the nearest of other rates.
    """
    assert len(shown) >= 25
    assert clicks
    late_pictures = np.mean([time_s + cut_s - number / float(fps) for time_s, number in shown])
    late_sound = np.mean([click + cut_s - round(click + cut_s) for click in clicks])
    return 1000 * float(late_sound - late_pictures)


@pytest.mark.parametrize(("suffix", "options", "late_ms"), MAKES)
def test_a_make_is_in_sync(tmp_path, masters, suffix, options, late_ms):
    path = make(masters(), tmp_path / f"made.{suffix}", options)
    shown, clicks = read_times(path)
    assert len(shown) >= SECONDS * VIDEO_FPS - 1
    assert len(clicks) == SECONDS - 1
    assert measure_late_ms(shown, clicks) == pytest.approx(late_ms, abs=BAR_MS if late_ms == 0 else 2)
    assert max(time_s - number / VIDEO_FPS for time_s, number in shown) < 0.001, "a picture out of its order"


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("fps", [Fraction(25), FILM, Fraction(30_000, 1001), Fraction(50)])
def test_a_cut_within_a_group_of_pictures_moves_nothing(tmp_path, masters, suffix, fps):
    whole = make(masters(fps), tmp_path / f"whole.{suffix}", f"{X264} -g 48 -c:a aac")
    for cut_s in (1.3, 2.51, 3.1337):
        path = make(whole, tmp_path / f"cut{cut_s}.{suffix}", "-c copy", "-ss", str(cut_s))
        shown, clicks = read_times(path)
        assert shown[0][1] >= cut_s * fps, "a picture from before the cut"
        assert measure_late_ms(shown, clicks, fps=fps, cut_s=cut_s) == pytest.approx(0, abs=3)


def test_a_place_of_a_cut_file_is_that_of_the_whole(tmp_path, masters):
    whole = make(masters(), tmp_path / "whole.mp4", f"{X264} -g 48 -c:a aac")
    path = make(whole, tmp_path / "cut.mp4", "-c copy", "-ss", "1.3")
    shown, clicks = read_times(path)
    by_tick = {round(time_s * VIDEO_FPS): number for time_s, number in shown}
    with open_places(path) as places:
        first = places.approach(60)
        found = [(picture.tick, read_barcode(picture.rgb)) for picture in places.pictures(first, 75)]
        sound = places.sound(30, 90)
    assert first <= 60
    assert [by_tick[tick] for tick, _ in found] == [number for _, number in found]
    heard = [click + sound.first_sample / SAMPLE_RATE_HZ for click in find_clicks(sound.samples, rate=16_000)]
    assert heard == pytest.approx([click for click in clicks if 1.2 < click < 3.6], abs=0.001)


@pytest.mark.parametrize("edits", [[(0, 2), (4, 1.5)], [(1.3, 2.03), (4.7, 1.2)], [(0.51, 1.5), (3.27, 2.1)]])
def test_two_parts_of_film_are_shown_where_their_edits_say(tmp_path, masters, edits):
    whole = make(masters(FILM), tmp_path / "whole.mp4", f"{X264} -g 48 -c:a aac")
    path = tmp_path / "edits.mp4"
    path.write_bytes(give_edits(whole.read_bytes(), edits))
    shown, clicks = read_times(path)
    begins_s = 0.0
    for media_s, seconds in edits:
        cut_s, ends_s = media_s - begins_s, begins_s + seconds
        inside = [(time_s, number) for time_s, number in shown if begins_s + 0.1 < time_s < ends_s - 0.1]
        heard = [click for click in clicks if begins_s < click < ends_s]
        assert measure_late_ms(inside, heard, fps=FILM, cut_s=cut_s) == pytest.approx(0, abs=5)
        begins_s = ends_s


def give_edits(data: bytes, edits: list[tuple[float, float]]) -> bytes:
    """An MP4 that shows parts, each so many seconds from a moment on, of each of its tracks."""

    def edit(kind: bytes, track: bytes) -> bytes:
        if kind != b"trak":
            return track
        (unit,) = struct.unpack_from(">I", find_box(track, b"mdia", b"mdhd"), 12)
        (begins,) = struct.unpack_from(">i", find_box(track, b"edts", b"elst"), 12)
        rows = (
            struct.pack(">IiI", round(seconds * 1000), begins + round(media_s * unit), 1 << 16)
            for media_s, seconds in edits
        )
        table = struct.pack(">2I", 0, len(edits)) + b"".join(rows)
        return edit_boxes(track, lambda kind, payload: table if kind == b"elst" else payload)

    return edit_boxes(data, edit)


@pytest.mark.parametrize(("suffix", "options", "fields", "size", "first"), FIELDS)
def test_interlaced_pictures_are_shown_with_their_first_field(
    tmp_path, masters, suffix, options, fields, size, first
):
    """The rows of the first field are as they were; those between are made of them."""
    woven = f"-vf interlace=scan={first}:lowpass=off,setfield={first} {options}"
    path = make(masters(fields, size), tmp_path / f"made.{suffix}", woven)
    shown, clicks = read_times(path, row=0 if first == "tff" else 1)
    assert measure_late_ms(shown, clicks, fps=fields) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("options", ["", "-flags +ildct+ilme"])
@pytest.mark.parametrize("suffix", ["ts", "mp4"])
def test_telecine_is_within_the_bar(tmp_path, masters, suffix, options):
    codec = f"{MPEG2} -c:a mp2" if suffix == "ts" else "-c:v libx264 -preset ultrafast -c:a aac"
    film = masters(FILM, (720, 480))
    path = make(film, tmp_path / f"made.{suffix}", f"-vf telecine=pattern=23 {codec} {options}")
    for row in (0, 1):  # of which some pictures have each from another moment
        shown, clicks = read_times(path, row=row)
        assert measure_late_ms(shown, clicks, fps=FILM) == pytest.approx(0, abs=BAR_MS)


@pytest.mark.parametrize("fps", [25, 30, 60])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_with_a_quarter_of_the_pictures_gone(tmp_path, suffix, fps):
    rng = Random(1)
    kept = [number for number in range(fps * SECONDS) if number == 0 or rng.random() > 0.25]
    path = write_clip(
        tmp_path / f"made.{suffix}",
        stamps_s=[Fraction(number, fps) for number in kept],
        fps=Fraction(fps),
        paint=lambda place: barcode(kept[place]),
        sound=click_track(range(1, SECONDS), seconds=SECONDS, rate=48_000),
    )
    shown, clicks = read_times(path)
    assert measure_late_ms(shown, clicks, fps=Fraction(fps)) == pytest.approx(0, abs=BAR_MS)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le"])
def test_surround_sound_in_mov(tmp_path, masters, codec):
    path = make(masters(), tmp_path / "made.mov", f"{X264} -c:a {codec} -ac 8")
    shown, clicks = read_times(path)
    assert measure_late_ms(shown, clicks) == pytest.approx(0, abs=1)
