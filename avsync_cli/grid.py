"""From decoded frames to pictures of the 25-fps grid: nearest in time, whole, upright, not too large."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import ceil, floor

import av
import numpy as np
from numpy.typing import NDArray

from avsync_cli.gate import refuse_picture
from avsync_cli.pixels import FramePixels, Pixels, can_be_cut, convert_frame, finish_rgb
from avsync_cli.spec import MAX_HOLD_S, MAX_PICTURE_SIDE, MAX_WHOLE_SIDE, VIDEO_FPS
from avsync_cli.timing import tick_time

TimedFrame = tuple[Fraction, av.VideoFrame]  # seconds from the grid's origin

_PQ, _HLG = 16, 18  # transfer characteristics (ITU-T H.273)
_WHITE_NITS = 203.0  # of diffuse white in HDR (ITU-R BT.2408)


@dataclass(frozen=True)
class Picture:
    """The picture on show at a tick of the 25-fps grid, upright: an array uint8 [H, W, 3], or what gives it.

    `scale` is picture pixels per pixel of the file, below 1 where a large picture was reduced. The picture is
    to be shown `late_ms` after the tick (before it if negative): pictures of 25 fps may lie beside the grid.
    """

    tick: int
    pixels: Pixels | FramePixels
    scale: float
    late_ms: float = 0.0

    @property
    def rgb(self) -> Pixels:
        """All of it [H, W, 3]."""
        return self.pixels.whole() if isinstance(self.pixels, FramePixels) else self.pixels


def show_pictures(
    frames: Iterator[TimedFrame], aspect: Fraction | None, *, first_tick: int, stop_tick: int | None = None
) -> Iterator[Picture]:
    """One picture a tick of [first_tick, stop_tick) from frames, whose pixels have an `aspect`.

    A tick shows the frame nearest in time; where that is more than `MAX_HOLD_S` away, none.
    """
    for (time_s, frame), ticks in _place_on_grid(deinterlace(frames), first_tick):
        wanted = [tick for tick in ticks if stop_tick is None or tick < stop_tick]
        if wanted:
            pixels, scale = _upright_pixels(frame, aspect)
            for tick in wanted:
                yield Picture(tick, pixels, scale, float(1000 * (time_s - tick_time(tick))))


def _place_on_grid(frames: Iterator[TimedFrame], first_tick: int) -> Iterator[tuple[TimedFrame, range]]:
    """Give every tick from `first_tick` on its nearest frame: yield each frame with the ticks it serves."""
    tick = first_tick
    held: TimedFrame | None = None
    step_s = Fraction(1, VIDEO_FPS)
    for time_s, frame in frames:
        if held is not None:
            step_s = time_s - held[0]
            ticks, tick = _ticks_until((held[0] + time_s) / 2, tick, held[0])
            yield held, ticks
        held = (time_s, frame)
    if held is not None:
        # Strictly inside half a frame: the tick half a frame later belongs to nobody.
        ticks, _ = _ticks_until(held[0] + min(step_s, MAX_HOLD_S) / 2 - Fraction(1, 10**6), tick, held[0])
        yield held, ticks


def deinterlace(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    """Make whole pictures of interlaced ones, one for each; progressive frames pass as they are."""
    graph: av.filter.Graph | None = None
    shape: tuple[int, int, str] | None = None
    times: deque[Fraction] = deque()
    for time_s, frame in frames:
        now = (frame.width, frame.height, frame.format.name)
        if graph is not None and now != shape:
            yield from _drain(graph, times, end=True)
            graph = None
        if graph is None and frame.interlaced_frame:
            graph, shape = _deinterlacer(frame), now
        if graph is None:
            yield time_s, frame
            continue
        times.append(time_s)
        graph.push(frame)
        yield from _drain(graph, times)
    if graph is not None:
        yield from _drain(graph, times, end=True)


def upright_rgb(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[Pixels, float]:
    """Reduce, convert and rotate one frame as a player would show it: [H, W, 3] and its scale."""
    width, height, scale = _size_shown(frame, aspect)
    rgb = convert_frame(frame, width=width, height=height)
    return finish_rgb(rgb, _quarter_turns(frame), _curve_of(frame)), scale


def _upright_pixels(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[Pixels | FramePixels, float]:
    """As `upright_rgb`; what need not be scaled is converted where it is looked at, if it can be."""
    width, height, _ = _size_shown(frame, aspect)
    if (width, height) == (frame.width, frame.height) and can_be_cut(frame):
        return FramePixels(frame, quarter_turns=_quarter_turns(frame), curve=_curve_of(frame)), 1.0
    return upright_rgb(frame, aspect)


def _size_shown(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int, float]:
    """Width and height, before it is turned, and the scale. Raises LimitError."""
    refuse_picture(frame.width, frame.height, aspect)  # it may be larger than the file declared
    width, height = round(frame.width * (aspect or 1)), frame.height
    longer = max(width, height)
    scale = 1.0 if longer <= MAX_WHOLE_SIDE else MAX_PICTURE_SIDE / longer
    return max(2, round(width * scale)), max(2, round(height * scale)), scale


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _curve_of(frame: av.VideoFrame) -> Pixels | None:
    return _tone_curve(int(frame.color_trc)) if frame.color_trc in (_PQ, _HLG) else None


def _ticks_until(limit_s: Fraction, tick: int, shown_s: Fraction) -> tuple[range, int]:
    """Ticks from `tick` up to `limit_s` that a picture of time `shown_s` serves, and the next tick.

    Pictures may be years apart: what lies between is not counted tick by tick.
    """
    next_tick = max(tick, floor(limit_s * VIDEO_FPS) + 1)
    first = max(tick, ceil((shown_s - MAX_HOLD_S) * VIDEO_FPS))
    last = floor((shown_s + MAX_HOLD_S) * VIDEO_FPS)
    return range(first, min(next_tick, last + 1)), next_tick


def _deinterlacer(frame: av.VideoFrame) -> av.filter.Graph:
    """A graph that gives one whole picture a frame and leaves frames alone that are none of two fields."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    filters = [source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")]
    graph.link_nodes(*filters).configure()
    return graph


def _drain(graph: av.filter.Graph, times: deque[Fraction], *, end: bool = False) -> Iterator[TimedFrame]:
    """What the graph has ready; it keeps order and number, so each takes the next of the `times`."""
    if end:
        graph.push(None)
    while times:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if isinstance(frame, av.VideoFrame):
            yield times.popleft(), frame


@cache
def _tone_curve(transfer: int) -> NDArray[np.uint8]:
    """Table [256] from PQ or HLG code values to those of an ordinary picture, diffuse white at the top.

    Electro-optical functions of ITU-R BT.2100, each channel by itself; highlights are clipped.
    """
    code = np.arange(256) / 255
    if transfer == _PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        light = 10_000 / _WHITE_NITS * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        light = 1000 / _WHITE_NITS * scene**1.2
    return np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(np.uint8)
