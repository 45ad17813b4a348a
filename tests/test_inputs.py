"""What files come as: depths, fields, light, shapes, sounds and streams, each with what must be seen."""

import os
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from clips import barcode, click_track, find_clicks, read_barcode, write_clip

from avsync_cli import check_file
from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.media import open_media, read_sound_file

CLICKS_S = (0.3, 0.9, 1.4)


def decode(path: Path, *, audio_stream: int | None = None):
    with open_media(path, audio_stream=audio_stream) as media:
        return list(media.pictures()), media.sound()


def clicks_of(sound) -> np.ndarray:
    return np.array(find_clicks(sound.samples, rate=16_000)) + sound.first_sample / 16_000


def write_frames(
    path: Path,
    frames: list[av.VideoFrame],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    set_up: Callable[[av.VideoCodecContext], None] = lambda _codec: None,
) -> Path:
    """Frames at 25 fps, as they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixel_format
        set_up(stream.codec_context)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def ordinary_priority():
    """As root, SVT-AV1 takes the thread that opens it to real-time priority, and leaves it there: all that
    comes after it, in this process and its children, would starve the other tests."""
    yield
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.usefixtures("ordinary_priority")
@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv422p10le"),
        ("libx264", "yuv444p"),
        ("libx265", "yuv420p10le"),
        ("ffv1", "yuv411p"),
        ("mjpeg", "yuvj420p"),
        ("libsvtav1", "yuv420p10le"),
    ],
)
def test_depths_and_samplings_of_pictures(tmp_path, codec, pixel_format):
    path = write_clip(
        tmp_path / "c.mkv", seconds=0.6, video_codec=codec, pixel_format=pixel_format,
        time_base=Fraction(1, 25)
    )  # fmt: skip
    pictures, _ = decode(path)
    assert [read_barcode(picture.rgb) for picture in pictures] == list(range(15))
    np.testing.assert_allclose(pictures[5].rgb, barcode(5), atol=40)


def test_fields_of_two_moments_become_one_picture(tmp_path):
    """A bar that moves by 8 pixels a field is torn in every frame, and whole again afterwards."""

    def field(moment: int) -> np.ndarray:
        picture = np.full((128, 192, 3), 40, np.uint8)
        picture[:, 20 + 8 * moment : 36 + 8 * moment] = 220
        return picture

    frames = []
    for number in range(8):
        woven = field(2 * number)
        woven[1::2] = field(2 * number + 1)[1::2]
        frames.append(av.VideoFrame.from_ndarray(woven, format="rgb24"))

    def interlace(codec: av.VideoCodecContext) -> None:
        codec.options = {"flags": "+ildct+ilme", "qmin": "1", "qmax": "2", "field_order": "tt"}

    path = write_frames(tmp_path / "c.mpg", frames, codec="mpeg2video", set_up=interlace)
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    assert all(frame.interlaced_frame for frame in shown)
    pictures, _ = decode(path)
    assert [picture.tick for picture in pictures] == list(range(8))

    def tear(rgb: np.ndarray) -> float:
        rows = rgb[:, :, 1].astype(float)
        return float(np.abs(rows[2:-2:2] - (rows[1:-3:2] + rows[3:-1:2]) / 2).mean())

    for frame, picture in list(zip(shown, pictures, strict=True))[2:6]:
        assert tear(picture.rgb) < 0.35 * tear(frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize(("transfer", "code_of_white"), [(16, 0.58), (18, 0.75)])
def test_hdr_white_is_white_and_grey_is_not_washed_out(tmp_path, transfer, code_of_white):
    """Diffuse white of BT.2408, 203 cd/m2, is code 58 % of PQ and 75 % of HLG."""

    def frame(code: float) -> av.VideoFrame:
        made = av.VideoFrame(64, 64, "yuv420p10le")
        for plane, value in zip(made.planes, (64 + round(876 * code), 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        made.color_trc = transfer
        return made

    def mark(codec: av.VideoCodecContext) -> None:
        codec.color_trc = transfer

    frames = [frame(code_of_white), frame(code_of_white * 0.6), frame(0.0)]
    path = write_frames(tmp_path / "c.mkv", frames, codec="ffv1", pixel_format="yuv420p10le", set_up=mark)
    white, grey, black = (int(np.median(picture.rgb)) for picture in decode(path)[0])
    assert white >= 245
    assert 70 < grey < 150
    assert black <= 2


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    """A DVD's 720 x 576 with pixels of 64:45 is 16:9."""

    def widen(codec: av.VideoCodecContext) -> None:
        codec.sample_aspect_ratio = Fraction(64, 45)

    frames = [
        av.VideoFrame.from_ndarray(barcode(number, width=720, height=576), format="rgb24")
        for number in range(4)
    ]
    path = write_frames(tmp_path / "c.mpg", frames, codec="mpeg2video", set_up=widen)
    pictures, _ = decode(path)
    assert pictures[0].rgb.shape == (576, 1024, 3)
    assert [read_barcode(picture.rgb) for picture in pictures] == [0, 1, 2, 3]


def test_the_centre_of_surround_sound_is_preferred(tmp_path):
    """Music on all sides, ten times as loud as the voice in the middle, does not drown it."""
    times = np.arange(2 * 48_000) / 48_000
    rng = np.random.default_rng(0)
    sides = 0.3 * rng.standard_normal(len(times))
    voice = click_track(CLICKS_S, seconds=2, rate=48_000)
    layout = av.AudioLayout("5.1")
    planes = np.stack([voice if channel.name == "FC" else sides for channel in layout.channels])
    path = write_clip(
        tmp_path / "c.mkv", sound=planes.astype(np.float32), layout="5.1", audio_codec="pcm_s16le"
    )
    samples = decode(path)[1].samples
    mixed_at = [round(click * 16_000) for click in CLICKS_S]
    peaks = [np.abs(samples[at - 8 : at + 9]).max() for at in mixed_at]
    assert min(peaks) > 2 * np.abs(samples).std()


@pytest.mark.parametrize("channels", [6, 8])
@pytest.mark.parametrize("separate", [False, True])
def test_surround_sound_without_names_is_taken_for_5_1_or_7_1(tmp_path, channels, separate):
    """In WAV the third of six or eight is the centre; noise is on all others, and loudest in the fourth."""
    rng = np.random.default_rng(0)
    planes = 0.15 * rng.standard_normal((channels, 2 * 16_000))
    planes[2] = click_track(CLICKS_S, seconds=2, rate=16_000)
    planes[3] *= 4
    path = tmp_path / "c.wav"
    with wave.open(str(path), "wb") as file:  # plain WAV says how many, not which
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((planes.T.clip(-1, 1) * 32_767).astype("<i2").tobytes())
    if separate:
        sound = read_sound_file(path)
    else:
        with open_media(path) as media:
            sound = media.sound_alone()
    peaks = [np.abs(sound.samples[round(at_s * 16_000) + np.arange(-8, 9)]).max() for at_s in CLICKS_S]
    assert min(peaks) > 4 * np.abs(sound.samples).std()


def test_surround_sound_with_an_empty_centre_is_heard_all_the_same(tmp_path):
    voice = click_track(CLICKS_S, seconds=2, rate=48_000)
    layout = av.AudioLayout("5.1")
    planes = np.stack([voice * (channel.name in ("FL", "FR")) for channel in layout.channels])
    path = write_clip(tmp_path / "c.mkv", sound=planes.astype(np.float32), layout="5.1", audio_codec="flac")
    np.testing.assert_allclose(clicks_of(decode(path)[1]), CLICKS_S, atol=0.001)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 96_000, 192_000])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8", "pcm_f32le"])
def test_rates_and_forms_of_samples(tmp_path, rate, codec):
    path = write_clip(
        tmp_path / "c.mkv", sound=click_track(CLICKS_S, seconds=2, rate=rate), rate=rate, audio_codec=codec
    )
    np.testing.assert_allclose(clicks_of(decode(path)[1]), CLICKS_S, atol=0.001)


def write_streams(path: Path, *, marked: int) -> Path:
    """Two moving pictures of different size, a cover, and three sounds of which one is the default.

    Matroska does not mark the cover as one.
    """
    sounds = [click_track([0.2 + 0.3 * number], seconds=1, rate=48_000) for number in range(3)]
    with av.open(str(path), "w") as container:
        videos = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, side in zip(videos, (96, 192), strict=True):
            stream.width, stream.height, stream.pix_fmt = side, 64, "yuv420p"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 640, "yuvj420p"
        audios = [container.add_stream("pcm_s16le", rate=48_000, layout="mono") for _ in sounds]
        for number, stream in enumerate(audios):
            stream.disposition = (
                av.stream.Disposition.default if number == marked else av.stream.Disposition(0)
            )
        still = av.VideoFrame.from_ndarray(np.full((640, 640, 3), 99, np.uint8), format="rgb24")
        still.pts, still.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(still))
        for stream, side in zip(videos, (96, 192), strict=True):
            for number in range(25):
                shown = barcode(number + side, width=side, height=64)
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        container.mux(cover.encode(None))
        for stream, sound in zip(audios, sounds, strict=True):
            frame = av.AudioFrame.from_ndarray(
                (sound * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_of_several_streams_the_largest_picture_and_the_default_sound_count(tmp_path):
    path = write_streams(tmp_path / "c.mkv", marked=1)
    pictures, sound = decode(path)
    assert [read_barcode(picture.rgb) - 192 for picture in pictures] == list(range(25))
    np.testing.assert_allclose(clicks_of(sound), [0.5], atol=0.001)
    for number in range(3):
        _, sound = decode(path, audio_stream=number)
        np.testing.assert_allclose(clicks_of(sound), [0.2 + 0.3 * number], atol=0.001)


def test_a_sound_that_is_not_there_is_refused(tmp_path, engine):
    path = write_streams(tmp_path / "c.mkv", marked=0)
    with pytest.raises(MediaError, match=r"c\.mkv: audio stream 3: the file has 3") as caught:
        check_file(path, engine=engine, audio_stream=3)
    assert caught.value.reason == "no_audio"
    with pytest.raises(ConfigError, match="give one of them"):
        check_file(path, engine=engine, audio_stream=1, audio=path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_pictures_without_end_between_two_are_not_invented(tmp_path, suffix):
    """Screen recordings stop for minutes: nothing is shown meanwhile, and the clock goes on."""
    stamps = [Fraction(k, 25) for k in range(25)] + [90 + Fraction(k, 25) for k in range(25)]
    path = write_clip(tmp_path / f"c{suffix}", stamps_s=stamps)
    pictures, _ = decode(path)
    ticks = [picture.tick for picture in pictures]
    assert ticks[:25] == list(range(25))
    assert ticks[-25:] == list(range(2250, 2275))
    assert len(ticks) <= 50 + 25


def test_a_cover_is_no_video(tmp_path):
    """MP4 marks it: a file of sound and cover alone has nothing to look at."""
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        still = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
        still.pts, still.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(still))
        container.mux(cover.encode(None))
        for first in range(0, 48_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, first, Fraction(1, 48_000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        decode(path)
