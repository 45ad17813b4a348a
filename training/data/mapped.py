"""A shard mapped into memory: of a clip only the bytes that are looked at are read from disk.

A clip of LRS2 has 2.5 MB and a pair needs 5 of its frames, 69 kB. The arrays of an npz file as numpy writes
it lie one after another, uncompressed, so each is a view of the shard.
"""

import io
import json
import struct
import tarfile
from functools import cache as remember
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsync_cli.errors import ConfigError
from training.data.cache import CachedClip
from training.data.clips import LoadedClip, make_clip

_ENTRY = struct.Struct(
    "<4s2xHH16xHH"
)  # of a zip file: signature, flags, compression, lengths of name and extra
_ENTRY_BYTES = 30
_SIGNATURE = b"PK\x03\x04"
_NPY_START = 10  # magic, version, and how long the header is


class MappedShard:
    """The clips of a shard, in its order. Raises ConfigError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = np.memmap(path, np.uint8, mode="r")
        self._clips: list[dict[str, int]] = []  # where each part of a clip begins
        self._sizes: list[int] = []  # of what is said of a clip
        names: dict[str, dict[str, int]] = {}
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, part = member.name.partition(".")
                if key not in names:
                    names[key] = {}
                    self._clips.append(names[key])
                names[key][part] = member.offset_data
                if part == "json":
                    self._sizes.append(member.size)

    def clip(self, place: int) -> LoadedClip:
        """A clip whose arrays are views of the file."""
        try:
            parts, size = self._clips[place], self._sizes[place]
            start = parts["json"]
            entry = CachedClip(**json.loads(self._data[start : start + size].tobytes()))
            video = self._arrays(parts["video.npz"])
            arrays = {"video_tick" if name == "first_tick" else name: video[name] for name in video}
            arrays |= self._arrays(parts["audio.npz"])
            if "loud.npy" in parts:
                arrays["loud"], _ = self._array(parts["loud.npy"])
            return make_clip(entry, arrays)
        except (LookupError, ValueError, TypeError, struct.error) as error:
            raise ConfigError(f"{self._path}: clip {place} cannot be read; make the shards again") from error

    def _arrays(self, start: int) -> dict[str, NDArray[Any]]:
        """The arrays of an npz file that begins at a byte."""
        arrays: dict[str, NDArray[Any]] = {}
        while True:
            header = self._data[start : start + _ENTRY_BYTES].tobytes()
            signature, _flags, compression, name_bytes, extra_bytes = _ENTRY.unpack(header)
            if signature != _SIGNATURE:
                return arrays
            if compression:
                raise ValueError("is compressed")
            name = self._data[start + _ENTRY_BYTES :][:name_bytes].tobytes().decode()
            array, end = self._array(start + _ENTRY_BYTES + name_bytes + extra_bytes)
            arrays[name.removesuffix(".npy")] = array
            start = end

    def _array(self, start: int) -> tuple[NDArray[Any], int]:
        """The array of an npy file that begins at a byte, and where it ends."""
        length = int.from_bytes(self._data[start + 8 : start + _NPY_START].tobytes(), "little")
        first = start + _NPY_START + length
        dtype, shape, size = _read_header(self._data[start:first].tobytes())
        if not size:
            return np.empty(shape, dtype), first
        return np.frombuffer(self._data[first : first + size], dtype).reshape(shape), first + size


@remember
def _read_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and bytes of an array; few headers differ."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of npy")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran:
        raise ValueError("in another order")
    return dtype, shape, dtype.itemsize * int(np.prod(shape))
