"""Parts of decoded pictures: the same pixels as those of the whole picture, whatever it is made of."""

import csv
import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clip
from numpy.typing import NDArray
from talking import TalkingHead, syllables

from avsync_cli.crops import crop_mouth
from avsync_cli.faces import FaceModels, Roi, roi_from_detection
from avsync_cli.grid import Picture, show_pictures
from avsync_cli.lips import KEPT_INDICES
from avsync_cli.media import open_media
from avsync_cli.pixels import FramePixels, can_be_cut, grey_part, part_of, thin_grey
from avsync_cli.tracks import FaceTrack, track_faces

FORMATS = (
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"),
    *("nv12", "yuv420p10le", "yuv422p10le"),
)
SIZES = ((320, 180), (322, 182), (1080, 606))
CORPUS = Path(os.environ.get("AVSYNC_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
BT601, BT709, LIMITED, FULL = 5, 1, 1, 2  # AVColorSpace, AVColorRange
PQ = 16  # transfer characteristics (ITU-T H.273)


def paint(name: str, width: int, height: int, *, seed: int = 0) -> av.VideoFrame:
    """Blobs of every brightness and colour, edges among them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    rgb[height // 3 : height // 2, width // 4 : width // 3] = rng.integers(0, 256, 3)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)


def whole_of(frame: av.VideoFrame, quarter_turns: int = 0) -> NDArray[np.uint8]:
    """As swscale converts the frame, asked in PyAV's own way."""
    rgb = frame.reformat(format="rgb24", interpolation="AREA").to_ndarray()
    return np.rot90(rgb, quarter_turns)


def boxes_within(shape: tuple[int, ...], count: int = 6) -> list[tuple[int, int, int, int]]:
    """Places of every parity, some at the edges and over them."""
    rng = np.random.default_rng(len(shape) + shape[0])
    height, width = shape[:2]
    corners = [(int(rng.integers(-20, width - 2)), int(rng.integers(-20, height - 2))) for _ in range(count)]
    boxes = [(x, y, x + int(rng.integers(1, 90)), y + int(rng.integers(1, 90))) for x, y in corners]
    return [*boxes, (0, 0, 1, 1), (width - 1, height - 1, width, height), (0, 0, width, height)]


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_part_is_that_part_of_the_whole(name, size, quarter_turns):
    for color_range, colorspace in ((LIMITED, BT709), (FULL, BT601), (LIMITED, BT601)):
        frame = paint(name, *size)
        frame.color_range, frame.colorspace = color_range, colorspace
        assert can_be_cut(frame)
        whole = whole_of(frame, quarter_turns)
        for box in boxes_within(whole.shape):
            pixels = FramePixels(frame, quarter_turns=quarter_turns)
            assert pixels.shape == whole.shape
            part = pixels.part(box)
            height, width = part.rgb.shape[:2]
            expected = whole[part.top : part.top + height, part.left : part.left + width]
            np.testing.assert_array_equal(part.rgb, expected)
            x0, y0, x1, y1 = box
            assert part.holds((max(0, x0), max(0, y0), min(x1, whole.shape[1]), min(y1, whole.shape[0])))


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_of_a_decoded_frame_is_that_part_of_the_whole(tmp_path, name):
    """H.264 says where in a square of pixels the colours lie, which painted frames do not."""
    path = write_clip(
        tmp_path / "c.mkv",
        seconds=0.2,
        paint=lambda number: paint("rgb24", 640, 360, seed=number).to_ndarray(),
        video_codec="libx264",
        pixel_format="yuv420p",
    )
    with av.open(str(path)) as container:
        decoded = next(container.decode(video=0))
    frame = decoded.reformat(format=name)  # which keeps what the decoder said
    whole = whole_of(frame)
    for box in boxes_within(whole.shape):
        part = FramePixels(frame).part(box)
        height, width = part.rgb.shape[:2]
        expected = whole[part.top : part.top + height, part.left : part.left + width]
        np.testing.assert_array_equal(part.rgb, expected)


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("name", FORMATS)
def test_every_so_many_pixels_show_what_the_whole_shows(name, quarter_turns):
    frame = paint(name, 322, 182)
    whole = cv2.cvtColor(np.ascontiguousarray(whole_of(frame, quarter_turns)), cv2.COLOR_RGB2GRAY)
    for apart in (1, 2, 3, 5):
        rgb = FramePixels(frame, quarter_turns=quarter_turns).every(apart)
        assert rgb.shape[:2] == whole[::apart, ::apart].shape
        thin, expected = (
            cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA).astype(int)
            for grey in (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.ascontiguousarray(whole[::apart, ::apart]))
        )
        # A pixel that another begins with, where it is turned, is up to `apart` beside it.
        assert np.abs(thin - expected).mean() < 3


def test_a_small_part_costs_no_conversion_of_the_whole():
    frame = paint("yuv420p", 1280, 720)
    part = FramePixels(frame).part((600, 300, 700, 400))
    assert part.rgb.size < whole_of(frame).size / 50


def test_a_part_within_another_is_not_converted_again():
    pixels = FramePixels(paint("yuv420p", 320, 180))
    outer = pixels.part((30, 30, 130, 130))
    assert pixels.part((40, 50, 100, 110)) is outer
    assert pixels.part((200, 50, 220, 110)) is not outer


@pytest.mark.parametrize("name", ["rgb24", "pal8", "yuv410p", "gray16le", "yuyv422"])
def test_other_formats_are_not_cut(name):
    frame = av.VideoFrame(320, 180, name)
    assert not can_be_cut(frame)


@pytest.mark.parametrize(("width", "height"), [(321, 180), (320, 181), (321, 181)])
def test_pictures_of_odd_sides_are_not_cut(width, height):
    """swscale converts them in a way that depends on where a row lies."""
    assert not can_be_cut(paint("yuv420p", width, height))


@pytest.mark.parametrize("size", [(640, 360), (641, 361), (2560, 1440)])
def test_pictures_of_the_grid_are_those_of_the_frames(size):
    """Small ones are cut where they are looked at; what is scaled or odd is converted as a whole."""
    frame = paint("yuv420p", *size)
    (picture,) = show_pictures(iter([(Fraction(0), frame)]), None, first_tick=0, stop_tick=1)
    width, height = (1280, 720) if size[0] > 1920 else size
    expected = frame.reformat(format="rgb24", width=width, height=height, interpolation="AREA").to_ndarray()
    assert isinstance(picture.pixels, FramePixels) is (size == (640, 360))
    np.testing.assert_array_equal(picture.rgb, expected)


def test_a_part_of_a_picture_in_hdr_has_its_curve():
    frame = paint("yuv420p", 320, 180)
    plain = FramePixels(frame).part((50, 50, 90, 90))
    frame.color_trc = PQ
    (picture,) = show_pictures(iter([(Fraction(0), frame)]), None, first_tick=0, stop_tick=1)
    part = part_of(picture.pixels, (50, 50, 90, 90))
    assert not np.array_equal(part.rgb, plain.rgb)
    whole = picture.rgb
    height, width = part.rgb.shape[:2]
    np.testing.assert_array_equal(
        part.rgb, whole[part.top : part.top + height, part.left : part.left + width]
    )


def test_grey_of_a_box_is_that_of_the_whole_and_outside_is_one_pixel():
    frame = paint("yuv420p", 320, 180)
    whole = cv2.cvtColor(whole_of(frame), cv2.COLOR_RGB2GRAY)
    for pixels in (FramePixels(frame), whole_of(frame)):
        grey, corner = grey_part(pixels, (301, 33, 350, 77))
        assert corner == (301, 33)
        np.testing.assert_array_equal(grey, whole[33:77, 301:320])
        grey, corner = grey_part(pixels, (-90, 200, -50, 240))
        assert corner == (0, 179)
        np.testing.assert_array_equal(grey, whole[179:, :1])


def test_a_thin_grey_picture_has_the_rows_that_are_asked_for():
    frame = paint("yuv420p", 1080, 606)
    for pixels in (FramePixels(frame), whole_of(frame)):
        assert thin_grey(pixels, least_rows=180).shape == (202, 360)
        assert thin_grey(pixels, least_rows=1000).shape == (606, 1080)


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels()


def test_points_and_mouths_are_the_same_from_parts(models):
    """Also where the square reaches over the edge of the picture."""
    head = TalkingHead(syllables(1.0), fps=Fraction(25), side=256)
    rgb = np.full((360, 640, 3), 90, np.uint8)
    rgb[40:296, 200:456] = head(0)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    whole = whole_of(frame)
    roi = roi_from_detection(models.detect(whole)[0])
    beside = Roi(620.0, 350.0, 90.0, 0.3)
    points, presence = models.mesh(FramePixels(frame), [roi, beside])
    expected, expected_presence = models.mesh(whole, [roi, beside])
    np.testing.assert_array_equal(points, expected)
    np.testing.assert_array_equal(presence, expected_presence)
    for factor in (1.0, 0.3):  # a large face, of which the crop is an average, and a small one
        kept = expected[0][KEPT_INDICES] * factor
        crops = [crop_mouth(pixels, kept).astype(int) for pixels in (FramePixels(frame), whole)]
        assert np.abs(crops[0] - crops[1]).max() <= 1


def as_arrays(tracks: list[FaceTrack]) -> list[tuple[int, int, int]]:
    return [(track.face, track.first_tick, len(track.crops)) for track in tracks]


def compare_tracks(models: FaceModels, path: Path, *, end_s: float | None = None) -> tuple[int, float]:
    """The largest differences of crops and lips from parts of pictures and from whole ones."""
    cuts: tuple[list[int], list[int]] = ([], [])
    with open_media(path) as media:
        parts = list(track_faces(media.pictures(end_s=end_s), models, note_cut=cuts[0].append))
    with open_media(path) as media:
        pictures = media.pictures(end_s=end_s)
        whole = (Picture(each.tick, each.rgb, each.scale, each.late_ms) for each in pictures)
        wholes = list(track_faces(whole, models, note_cut=cuts[1].append))
    assert cuts[0] == cuts[1]
    assert as_arrays(parts) == as_arrays(wholes)
    pairs = list(zip(parts, wholes, strict=True))
    crops = max((np.abs(one.crops.astype(int) - two.crops).max() for one, two in pairs), default=0)
    return int(crops), max((float(np.abs(one.lips - two.lips).max()) for one, two in pairs), default=0.0)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_faces_are_followed_alike_in_parts_and_in_whole_pictures(tmp_path, models, pixel_format):
    """A head that talks and wanders, and another shot after it."""
    head = TalkingHead(syllables(3.0), fps=Fraction(25), side=200)

    def shot(number: int) -> np.ndarray:
        rgb = np.full((360, 640, 3), 60 if number < 30 else 190, np.uint8)
        left = 60 + 3 * number if number < 30 else 400
        rgb[80:280, left : left + 200] = head(number)
        return rgb

    path = write_clip(
        tmp_path / "c.mkv", seconds=2.4, paint=shot, video_codec="ffv1", pixel_format=pixel_format
    )
    crops, lips = compare_tracks(models, path)
    assert crops <= 1
    assert lips < 1e-4


@pytest.mark.repeats
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}; set AVSYNC_CORPUS")
def test_faces_of_real_footage_are_followed_alike(models):
    """50 clips of all sizes and makes: the same points, and crops that one pixel in thousands differs in."""
    with (CORPUS / "manifest.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if float(row["seconds"]) >= 2]
    for row in sorted(rows, key=lambda row: int(row["height"]))[:: len(rows) // 50 + 1]:
        crops, lips = compare_tracks(models, CORPUS / row["file"], end_s=2.0)
        assert crops <= 1, row["file"]
        assert lips == 0.0, row["file"]
