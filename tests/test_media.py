"""The decode path against media whose every picture and click is known."""

import tracemalloc
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from clips import barcode, click_track, find_clicks, read_barcode, write_clip

from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.media import open_media, read_sound_file

CLICKS_S = (0.3, 0.7, 1.4)
RATES = [
    Fraction(12),
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60),
]


def decode(path: Path, **passage):
    with open_media(path) as media:
        pictures = list(media.pictures(**passage))
        return pictures, media.sound()


def clicks_of(sound) -> np.ndarray:
    """Times of the clicks from the grid's origin."""
    return np.array(find_clicks(sound.samples, rate=16_000)) + sound.first_sample / 16_000


@pytest.mark.parametrize("fps", RATES, ids=lambda fps: f"{float(fps):.2f}fps")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_tick_shows_the_nearest_picture(tmp_path, fps, suffix):
    path = write_clip(
        tmp_path / f"clip{suffix}", fps=fps, sound=click_track(CLICKS_S, seconds=2, rate=48_000)
    )
    pictures, sound = decode(path)
    assert [picture.tick for picture in pictures] == list(range(len(pictures)))
    assert len(pictures) == pytest.approx(50, abs=2)
    for picture in pictures:
        shown_s = read_barcode(picture.rgb) / fps
        # mkv rounds its stamps to 1 ms, so a tie may fall to either side
        late_s = shown_s - Fraction(picture.tick, 25)
        assert abs(late_s) <= 1 / (2 * fps) + Fraction(1, 1000)
        assert picture.late_ms == pytest.approx(float(1000 * late_s), abs=1)
    np.testing.assert_allclose(clicks_of(sound), CLICKS_S, atol=0.001)


def test_a_25_fps_file_is_passed_through_picture_by_picture(tmp_path):
    pictures, _ = decode(write_clip(tmp_path / "clip.mp4"))
    assert [read_barcode(picture.rgb) for picture in pictures] == list(range(50))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("late_s", [Fraction(1, 5), Fraction(137, 1000), Fraction(1, 25)])
def test_sound_that_starts_late_keeps_its_time(tmp_path, suffix, late_s):
    sound = click_track(CLICKS_S, seconds=1.6, rate=48_000)
    path = write_clip(tmp_path / f"late{suffix}", sound=sound, sound_start_s=late_s)
    _, heard = decode(path)
    np.testing.assert_allclose(clicks_of(heard), np.add(CLICKS_S, float(late_s)), atol=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pictures_that_start_late_are_the_origin(tmp_path, suffix):
    stamps = [Fraction(3, 10) + Fraction(k, 25) for k in range(50)]
    sound = click_track(CLICKS_S, seconds=2, rate=48_000)
    pictures, heard = decode(write_clip(tmp_path / f"late{suffix}", stamps_s=stamps, sound=sound))
    assert [read_barcode(picture.rgb) for picture in pictures[:3]] == [0, 1, 2]
    assert heard.first_sample < 0
    np.testing.assert_allclose(clicks_of(heard), np.subtract(CLICKS_S, 0.3), atol=0.001)


def test_variable_rate_and_a_long_gap(tmp_path):
    gaps = [Fraction(1, 30), Fraction(1, 12), Fraction(1, 60)] * 20
    stamps = np.cumsum([Fraction(0), *gaps]).tolist()
    stamps += [stamps[-1] + 3, stamps[-1] + 3 + Fraction(1, 25)]
    pictures, _ = decode(write_clip(tmp_path / "vfr.mp4", stamps_s=stamps))
    for picture in pictures:
        time_s = Fraction(picture.tick, 25)
        shown_s = stamps[read_barcode(picture.rgb)]
        assert abs(shown_s - time_s) <= min(abs(stamp - time_s) for stamp in stamps) + Fraction(1, 1000)
        assert abs(shown_s - time_s) <= Fraction(1, 2)
    ticks = [picture.tick for picture in pictures]
    assert max(np.diff(ticks)) > 40, "nothing is shown in the middle of a gap of three seconds"


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_layouts_and_rates_of_sound(tmp_path, layout, rate):
    path = write_clip(tmp_path / "c.mkv", sound=click_track(CLICKS_S, seconds=2, rate=rate), rate=rate,
                      layout=layout, audio_codec="flac")  # fmt: skip
    _, heard = decode(path)
    assert heard.samples.dtype == np.float32
    np.testing.assert_allclose(clicks_of(heard), CLICKS_S, atol=0.001)


def test_a_gap_in_the_sound_is_silence_not_a_shift(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 192, 128, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(barcode(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start_s in (0, 2):
            part = (click_track([0.5], seconds=1, rate=16_000) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start_s * 16_000, Fraction(1, 16_000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    _, heard = decode(path)
    np.testing.assert_allclose(clicks_of(heard), [0.5, 2.5], atol=0.001)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotation_is_applied(tmp_path, quarter_turns):
    """A phone writes the picture lying down and a matrix that stands it up."""

    def corner(_number: int) -> np.ndarray:
        rgb = np.zeros((128, 192, 3), np.uint8)
        rgb[:32, :32] = 255  # upper left, as stored
        return rgb

    path = write_clip(tmp_path / "phone.mp4", paint=corner, seconds=0.4)
    _turn_clockwise(path, quarter_turns)
    picture = decode(path)[0][0].rgb
    assert picture.shape == ((192, 128, 3) if quarter_turns % 2 else (128, 192, 3))
    expected = np.rot90(corner(0), -quarter_turns)
    assert np.abs(picture.astype(int) - expected).mean() < 12


def _turn_clockwise(path: Path, quarter_turns: int) -> None:
    """Set the matrix of the track header (ISO/IEC 14496-12, 8.3.2) to a clockwise turn for display."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns]
    matrix = (np.array([a, b, 0, -b, a, 0, 0, 0, 0x4000]) * 0x10000).astype(">i4")
    data[start + 40 : start + 76] = matrix.tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("width", "height", "shape", "scale"),
    [(2560, 1440, (720, 1280, 3), 0.5), (1920, 1080, (1080, 1920, 3), 1.0), (330, 190, (190, 330, 3), 1.0)],
)
def test_a_large_picture_is_reduced(tmp_path, width, height, shape, scale):
    def paint(k):
        return barcode(k, width=width, height=height)

    picture = decode(write_clip(tmp_path / "hd.mp4", paint=paint, seconds=0.2))[0][3]
    assert picture.rgb.shape == shape
    assert picture.scale == pytest.approx(scale)
    assert read_barcode(picture.rgb) == 3


def test_odd_sizes_and_unicode_paths(tmp_path):
    folder = tmp_path / "видео и звук 🎬"
    folder.mkdir()
    path = write_clip(
        folder / "naïve clip.mkv",
        paint=lambda k: barcode(k, width=193, height=131),
        seconds=0.4,
        video_codec="ffv1",
        pixel_format="yuv444p",
    )
    pictures = decode(path)[0]
    assert pictures[0].rgb.shape == (131, 193, 3)
    assert [read_barcode(picture.rgb) for picture in pictures] == list(range(10))


def test_a_passage_is_the_same_pictures_and_clock(tmp_path):
    path = write_clip(
        tmp_path / "c.mp4", seconds=4, sound=click_track((0.3, 1.4, 3.1), seconds=4, rate=48_000)
    )
    pictures, heard = decode(path, start_s=1.0, end_s=2.0)
    assert [picture.tick for picture in pictures] == list(range(25, 50))
    assert [read_barcode(picture.rgb) for picture in pictures] == list(range(25, 50))
    np.testing.assert_allclose(clicks_of(heard)[:2], (0.3, 1.4), atol=0.001)


@pytest.mark.parametrize(("start_s", "first"), [(0.28, 7), (0.04, 1), (0.041, 2), (0.0, 0)])
def test_a_passage_begins_at_its_decimal_time(tmp_path, start_s, first):
    path = write_clip(tmp_path / "c.mp4", seconds=0.6)
    assert decode(path, start_s=start_s)[0][0].tick == first


@pytest.mark.parametrize("passage", [(float("nan"), None), (-1.0, None), (2.0, 2.0), (2.0, 1.0)])
def test_a_passage_that_is_none_is_refused(tmp_path, passage):
    path = write_clip(tmp_path / "c.mp4", seconds=0.4)
    with pytest.raises(ConfigError, match="passage"):
        decode(path, start_s=passage[0], end_s=passage[1])


def test_sound_that_begins_before_the_clock_of_ts_is_not_a_day_late(tmp_path):
    sound = click_track(CLICKS_S, seconds=12, rate=48_000)
    path = write_clip(tmp_path / "a.ts", seconds=12, sound=sound)
    with av.open(str(path)) as file:
        stamps = [packet.pts for packet in file.demux(audio=0) if packet.pts is not None]
    assert max(stamps) > 1 << 32, "the encoder's lead-in"
    with open_media(path) as media:
        assert sum(1 for _ in media.pictures()) == 300
        assert media.starts_anew_s is None
        np.testing.assert_allclose(clicks_of(media.sound()), CLICKS_S, atol=0.001)


@pytest.mark.parametrize("suffix", ["ts", "mpg", "flv"])
def test_of_joined_recordings_each_is_on_its_own_clock(tmp_path, suffix):
    """Sound and pictures of each of three are as far apart as they were."""
    make = {
        "mpg": {"video_codec": "mpeg2video", "audio_codec": "mp2", "time_base": Fraction(1, 25)},
        "flv": {"time_base": Fraction(1, 1000)},
    }.get(suffix, {})
    sound = click_track((0.3, 0.7), seconds=2, rate=44_100)
    path = write_clip(tmp_path / f"one.{suffix}", sound=sound, rate=44_100, **make)
    whole = path.read_bytes()
    again = whole[13:] if suffix == "flv" else whole  # without the header of FLV
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(whole + again + again)
    pictures, heard = decode(joined)
    numbers = [read_barcode(picture.rgb) for picture in pictures]
    begins = [tick for tick, pair in enumerate(pairwise(numbers)) if pair == (0, 1)]  # 0 fills gaps, too
    assert begins == pytest.approx([0, 50, 100], abs=5)
    assert [picture.tick for picture in pictures] == list(range(len(pictures)))
    clicks_s = [begin / 25 + click_s for begin in begins for click_s in (0.3, 0.7)]
    np.testing.assert_allclose(clicks_of(heard), clicks_s, atol=0.01)


def test_a_single_picture(tmp_path):
    pictures, sound = decode(write_clip(tmp_path / "one.mp4", seconds=0.04))
    assert [picture.tick for picture in pictures] == [0]
    assert sound is None


def test_a_truncated_file_gives_what_it_has(tmp_path):
    path = write_clip(tmp_path / "cut.mkv", seconds=4, sound=click_track(CLICKS_S, seconds=4, rate=48_000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    pictures, _ = decode(path)
    assert 10 < len(pictures) < 100
    assert [read_barcode(picture.rgb) for picture in pictures[:10]] == list(range(10))


def test_no_video_has_a_reason(tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(MediaError, match="no video") as caught, open_media(path) as media:
        list(media.pictures())
    assert caught.value.reason == "no_video"


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100, bytes(5_000)])
def test_what_is_no_media_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"broken\.mp4") as caught, open_media(path) as media:
        list(media.pictures())
    assert caught.value.reason == "unreadable"
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(MediaError, match=str(path)), open_media(path):
            pass


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_separate_sound_file(tmp_path, suffix):
    path = tmp_path / f"voice{suffix}"
    stereo = np.stack([click_track(CLICKS_S, seconds=2, rate=44_100)] * 2, axis=1)
    soundfile.write(path, stereo, 44_100)
    sound = read_sound_file(path)
    assert sound.first_sample == 0
    np.testing.assert_allclose(clicks_of(sound), CLICKS_S, atol=0.001)


def test_of_a_separate_sound_file_only_its_mono_sound_is_kept(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros((60 * 44_100, 2), np.float32), 44_100)
    tracemalloc.start()
    try:
        sound = read_sound_file(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sound.samples) == pytest.approx(60 * 16_000, abs=16)
    assert most < 3 * sound.samples.nbytes, "the file as decoded has 5.5 times as much"


def test_a_separate_sound_file_that_libsndfile_does_not_know(tmp_path):
    path = write_clip(tmp_path / "voice.m4a.mp4", sound=click_track(CLICKS_S, seconds=2, rate=48_000))
    np.testing.assert_allclose(clicks_of(read_sound_file(path)), CLICKS_S, atol=0.001)


def test_a_separate_sound_file_that_is_none(tmp_path):
    path = tmp_path / "voice.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(MediaError, match=r"voice\.wav"):
        read_sound_file(path)
