"""Stream copy into a new file with the sound moved against the pictures: every packet as it was.

What a muxer made of the times it was given is only known by reading them back: some ignore them. So a
copy is to be compared with what `copy_moved` says it holds (`copies.compare_copy`) before it counts.
"""

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import AttachmentStream, Disposition, Stream
from av.video.stream import VideoStream

from avsync_cli.container import main_video
from avsync_cli.copies import Contents, Track, begin_track, digest_attachments
from avsync_cli.decoder import find_unseen, open_container, packet_s, read_packets
from avsync_cli.errors import MediaError, WriteError, first_line
from avsync_cli.timing import round_half_up

if TYPE_CHECKING:
    from avsync_cli.copies import Packet

MATROSKA = ".mkv"  # holds nearly everything, and keeps every time
MUXERS = {
    ".3gp": "3gp",
    ".asf": "asf",
    ".flv": "flv",
    ".m2ts": "mpegts",
    ".m4v": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mp4",
    ".mpeg": "vob",
    ".mpg": "vob",
    ".mts": "mpegts",
    ".ogg": "ogg",
    ".ogv": "ogg",
    ".qt": "mov",
    ".ts": "mpegts",
    ".vob": "vob",
    ".webm": "webm",
    ".wmv": "asf",
}
_MOV = frozenset(("3gp", "mov", "mp4"))
_DEMUXERS = dict.fromkeys(_MOV, "mov") | {"vob": "mpeg", "webm": "matroska"}
_BRANDS = frozenset(("major_brand", "minor_version", "compatible_brands"))
_FULL = frozenset((errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES))
_MS_HZ = 1000
_MAX_DELAY_US, _PRELOAD_US = "700000", "500000"  # so that small packets of sound share one of the container
_FINEST_HZ = 1 << 30


class UnfitContainer(Exception):  # noqa: N818 - another container is tried before anybody hears of it
    """A container cannot hold a stream; the text says why."""


@dataclass(frozen=True)
class Stretch:
    """Sound from `start_s` up to `end_s`, counted from the first picture, is delayed by `delay_s`."""

    delay_s: Fraction
    start_s: float = -math.inf
    end_s: float = math.inf


@dataclass(frozen=True)
class Move:
    """How sound is moved; what lies in no stretch is left out. `sounds`: places among the sounds, or all."""

    stretches: tuple[Stretch, ...]
    sounds: frozenset[int] | None = None

    @property
    def others_delay_s(self) -> Fraction:
        """Sound that is to be earlier stays, and everything else is delayed."""
        return max(Fraction(0), -min(stretch.delay_s for stretch in self.stretches))

    def delay_at(self, time_s: Fraction) -> Fraction | None:
        """None where the sound of this moment is left out."""
        delays = (each.delay_s for each in self.stretches if each.start_s <= time_s < each.end_s)
        return next(delays, None)


class SoundCoder(Protocol):
    """Makes other packets of the packets of a sound, for the stream `made` of the new file."""

    made: AudioStream

    def code(self, packet: "Packet") -> "list[Packet]":
        """What is to be written of the sound up to this packet; the empty packet brings the rest."""


Recode = Callable[[AudioStream, OutputContainer, Fraction], SoundCoder]  # the last: see `Stretcher`


def copy_moved(
    source: Path, target: Path, suffix: str, move: Move, *, recode: Recode | None = None
) -> Contents:
    """Write all streams of `source` to `target`, the sound moved. Returns what the copy is to hold.

    `suffix` says which container it is to be, whatever the target's name. `recode` makes the coder of each
    sound that is moved, where it is not to be copied; it gives its packets their times. Raises UnfitContainer
    where the container cannot hold the streams, MediaError where the source cannot be read to its end,
    WriteError where the target cannot be written.
    """
    with open_container(source) as given:
        if main_video(given) is None:
            raise MediaError(f"{source}: no video stream", "no_video")
        for is_strict in (True, False):
            copier = _Copier(source, given, target, suffix, move)
            try:
                copier.begin(recode, is_strict=is_strict)
            except (av.FFmpegError, ValueError) as error:
                if is_strict:
                    continue
                raise _refused(error, target) from error
            return copier.copy()
    raise AssertionError


class _Copier:
    """A source and the file that is made of it."""

    def __init__(self, source: Path, given: InputContainer, target: Path, suffix: str, move: Move) -> None:
        self._source, self._given, self._target, self._move = source, given, target, move
        self._main = main_video(given)
        self._suffix, self._muxer = suffix, MUXERS[suffix]
        self._is_same_container = _DEMUXERS.get(self._muxer, self._muxer) in given.format.name
        self._made: dict[int, Stream] = {}
        self._coders: dict[int, SoundCoder] = {}
        self._tracks: dict[int, Track] = {}
        self._origin_s = _start_s(self._main)
        # As if the file began at 0: some containers take a late beginning for a pause.
        self._base_s = move.others_delay_s - Fraction(given.start_time or 0, av.time_base)
        self._last_dts: dict[int, int] = {}

    def begin(self, recode: Recode | None, *, is_strict: bool) -> None:
        """Open the target, add its streams and write its header; `is_strict`: by the codecs' own tags.

        Raises FFmpegError or ValueError where the container does not take them.
        """
        options = _options_of(self._muxer, self._suffix, self._source, self._given)
        self._output = av.open(str(self._target), "w", format=self._muxer, container_options=options)
        for stream in self._given.streams:
            if not self._is_left_to_muxer(stream):
                self._add(stream, recode, is_strict=is_strict)
        keeps_brands = self._muxer in _MOV
        tags = {k: v for k, v in self._given.metadata.items() if keeps_brands or k not in _BRANDS}
        self._output.metadata.update(tags)
        self._output.set_chapters([_move_chapter(each, self._base_s) for each in self._given.chapters()])
        self._output.start_encoding()

    def copy(self) -> Contents:
        """Write all packets, each at its time."""
        for packet in read_packets(self._given):
            place = packet.stream_index
            if place in self._coders:
                for coded in self._coders[place].code(packet):
                    self._put(coded, place, self._base_s)
            elif packet.size and place in self._made:
                self._copy_packet(packet, place)
        self._try(self._output.close)
        return Contents(
            tuple(self._tracks.values()),
            digest_attachments(self._given),
            len(self._given.chapters()),
            may_reframe=not self._is_same_container,
            unseen=tuple(find_unseen(self._given)),
        )

    def _add(self, stream: Stream, recode: Recode | None, *, is_strict: bool) -> None:
        is_cover = bool(stream.disposition & Disposition.attached_pic)
        is_moved = isinstance(stream, AudioStream) and self._moves(stream)
        if is_cover and self._muxer == "matroska":
            self._attach_cover(stream)
            return
        if recode is not None and isinstance(stream, AudioStream) and is_moved:
            self._coders[stream.index] = recode(stream, self._output, self._origin_s)
            made: Stream = self._coders[stream.index].made
        else:
            made = self._output.add_stream_from_template(stream, opaque=True)
            if isinstance(made, VideoStream) and isinstance(stream, VideoStream) and stream.average_rate:
                made.codec_context.framerate = stream.average_rate  # a timecode counts in it
            if is_strict and self._is_same_container and made.codec_context is not None:
                made.codec_context.codec_tag = stream.codec_context.codec_tag
        made.metadata.update(stream.metadata)
        made.disposition = stream.disposition
        if self._muxer == "mpegts":
            made.id = stream.id
        self._made[stream.index] = made
        if not isinstance(stream, AttachmentStream):
            recoded = stream.index in self._coders
            self._tracks[stream.index] = begin_track(stream, self._main, is_recoded=recoded)

    def _is_left_to_muxer(self, stream: Stream) -> bool:
        """Whether the muxer makes this stream anew: that of the titles of chapters, or of a timecode."""
        if stream.type != "data" or "mov" not in self._given.format.name:
            return False
        is_titles = stream.name == "bin_data" and bool(self._given.chapters())
        return is_titles or "timecode" in stream.metadata

    def _attach_cover(self, stream: Stream) -> None:
        """Matroska keeps covers among its attachments."""
        with open_container(self._source) as again:
            data = bytes(next(read_packets(again, again.streams[stream.index])))
        kind = "png" if stream.name == "png" else "jpeg"
        name = stream.metadata.get("filename", f"cover.{'png' if kind == 'png' else 'jpg'}")
        self._output.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), data)
        track = begin_track(stream, self._main)
        packet = av.Packet(data)
        track.add(packet, None)
        self._tracks[stream.index] = track

    def _moves(self, stream: AudioStream) -> bool:
        place = self._given.streams.audio.index(stream)
        return self._move.sounds is None or place in self._move.sounds

    def _copy_packet(self, packet: "Packet", place: int) -> None:
        stream = packet.stream
        delay_s: Fraction | None = Fraction(0)
        if isinstance(stream, AudioStream) and self._moves(stream):
            delay_s = self._move.delay_at((packet_s(packet) or Fraction(0)) - self._origin_s)
        if delay_s is None:
            self._tracks[place].left_out += 1
        else:
            self._put(packet, place, self._base_s + delay_s)

    def _put(self, packet: "Packet", place: int, delay_s: Fraction) -> None:
        """Write a packet, later by some seconds."""
        delay_packet(packet, delay_s)
        track = self._tracks[place]
        track.add(packet, None if packet.pts is None else packet.pts * Fraction(packet.time_base or 0))
        packet.stream = self._made[place]
        self._try(lambda: self._output.mux_one(packet))

    def _try(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (av.FFmpegError, ValueError) as error:
            raise _refused(error, self._target) from error


def delay_packet(packet: "Packet", delay_s: Fraction) -> None:
    """Move the stamps of a packet, in a unit that is fine enough for both."""
    unit_s = Fraction(packet.time_base or 1)
    rate_hz = math.lcm(unit_s.denominator, _MS_HZ)
    fine_s = Fraction(1, rate_hz) if rate_hz <= _FINEST_HZ else unit_s
    pts, dts, duration = packet.pts, packet.dts, packet.duration
    packet.pts = None if pts is None else round_half_up((pts * unit_s + delay_s) / fine_s)
    packet.dts = None if dts is None else round_half_up((dts * unit_s + delay_s) / fine_s)
    packet.duration = 0 if duration is None else round_half_up(duration * unit_s / fine_s)
    packet.time_base = fine_s


def _move_chapter(chapter: Any, delay_s: Fraction) -> Any:  # noqa: ANN401 - a Chapter of PyAV
    moved = round_half_up(delay_s / chapter["time_base"])
    return chapter | {"start": max(0, chapter["start"] + moved), "end": max(0, chapter["end"] + moved)}


def _options_of(muxer: str, suffix: str, source: Path, given: InputContainer) -> dict[str, str]:
    if muxer == "mpegts":
        return {"mpegts_m2ts_mode": "1" if suffix in (".m2ts", ".mts") else "0", "max_delay": _MAX_DELAY_US}
    if muxer == "vob":
        return {"preload": _PRELOAD_US, "max_delay": _MAX_DELAY_US}
    if muxer not in _MOV:
        return {}
    flags = "+faststart" if _begins_with_index(source) else ""
    has_cover = any(stream.disposition & Disposition.attached_pic for stream in given.streams)
    if not has_cover and any(name.startswith("com.") for name in given.metadata):
        flags += "+use_metadata_tags"  # which those of cameras need
    return {"movie_timescale": "90000"} | ({"movflags": flags} if flags else {})


def _begins_with_index(path: Path) -> bool:
    """Whether an MP4 or MOV file can be played while it is still being loaded."""
    with path.open("rb") as file:
        while len(head := file.read(16)) == 16:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if size < 8:
                return False
            file.seek(size - 16, 1)
    return False


def _start_s(stream: Stream | None) -> Fraction:
    return Fraction(0) if stream is None else (stream.start_time or 0) * Fraction(stream.time_base or 0)


def _refused(error: Exception, target: Path) -> Exception:
    """What a failed write means: no room, or a container that does not take this."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return WriteError(f"{target}: {error.strerror}")
    return UnfitContainer(first_line(error))
