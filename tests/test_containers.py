"""Every picture of a file at its own time, in the containers that make this hard."""

from pathlib import Path

import av
import numpy as np
import pytest
from clips import barcode, click_track, find_clicks, read_barcode

from avsync_cli.media import open_media
from avsync_cli.seeking import open_places
from avsync_cli.spec import SAMPLE_RATE_HZ

PICTURES = 100


def write_reordered(path: Path, codec: str, *, b_frames: int) -> Path:
    """Numbered pictures at 25 fps, some decoded in another order than shown, and a click a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height = 192, 128
        video.pix_fmt = "yuv420p"
        video.codec_context.gop_size = 25
        video.codec_context.max_b_frames = b_frames
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for number in range(PICTURES):
            frame = av.VideoFrame.from_ndarray(barcode(number), "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = click_track(range(1, 4), seconds=PICTURES / 25, rate=16_000)
        pcm = av.AudioFrame.from_ndarray((samples[None] * 30_000).astype(np.int16), "s16", "mono")
        pcm.sample_rate, pcm.pts = 16_000, 0
        container.mux(sound.encode(pcm))
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames"),
    [
        (".avi", "libx264", 0),
        (".avi", "libx264", 2),
        (".avi", "mpeg4", 0),
        (".avi", "mpeg4", 1),
        (".mkv", "libx264", 2),
        (".mp4", "libx264", 2),
    ],
)
def test_each_picture_is_shown_once_and_at_its_time(tmp_path, suffix, codec, b_frames):
    path = write_reordered(tmp_path / f"clip{suffix}", codec, b_frames=b_frames)
    with open_media(path) as media:
        shown = [(picture.tick, read_barcode(picture.rgb)) for picture in media.pictures()]
        sound = media.sound()
    assert shown == [(number, number) for number in range(PICTURES)]
    clicks = find_clicks(sound.samples, rate=SAMPLE_RATE_HZ)
    times_s = [sound.first_sample / SAMPLE_RATE_HZ + click for click in clicks]
    if suffix == ".avi":  # in which sound and decoding begin together, so that nothing tells of the delay
        assert times_s == pytest.approx([1, 2, 3], abs=0.001)


@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 2), ("mpeg4", 1)])
def test_a_place_in_avi_has_the_pictures_of_its_time(tmp_path, codec, b_frames):
    path = write_reordered(tmp_path / "clip.avi", codec, b_frames=b_frames)
    with open_places(path) as places:
        first = places.approach(60)
        shown = [(picture.tick, read_barcode(picture.rgb)) for picture in places.pictures(first, 75)]
    assert shown == [(tick, tick) for tick in range(first, 75)]
    assert 40 <= first <= 60
