"""A decoded picture of which only what is asked for becomes RGB: most of it is never looked at.

A part has the same pixels as that part of the whole picture. So only formats are taken in parts whose samples
lie in planes, and that are not scaled.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
Box: TypeAlias = tuple[int, int, int, int]  # x0, y0, x1, y1: pixels, the last two excluded

_ALIGN = 16  # to whole multiples of which parts are widened: swscale's fast paths round as in the whole
_MARGIN = 16  # around parts of formats whose colours swscale interpolates between rows and columns


@dataclass(frozen=True)
class _Plane:
    """By how many bits its columns and rows are fewer than those of the picture, and its bytes a column."""

    narrower: int
    lower: int
    size: int = 1

    def first_row(self, pixels: int) -> int:
        return pixels >> self.lower

    def first_byte(self, pixels: int) -> int:
        return (pixels >> self.narrower) * self.size


def _planes(narrower: int, lower: int, size: int = 1) -> tuple[_Plane, ...]:
    """Those of luma and of two colours."""
    return (_Plane(0, 0, size), *(_Plane(narrower, lower, size),) * 2)


@dataclass(frozen=True)
class _Layout:
    """The planes of a format, and what its parts need around them."""

    planes: tuple[_Plane, ...]
    margin: int = 0


_LAYOUTS = MappingProxyType(
    {
        "yuv420p": _Layout(_planes(1, 1)),
        "yuvj420p": _Layout(_planes(1, 1)),
        "yuv422p": _Layout(_planes(1, 0)),
        "yuvj422p": _Layout(_planes(1, 0)),
        "yuv444p": _Layout(_planes(0, 0)),
        "yuvj444p": _Layout(_planes(0, 0)),
        "nv12": _Layout((_Plane(0, 0), _Plane(1, 1, 2)), _MARGIN),
        "yuv420p10le": _Layout(_planes(1, 1, 2), _MARGIN),
        "yuv422p10le": _Layout(_planes(1, 0, 2), _MARGIN),
    }
)


@dataclass(frozen=True)
class Part:
    """Pixels [h, w, 3] of a picture, the first of which is `left`, `top` of the picture."""

    rgb: Pixels
    left: int
    top: int

    def holds(self, box: Box) -> bool:
        height, width = self.rgb.shape[:2]
        x0, y0, x1, y1 = box
        return self.left <= x0 and self.top <= y0 and x1 <= self.left + width and y1 <= self.top + height


class FramePixels:
    """The pixels of a decoded frame, which is kept.

    They are turned by quarters, against the clock, and what is bright is changed by a curve [256], if any.
    """

    def __init__(self, frame: av.VideoFrame, *, quarter_turns: int = 0, curve: Pixels | None = None) -> None:
        self._frame, self._layout = frame, _LAYOUTS[frame.format.name]
        self._turns = quarter_turns % 4
        self._curve = curve
        self._parts: list[Part] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and 3, as of the array that `whole` gives."""
        height, width = self._frame.height, self._frame.width
        return (width, height, 3) if self._turns % 2 else (height, width, 3)

    def whole(self) -> Pixels:
        height, width = self.shape[:2]
        return self.part((0, 0, width, height)).rgb

    def part(self, box: Box) -> Part:
        """A part that has at least this box of the picture. What is converted is kept."""
        for part in self._parts:
            if part.holds(box):
                return part
        self._parts.append(self._convert(self._to_frame(box)))
        return self._parts[-1]

    def every(self, apart: int) -> Pixels:
        """About every `apart`-th row and column [h, w, 3]; colours lie to some pixels beside their places."""
        frame = self._frame
        planes = [_samples_of(frame, number)[::apart, ::apart] for number in range(len(frame.planes))]
        small = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], frame.format.name)
        for number, chosen in enumerate(planes):
            _samples_of(small, number)[:] = chosen
        return self._finished(_as_rgb(_described_as(frame, small)))

    def _to_frame(self, box: Box) -> Box:
        """The box in the frame as it is stored, widened to what can be cut from its planes."""
        x0, y0, x1, y1 = box
        width, height = self._frame.width, self._frame.height
        if self._turns == 1:
            x0, y0, x1, y1 = width - y1, x0, width - y0, x1
        elif self._turns == 2:
            x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
        elif self._turns == 3:
            x0, y0, x1, y1 = y0, height - x1, y1, height - x0
        x0, y0 = (min(max(0, low), side - 1) // _ALIGN * _ALIGN for low, side in ((x0, width), (y0, height)))
        x1, y1 = (-(-max(high, low + 1) // _ALIGN) * _ALIGN for high, low in ((x1, x0), (y1, y0)))
        return x0, y0, min(x1, width), min(y1, height)

    def _convert(self, box: Box) -> Part:
        """The part of a box in the frame as it is stored."""
        width, height = self._frame.width, self._frame.height
        x0, y0, x1, y1 = box
        left, top = max(0, x0 - self._layout.margin), max(0, y0 - self._layout.margin)
        right, bottom = min(width, x1 + self._layout.margin), min(height, y1 + self._layout.margin)
        cut = self._frame
        if (right - left, bottom - top) != (width, height):
            cut = _cut_frame(self._frame, (left, top, right, bottom))
        rgb = _as_rgb(cut)[y0 - top : y1 - top, x0 - left : x1 - left]
        corners = ((x0, y0), (y0, width - x1), (width - x1, height - y1), (height - y1, x0))
        return Part(self._finished(rgb), *corners[self._turns])

    def _finished(self, rgb: Pixels) -> Pixels:
        return finish_rgb(rgb, self._turns, self._curve)


def can_be_cut(frame: av.VideoFrame) -> bool:
    """Whether parts of a frame can be converted alone, to the same pixels as with the whole."""
    is_known = frame.format.name in _LAYOUTS and not frame.width % 2 and not frame.height % 2
    return is_known and all(plane.line_size > 0 for plane in frame.planes)


def part_of(pixels: Pixels | FramePixels, box: Box) -> Part:
    """A part of a picture that has at least a box of it: all of it where it is an array."""
    return pixels.part(box) if isinstance(pixels, FramePixels) else Part(pixels, 0, 0)


def grey_part(pixels: Pixels | FramePixels, box: Box) -> tuple[Pixels, tuple[int, int]]:
    """What lies in a box of a picture as grey [h, w], and where its first pixel lies (x, y).

    What is outside of the picture is left out, but for one pixel.
    """
    height, width = pixels.shape[:2]
    x0, y0 = (min(max(0, low), side - 1) for low, side in zip(box[:2], (width, height), strict=True))
    x1, y1 = max(x0 + 1, min(box[2], width)), max(y0 + 1, min(box[3], height))
    part = part_of(pixels, (x0, y0, x1, y1))
    rgb = part.rgb[y0 - part.top : y1 - part.top, x0 - part.left : x1 - part.left]
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False), (x0, y0)


def thin_grey(pixels: Pixels | FramePixels, *, least_rows: int) -> Pixels:
    """A grey picture [h, w] of some of the rows and columns: at least so many rows, if there are."""
    apart = max(1, pixels.shape[0] // least_rows)
    if isinstance(pixels, FramePixels):
        rgb = pixels.every(apart)
    else:
        rgb = np.ascontiguousarray(pixels[::apart, ::apart])
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


def convert_frame(frame: av.VideoFrame, *, width: int, height: int) -> Pixels:
    """A whole frame as RGB [height, width, 3].

    In one thread: swscale starts more for each frame, which takes as long as to convert it.
    """
    return _pixels_of(
        frame.reformat(format="rgb24", width=width, height=height, interpolation="AREA", threads=1)
    )


def finish_rgb(rgb: Pixels, quarter_turns: int, curve: Pixels | None) -> Pixels:
    """RGB changed by a curve [256], if any, and turned by quarters against the clock."""
    if curve is not None:
        rgb = cv2.LUT(rgb, curve).astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


def _as_rgb(frame: av.VideoFrame) -> Pixels:
    return convert_frame(frame, width=frame.width, height=frame.height)


def _pixels_of(frame: av.VideoFrame) -> Pixels:
    """The pixels [H, W, 3] of an RGB frame, which lives on in them: copying them costs as much as to
    convert."""
    pixels: Pixels = _rows_of(frame, 0)[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
    return pixels


def _rows_of(frame: av.VideoFrame, number: int) -> Pixels:
    """The bytes [rows, line size] of a plane, padding included."""
    plane: Any = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)


def _samples_of(frame: av.VideoFrame, number: int) -> NDArray[np.unsignedinteger[Any]]:
    """The places [rows, columns] of a plane, each a number of as many bytes as belong to it."""
    size = _LAYOUTS[frame.format.name].planes[number].size
    return _rows_of(frame, number)[:, : size * frame.planes[number].width].view(f"u{size}")


def _cut_frame(frame: av.VideoFrame, box: Box) -> av.VideoFrame:
    """A copy of a part of a frame, all edges of which are even."""
    x0, y0, x1, y1 = box
    cut = _make_like(frame, x1 - x0, y1 - y0)
    for number, plane in enumerate(_LAYOUTS[frame.format.name].planes):
        first, last = plane.first_byte(x0), plane.first_byte(x1)
        rows = _rows_of(frame, number)[plane.first_row(y0) : plane.first_row(y1), first:last]
        _rows_of(cut, number)[:, : last - first] = rows
    return _described_as(frame, cut)


def _make_like(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """A frame of another size to be filled.

    Where swscale interpolates colours, it asks where in a square of pixels they lie, as H.264 and HEVC say.
    PyAV cannot read or set that; scaling keeps it, and by single points costs little.
    """
    if not _LAYOUTS[frame.format.name].margin:
        return av.VideoFrame(width, height, frame.format.name)
    return frame.reformat(width=width, height=height, interpolation="POINT", threads=1)


def _described_as(frame: av.VideoFrame, part: av.VideoFrame) -> av.VideoFrame:
    """The part, with what a conversion depends on besides the samples."""
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    part.color_trc, part.color_primaries = frame.color_trc, frame.color_primaries
    return part
