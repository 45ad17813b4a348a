"""Edit lists of MP4 and MOV: which parts of a track are shown, and when.

A file that was cut without coding it again keeps pictures from the keyframe before the cut and says where
within them it begins. FFmpeg counts from the first picture after that, up to a picture too early, and puts
what follows a second cut wrong by more. So such files are opened without FFmpeg's edits and placed by these.
Boxes are as in ISO/IEC 14496-12.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

_MOST_BOXES = 10_000
_MOST_EDITS = 1_000
_SMALL_BYTES = 1 << 16  # of a box that is read whole
_HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
_WANTED = (b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"elst", b"ctts")
_NORMAL_RATE = 1 << 16
_WHOLE_LATER = Fraction(10**9)  # of an edit that lasts as long as the file


@dataclass(frozen=True)
class Edit:
    """From `shown_s` on, `seconds` of the track are shown that lie at `media_s` on its own clock."""

    shown_s: Fraction
    media_s: Fraction
    seconds: Fraction


Edits = tuple[Edit, ...]  # in order; empty: the track's own clock is that of the file


def read_edits(path: Path) -> Mapping[int, Edits]:
    """The edits of each track by its ID; none where FFmpeg places all tracks exactly, or cannot be helped.

    That is where a track begins with its first picture, and where parts are shown in another order.
    """
    if not path.is_file():  # opening a pipe may never end
        return MappingProxyType({})
    try:
        with path.open("rb") as file:
            tracks = _read_tracks(file)
    except (OSError, struct.error, LookupError, ValueError, ZeroDivisionError, RecursionError):
        return MappingProxyType({})  # it is damaged, which FFmpeg bears better
    edits = {track.number: track.edits for track in tracks}
    usual = all(len(track.edits) <= 1 and not track.begins_within for track in tracks)
    in_order = all(
        before.media_s + before.seconds <= after.media_s
        for each in edits.values()
        for before, after in pairwise(each)
    )
    return MappingProxyType({} if usual or not in_order else edits)


def shown_at(edits: Edits, media_s: Fraction) -> Fraction | None:
    """When a moment of a track is shown, None for one that is not."""
    if not edits:
        return media_s
    for edit in edits:
        if 0 <= media_s - edit.media_s < edit.seconds:
            return edit.shown_s + media_s - edit.media_s
    return None


def shown_from(edits: Edits, media_s: Fraction) -> Fraction:
    """When the first of a track is shown that lies at or behind a moment."""
    for edit in edits:
        if media_s < edit.media_s + edit.seconds:
            return edit.shown_s + max(Fraction(0), media_s - edit.media_s)
    return media_s if not edits else edits[-1].shown_s + edits[-1].seconds


def media_at(edits: Edits, shown_s: Fraction) -> Fraction:
    """Where a moment lies on a track's own clock; before and between edits where the next begins."""
    for edit in edits:
        if shown_s < edit.shown_s + edit.seconds:
            return edit.media_s + max(Fraction(0), shown_s - edit.shown_s)
    return shown_s if not edits else edits[-1].media_s + edits[-1].seconds


@dataclass(frozen=True)
class _Track:
    number: int
    edits: Edits
    begins_within: bool  # a picture that began before, not with its first one


def _read_tracks(file: BinaryIO) -> list[_Track]:
    """Raises ValueError or struct.error where the file is none of these, or damaged."""
    file.seek(0)
    if file.read(8)[4:] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        raise ValueError("no MP4")
    movie_hz, boxes, tracks = 0, dict[bytes, bytes](), list[_Track]()
    file.seek(0, 2)
    for kind, payload in _walk(file, 0, file.tell(), iter(range(_MOST_BOXES))):
        if kind == b"mvhd":
            movie_hz = _unit(payload, 12)
        elif kind == b"trak":  # all of its boxes have come
            tracks.append(_read_track(boxes, movie_hz))
            boxes = {}
        else:
            boxes.setdefault(kind, payload)
    return tracks


def _walk(file: BinaryIO, start: int, end: int, left: Iterator[int]) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that are wanted, with the beginning of what they hold; a track when it is over.

    Raises ValueError for more boxes than `left`, which counts them all.
    """
    while start + 8 <= end:
        if next(left, None) is None:
            raise ValueError("too many boxes")
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        inner = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            inner += 8
        size = size or end - start
        if size < inner - start:
            raise ValueError("not a box")
        if kind in _HOLDERS:
            yield from _walk(file, inner, min(end, start + size), left)
        if kind in _WANTED:
            yield kind, file.read(min(size - (inner - start), _SMALL_BYTES))
        elif kind == b"trak":
            yield kind, b""
        start += size


def _read_track(boxes: dict[bytes, bytes], movie_hz: int) -> _Track:
    (number,) = struct.unpack_from(">I", boxes[b"tkhd"], 20 if boxes[b"tkhd"][0] else 12)
    edits = _read_list(boxes.get(b"elst", bytes(8)), movie_hz, _unit(boxes[b"mdhd"], 12))
    begins_within = False
    if boxes[b"hdlr"][8:12] == b"vide" and edits:
        first_s = Fraction(_first_offset(boxes.get(b"ctts", b"")), _unit(boxes[b"mdhd"], 12))
        begins_within = edits[0].media_s > first_s
    return _Track(number, edits, begins_within)


def _read_list(payload: bytes, movie_hz: int, media_hz: int) -> Edits:
    """Raises ValueError where parts are shown slower or faster, or there are too many."""
    (count,) = struct.unpack_from(">I", payload, 4)
    if count > _MOST_EDITS:
        raise ValueError("too many edits")
    layout = ">Qqi" if payload[0] else ">Iii"
    edits, shown_s = list[Edit](), Fraction(0)
    for place in range(count):
        ticks, media_time, rate = struct.unpack_from(layout, payload, 8 + place * struct.calcsize(layout))
        seconds = Fraction(ticks, movie_hz)
        if media_time >= 0:
            if rate != _NORMAL_RATE:
                raise ValueError("not at its own speed")
            edits.append(Edit(shown_s, Fraction(media_time, media_hz), seconds or _WHOLE_LATER))
        shown_s += seconds
    return tuple(edits)


def _unit(payload: bytes, place: int) -> int:
    """Ticks a second, from the header of a movie or of a track's media."""
    (unit,) = struct.unpack_from(">I", payload, place + 8 if payload[0] else place)
    return int(unit)


def _first_offset(payload: bytes) -> int:
    """By how many ticks the first picture is shown after it is decoded."""
    return int(struct.unpack_from(">i", payload, 12)[0]) if len(payload) >= 16 else 0
