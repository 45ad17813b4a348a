"""Boxes of MP4, taken apart and put together again: an index claims what whoever writes it wants."""

import struct
from collections.abc import Callable, Iterator

# Of kind and payload of a box its new payload, or None to leave it out.
Edit = Callable[[bytes, bytes], bytes | None]

_HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
_HEAD_BYTES = 8


def list_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of each box, none of them so large that its size needs 64 bits."""
    place = 0
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + _HEAD_BYTES : place + size]
        place += size


def edit_boxes(data: bytes, edit: Edit) -> bytes:
    """The boxes, each with the payload that `edit` gives it; what lies in others is edited first."""
    parts = []
    for kind, payload in list_boxes(data):
        new = edit_boxes(payload, edit) if kind in _HOLDERS else payload
        changed = edit(kind, new)
        if changed is not None:
            parts.append(struct.pack(">I4s", _HEAD_BYTES + len(changed), kind) + changed)
    return b"".join(parts)


def find_box(data: bytes, *kinds: bytes) -> bytes:
    """The payload of the first box that lies in boxes of these kinds, one within the other."""
    for kind in kinds:
        data = next(payload for found, payload in list_boxes(data) if found == kind)
    return data
