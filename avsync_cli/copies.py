"""What a media file holds, packet by packet, and whether a copy of it holds the same."""

import hashlib
import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.container import InputContainer
from av.stream import AttachmentStream, Disposition, Stream

from avsync_cli.container import main_video
from avsync_cli.decoder import open_container, read_packets

if TYPE_CHECKING:
    Packet = av.Packet[Any]

CLOSE_S = 0.002  # two roundings of a container that counts in ms
_NO_TITLE = b"\0\0"
_REFRAMED = frozenset(("aac", "h264", "hevc", "vvc"))  # have another frame around them in another container


@dataclass
class Track:
    """The packets of one stream: how many, a digest of their bytes, and when each is shown or heard."""

    kind: str
    codec: str
    is_cover: bool = False
    is_recoded: bool = False
    is_main: bool = False  # the picture whose first moment all times refer to
    packets: int = 0
    left_out: int = 0
    times_s: "array[float]" = field(default_factory=lambda: array("d"))  # NaN where a packet does not say
    digest: Any = field(default_factory=hashlib.blake2b)

    def add(self, packet: "Packet", time_s: Fraction | None) -> None:
        if self.kind == "subtitle" and bytes(packet) == _NO_TITLE:
            return  # which says how long there is none, and comes and goes with the times
        self.packets += 1
        self.digest.update(memoryview(packet))
        self.times_s.append(math.nan if time_s is None else float(time_s))

    def __str__(self) -> str:
        return f"{self.kind} ({self.codec})"


@dataclass(frozen=True)
class Contents:
    """`may_reframe`: whether another container may have put another frame around the packets.

    `unseen` are streams that were not read, since they begin within the file.
    """

    tracks: tuple[Track, ...]
    attachments: Counter[bytes]
    chapters: int
    may_reframe: bool = False
    unseen: tuple[str, ...] = ()


def begin_track(stream: Stream, main: Stream | None, *, is_recoded: bool = False) -> Track:
    return Track(
        stream.type,
        stream.name or "unknown",
        is_cover=bool(stream.disposition & Disposition.attached_pic),
        is_recoded=is_recoded,
        is_main=main is not None and stream.index == main.index,
    )


def digest_attachments(container: InputContainer) -> Counter[bytes]:
    streams = (stream for stream in container.streams if isinstance(stream, AttachmentStream))
    return Counter(hashlib.blake2b(stream.data).digest() for stream in streams)


def compare_copy(asked: Contents, copy: Path) -> str | None:
    """What the file does not hold of what it was to hold, in words; None where it holds all of it."""
    found = read_contents(copy)
    if not asked.attachments <= found.attachments:
        return "an attachment is lost"
    if found.chapters < asked.chapters:
        return f"{asked.chapters - found.chapters} chapters are lost"
    move_s = _origin_s(found) - _origin_s(asked)
    left = list(found.tracks)
    for track in asked.tracks:
        same = next((each for each in left if _is_same(track, each, may_reframe=asked.may_reframe)), None)
        if same is None:
            return f"packets of {track} are not what they were"
        left.remove(same)
        if not track.is_cover and (late_s := _furthest_s(track, same, move_s)) > CLOSE_S:
            return f"{track} is {1000 * late_s:.0f} ms from where it was put"
    return None


def read_contents(path: Path) -> Contents:
    """Raises MediaError."""
    with open_container(path) as container:
        main = main_video(container)
        tracks = {
            stream.index: begin_track(stream, main)
            for stream in container.streams
            if not isinstance(stream, AttachmentStream)
        }
        for packet in read_packets(container):
            if packet.size:
                time_s = None if packet.pts is None else packet.pts * Fraction(packet.time_base or 0)
                tracks[packet.stream_index].add(packet, time_s)
        return Contents(tuple(tracks.values()), digest_attachments(container), len(container.chapters()))


def _is_same(asked: Track, found: Track, *, may_reframe: bool) -> bool:
    """Whether these are the packets that were to come; of those that were framed anew, how many."""
    if asked.is_recoded:
        return (asked.kind, asked.codec) == (found.kind, found.codec)
    if asked.packets == found.packets and asked.digest.digest() == found.digest.digest():
        return True
    reframed = may_reframe and asked.codec in _REFRAMED
    return reframed and (asked.codec, asked.packets) == (found.codec, found.packets)


def _origin_s(contents: Contents) -> float:
    times_s = next(track.times_s for track in contents.tracks if track.is_main)
    return min(time_s for time_s in times_s if not math.isnan(time_s))


def _furthest_s(asked: Track, found: Track, move_s: float) -> float:
    """How far a packet lies at most from where it was to lie; those that do not say do not count."""
    if asked.is_recoded:  # others may have been cut or joined on the way
        return abs(found.times_s[0] - asked.times_s[0] - move_s)
    pairs = zip(asked.times_s, found.times_s, strict=False)
    return max(
        (abs(there - here - move_s) for here, there in pairs if here == here and there == there), default=0.0
    )
