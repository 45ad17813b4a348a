"""A copy of a video with what was found drawn on its pictures; the sound's packets stay as they are.

Pictures are those of the file at their own times, as a player shows them: upright, whole, and at most
`spec.MAX_WHOLE_SIDE` pixels wide or high.
"""

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avsync_cli.container import main_video
from avsync_cli.decoder import PictureClock, decode_packets, open_container, packet_s, seek_key, timed_packets
from avsync_cli.errors import ConfigError, MediaError, WriteError
from avsync_cli.findings import Findings
from avsync_cli.gate import LimitError, guard_video
from avsync_cli.grid import TimedFrame, deinterlace, upright_rgb
from avsync_cli.outputs import written_whole
from avsync_cli.remux import MUXERS, delay_packet
from avsync_cli.report import Report, TrackReport, describe_confidence, verdict_words
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.timecode import Timecode

if TYPE_CHECKING:
    from avsync_cli.copies import Packet

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]  # red, green, blue

OVERLAY_SUFFIXES = (".mkv", ".mov", ".mp4")  # that hold H.264 and nearly every sound
_GOOD, _BAD, _OPEN, _QUIET = (70, 200, 90), (255, 90, 80), (240, 180, 50), (190, 190, 190)
_VERDICT_COLOURS = {"in_sync": _GOOD, "out_of_sync": _BAD, "undetermined": _OPEN, "error": _BAD}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINES_HIGH = 28  # lines of text in the height of a picture
_RUN_UP_S = 15  # before a part, from where pictures are decoded
_SOUND_BEHIND_S = 2  # pictures, in a file whose sound and pictures are interleaved
_ENCODER = {"preset": "veryfast", "crf": "20", "bf": "0"}  # without B-frames times of decoding need no shift


@dataclass(frozen=True)
class Part:
    """What of a file is written, in seconds from its first picture; None: to its end."""

    start_s: float = 0.0
    end_s: float | None = None


def refuse_overlay(path: Path) -> None:
    if path.suffix.lower() not in OVERLAY_SUFFIXES:
        raise ConfigError(f"{path}: a video with what was found is written as {', '.join(OVERLAY_SUFFIXES)}")


def write_overlay(
    report: Report,
    findings: Findings,
    source: Path,
    target: Path,
    *,
    part: Part = Part(),
    timecode: Timecode | None = None,
    overwrite: bool = False,
    threads: int = 0,
    told: Callable[[float], None] = lambda _: None,
) -> None:
    """Draw the faces, their offsets and the verdict, and write the pictures beside the sounds as they were.

    `told` hears now and then how many seconds are drawn. Raises MediaError, WriteError, or ConfigError where
    the container does not take a sound of the file.
    """
    artist = _Artist(report, findings, timecode)
    with written_whole(target, overwrite=overwrite) as unfinished, open_container(source) as given:
        video = main_video(given)
        if video is None:
            raise MediaError(f"{source}: no video stream", "no_video")
        guard_video(video, threads=threads)
        try:
            count = _Copier(given, video, unfinished, target, part, threads).copy(artist, told)
        except LimitError:
            raise
        except (av.FFmpegError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise WriteError(f"{target}: {text}") from error
        if not count:
            raise MediaError(f"{source}: there is no picture to draw on", "unreadable")


def name_face(place: int) -> str:
    """A, B, ... Z, AA, AB: the name of a face by its place in `Report.tracks`."""
    letters = ""
    place += 1
    while place:
        place, letter = divmod(place - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


class _Artist:
    """Knows what is to be seen at each moment, and draws it."""

    def __init__(self, report: Report, findings: Findings, timecode: Timecode | None) -> None:
        self._report, self._timecode = report, timecode
        self._boxes: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
        for place, face in enumerate(findings.faces):
            for piece in face:
                for tick, box in zip(piece.ticks.tolist(), piece.boxes, strict=True):
                    self._boxes.setdefault(tick, []).append((place, box))
        self._passages = sorted((each.start_s, each.end_s) for each in report.passages)
        self._points = sorted(report.timeline, key=lambda point: point.start_s)

    def draw(self, rgb: Pixels, scale: float, time_s: float) -> None:
        """Draw on a picture [H, W, 3] of `scale` pixels for each of the file."""
        for place, box in self._boxes.get(round(time_s * VIDEO_FPS), ()):
            self._draw_face(rgb, box * scale, place)
        colour = _VERDICT_COLOURS[self._report.status]
        verdict = f"{self._report.status.replace('_', ' ')}: {verdict_words(self._report)}"
        lines = [(verdict, colour), (self._describe_moment(time_s), (255, 255, 255))]
        for number, (text, ink) in enumerate(lines):
            _write(rgb, text, (0, number * _line_px(rgb)), ink)

    def _describe_moment(self, time_s: float) -> str:
        minutes, seconds = divmod(time_s, 60)
        clock = f"{int(minutes)}:{seconds:05.2f}"
        if self._timecode is not None:
            clock = f"{clock}  {self._timecode.at(time_s)}"
        return f"{clock}  {self._describe_stretch(time_s)}"

    def _describe_stretch(self, time_s: float) -> str:
        """What the stretch of the timeline around a moment says by itself."""
        place = bisect.bisect_right(self._passages, (time_s, float("inf"))) - 1
        if place < 0 or time_s >= self._passages[place][1]:
            return "not looked at"
        number = bisect.bisect_right([point.start_s for point in self._points], time_s) - 1
        point = self._points[number] if number >= 0 else None
        if point is None or time_s >= point.end_s or point.audio_lead_ms is None:
            return "here: no offset"
        return f"here: {point.audio_lead_ms:+.0f} ms, {describe_confidence(point.confidence)}"

    def _draw_face(self, rgb: Pixels, box: NDArray[np.float32], place: int) -> None:
        track = self._report.tracks[place]
        x0, y0, x1, y1 = (round(float(edge)) for edge in box)
        colour = self._colour_of(track)
        cv2.rectangle(rgb, (x0, y0), (x1, y1), colour, max(1, rgb.shape[0] // 360), cv2.LINE_AA)
        height = _line_px(rgb)
        below = y1 if y1 + 2 * height <= rgb.shape[0] else max(0, y0 - 2 * height)
        for number, text in enumerate((f"face {name_face(place)}", _describe_face(track))):
            _write(rgb, text, (x0, below + number * height), colour)

    def _colour_of(self, track: TrackReport) -> Colour:
        latest, earliest = self._report.limits_ms
        if not track.speaking or track.audio_lead_ms is None:
            return _QUIET
        return _GOOD if latest <= track.audio_lead_ms <= earliest else _BAD


def _describe_face(track: TrackReport) -> str:
    if track.speaking is None:
        return "not known whether speaking"
    if not track.speaking or track.audio_lead_ms is None:
        return "not speaking"
    return f"{track.audio_lead_ms:+.0f} ms, {describe_confidence(track.confidence)}"


def _line_px(rgb: Pixels) -> int:
    return max(12, int(rgb.shape[0]) // _LINES_HIGH)


def _write(rgb: Pixels, text: str, corner: tuple[int, int], colour: Colour) -> None:
    """A line of text on a dark ground, its upper left at `corner`, moved and shrunk until it is inside."""
    text = text.encode("ascii", "replace").decode("ascii")  # what the font has
    height_px, width_px = rgb.shape[:2]
    line = _line_px(rgb)
    scale, thick = line / 36, max(1, round(line / 24))
    wide = cv2.getTextSize(text, _FONT, scale, thick)[0][0] + line // 2
    if wide > width_px:
        scale, wide = scale * width_px / wide, width_px
    x, y = max(0, min(corner[0], width_px - wide)), max(0, min(corner[1], height_px - line))
    ground = rgb[y : y + line, x : x + wide]
    ground[:] = ground // 4
    place = (x + line // 4, y + round(0.72 * line))
    cv2.putText(rgb, text, place, _FONT, scale, colour, thick, cv2.LINE_AA)


class _Copier:
    """A source, and the file that is made of it."""

    def __init__(
        self,
        given: InputContainer,
        video: VideoStream,
        unfinished: Path,
        target: Path,
        part: Part,
        threads: int,
    ) -> None:
        self._given, self._video, self._target, self._part = given, video, target, part
        self._threads = threads
        self._clock = PictureClock(given, video)
        self._begin_s = Fraction(given.start_time or 0, av.time_base)  # becomes 0
        muxer = MUXERS[target.suffix.lower()]
        options = {"movie_timescale": "90000"} if muxer != "matroska" else {}
        self._output = av.open(str(unfinished), "w", format=muxer, container_options=options)
        self._made = self._add_streams()
        self._size: tuple[int, int] | None = None
        self._waiting: list[Packet] = []  # sound that came before the first picture, and with it the header

    def copy(self, artist: _Artist, told: Callable[[float], None]) -> int:
        """Write all; the number of pictures."""
        count = 0
        if self._part.start_s > 0:
            self._go_to_start()
        aspect = self._video.sample_aspect_ratio
        for time_s, frame in deinterlace(self._pictures()):
            if time_s < self._part.start_s:
                continue
            rgb, scale = upright_rgb(frame, aspect)
            drawn = rgb.copy()  # a picture that needed no conversion is still the decoder's
            artist.draw(drawn, scale, float(time_s))
            self._put_picture(drawn, time_s)
            count += 1
            if count % VIDEO_FPS == 0:
                told(float(time_s) - self._part.start_s)
        if count:
            self._output.mux(self._encoder.encode(None))
        self._output.close()
        return count

    def _add_streams(self) -> dict[int, Any]:
        rate = Fraction(self._video.average_rate or VIDEO_FPS)
        self._encoder = self._output.add_stream("libx264", rate=rate, options=dict(_ENCODER))
        context = self._encoder.codec_context
        context.time_base = Fraction(self._video.time_base or Fraction(1, 90_000))
        context.thread_count = self._threads
        made: dict[int, Any] = {}
        for sound in self._given.streams.audio:
            try:
                copy = self._output.add_stream_from_template(sound, opaque=True)
            except (av.FFmpegError, ValueError) as error:
                hint = "" if self._target.suffix.lower() == ".mkv" else "; name a .mkv file"
                raise ConfigError(f"{self._target}: does not hold {sound.name} sound{hint}") from error
            copy.metadata.update(sound.metadata)
            copy.disposition = sound.disposition
            made[sound.index] = copy
        return made

    def _go_to_start(self) -> None:
        """Near to a part that begins late, whose time counts from the first picture of all."""
        for _ in self._pictures():
            break
        self._waiting.clear()
        self._begin_s = self._origin_s + Fraction(str(self._part.start_s))
        self._clock.begin_pass()
        seek_key(self._given, self._video, max(self._origin_s, self._begin_s - _RUN_UP_S))

    def _pictures(self) -> Iterator[TimedFrame]:
        """Pictures with their seconds from the file's first one, up to the end of the part."""
        for frame in decode_packets(self._pass_sound()):
            if not isinstance(frame, av.VideoFrame):
                continue
            time_s = self._clock.time_picture(frame)
            if self._clock.jumped:
                return
            if time_s is not None and self._part.end_s is not None and time_s >= self._part.end_s:
                self._pass_late_sound(self._part.end_s)
                return
            if time_s is not None:
                yield time_s, frame

    @property
    def _origin_s(self) -> Fraction:
        return self._clock.origin_s or Fraction(0)

    def _pass_sound(self) -> "Iterator[Packet]":
        """Packets of pictures; those of sounds are written on the way."""
        self._packets = timed_packets(self._given, self._video, *self._given.streams.audio)
        for packet in self._packets:
            if packet.stream is self._video:
                yield packet
            else:
                self._take_sound(packet)

    def _pass_late_sound(self, end_s: float) -> None:
        """Write the sound up to the end of a part that stands behind its pictures in the file."""
        for packet in self._packets:
            time_s = packet_s(packet)
            if packet.stream is not self._video:
                self._take_sound(packet)
            elif time_s is not None and time_s - self._origin_s > end_s + _SOUND_BEHIND_S:
                return

    def _take_sound(self, packet: "Packet") -> None:
        if packet.size and self._is_wanted(packet):
            made = self._made[packet.stream_index]
            delay_packet(packet, -self._begin_s)
            packet.stream = made
            self._waiting.append(packet)
            if self._size is not None:
                self._put_sound()

    def _put_sound(self) -> None:
        for packet in self._waiting:
            self._output.mux_one(packet)
        self._waiting.clear()

    def _is_wanted(self, packet: "Packet") -> bool:
        if self._part == Part() or packet.pts is None:
            return True
        time_s = packet.pts * Fraction(packet.time_base or 0) - self._begin_s
        length_s = float("inf") if self._part.end_s is None else self._part.end_s - self._part.start_s
        return 0 <= time_s < length_s

    def _put_picture(self, rgb: Pixels, time_s: Fraction) -> None:
        if self._size is None:
            self._size = rgb.shape[1] // 2 * 2, rgb.shape[0] // 2 * 2
            self._encoder.width, self._encoder.height = self._size
            self._encoder.pix_fmt = "yuv420p"
            self._put_sound()
        width, height = self._size
        if rgb.shape[1] // 2 * 2 != width or rgb.shape[0] // 2 * 2 != height:
            rgb = np.asarray(cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        drawn = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
        drawn.time_base = Fraction(self._encoder.codec_context.time_base)
        drawn.pts = round((time_s + self._origin_s - self._begin_s) / drawn.time_base)
        self._output.mux(self._encoder.encode(drawn))
