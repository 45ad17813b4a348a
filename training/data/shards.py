"""Shards: the clips of a cache in tar files, for data that does not fit into memory.

A folder of shards holds `<split>-00000.tar` ... and an index. Each shard follows webdataset's convention,
so that its tools can read it: the members of a clip lie beside each other and share their name up to the
first dot,
    0000000.json       what the cache's manifest says of the clip
    0000000.video.npz  the two files of the cache, as they are
    0000000.audio.npz
    0000000.loud.npy   of every tick of the sound whether it is loud; shards of earlier versions lack it
Clips are mixed once when they are written, so neighbours in a shard are not of one speaker.

They are read with `tarfile`, not by webdataset. Its reader has no order by (seed, epoch) that is the same for
any number of ranks (whole shards go to a rank), cannot begin in the middle of an epoch without reading what
went before, and does not notice a damaged file. Here the order of an epoch is computed from the index before
any clip is read, so clips that were skipped or that belong to another rank are never read at all. Of those
that are, only what is looked at is (see `mapped`).
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache as remember
from functools import cached_property
from functools import lru_cache as remember_some
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsync_cli.errors import ConfigError
from training.data.cache import (
    CROPS,
    CachedClip,
    are_ours,
    prepared_inputs,
    read_crop,
    read_manifest,
    read_parts,
    sha256_of,
)
from training.data.clips import LoadedClip, unpack_clip
from training.data.draws import SHARD_ORDER
from training.data.loudness import loud_ticks
from training.data.mapped import MappedShard
from training.progress import Progress
from training.whole_file import whole_file, write_json

FORMAT = "avsync-shards"
VERSION = 1
INDEX = "index.json"
PARTS = ("json", "video.npz", "audio.npz", "loud.npy")
BUFFER_CLIPS = 256
_OPEN_SHARDS = 16  # mapped at a time
_MIX_SEED = 0  # of the order in which clips are written


@dataclass(frozen=True)
class Shard:
    """One tar file of C clips; `windows` [C] says how many windows each clip has."""

    file: str
    split: str
    sha256: str
    windows: tuple[int, ...]


@dataclass(frozen=True)
class ShardSource:
    """The clips of one split, read from disk as they are looked at (see `sources.Source`); an epoch mixes
    them as a buffer of `buffer` clips would."""

    folder: Path
    shards: tuple[Shard, ...]
    crop: str
    sha256: str
    min_windows: int
    buffer: int
    verify: bool = True

    @property
    def clips_per_epoch(self) -> int:
        return sum(map(len, self._usable))

    def epoch(
        self, seed: int, epoch: int, *, skip: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, LoadedClip]]:
        for place in range(skip, self.clips_per_epoch):
            if place % world == rank:
                yield place, self.clip_at(seed, epoch, place)

    def clip_at(self, seed: int, epoch: int, place: int) -> LoadedClip:
        counts = tuple(map(len, self._usable))
        arrivals, order = _ordered(counts, seed=seed, epoch=epoch, buffer=self.buffer)
        shard, clip = arrivals[order[place]]
        return _map_clip(self.folder, self.shards[shard], self._usable[shard][clip], verify=self.verify)

    @cached_property
    def _usable(self) -> list[list[int]]:
        """The clips of each shard that have enough windows."""
        return [
            [place for place, windows in enumerate(shard.windows) if windows >= self.min_windows]
            for shard in self.shards
        ]


def write_shards(cache: Path, folder: Path, *, clips_per_shard: int) -> list[Shard]:
    """Write all usable clips of a cache as shards. Raises ConfigError."""
    if (folder / INDEX).exists():
        raise ConfigError(f"{folder}: already holds shards; use an empty folder")
    entries = [entry for entry in read_manifest(cache) if entry.reason is None]
    if not entries:
        raise ConfigError(f"{cache}: holds no clip")
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    with Progress("shard", len(entries), unit="clips") as progress:
        for split in sorted({entry.split for entry in entries}):
            members = [entry for entry in entries if entry.split == split]
            order = np.random.default_rng(_MIX_SEED).permutation(len(members))
            for first in range(0, len(members), clips_per_shard):
                chosen = [members[place] for place in order[first : first + clips_per_shard]]
                path = folder / f"{split}-{first // clips_per_shard:05d}.tar"
                windows = _write_shard(path, cache, chosen, first_number=first)
                shards.append(Shard(path.name, split, sha256_of(path), windows))
                progress.advance(len(chosen))
    content = {
        "format": FORMAT,
        "version": VERSION,
        "contract": prepared_inputs(),
        "crop": read_crop(cache),
        "clips": len(entries),
        "shards": [asdict(shard) | {"clips": len(shard.windows)} for shard in shards],
    }
    write_json(folder / INDEX, content, indent=None)
    return shards


def open_shards(folder: Path, *, split: str, min_windows: int = 1, buffer: int = BUFFER_CLIPS) -> ShardSource:
    """The clips of a split that have at least `min_windows` windows. Raises ConfigError."""
    crop, shards = read_index(folder)
    chosen = tuple(shard for shard in shards if shard.split == split)
    source = ShardSource(folder, chosen, crop, sha256_of(folder / INDEX), min_windows, buffer)
    if buffer < 1 or not source.clips_per_epoch:
        raise ConfigError(f"{folder}: no clip of the split {split!r} has {min_windows} windows")
    return source


def read_index(folder: Path) -> tuple[str, list[Shard]]:
    """The kind of the crops, and the shards. Raises ConfigError where they cannot be used."""
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind, made_for, crop = (content["format"], content["version"]), content["contract"], content["crop"]
        shards = [
            Shard(row["file"], row["split"], row["sha256"], tuple(int(n) for n in row["windows"]))
            for row in content["shards"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no index of shards; run `python -m training shard`") from error
    if kind != (FORMAT, VERSION) or not are_ours(made_for) or crop not in CROPS:
        raise ConfigError(f"{path}: made for another version or other inputs; make the shards again")
    return crop, shards


@remember_some(maxsize=4)
def _ordered(
    counts: tuple[int, ...], *, seed: int, epoch: int, buffer: int
) -> tuple[list[tuple[int, int]], list[int]]:
    return epoch_order(counts, seed=seed, epoch=epoch, buffer=buffer)


def epoch_order(
    counts: Sequence[int], *, seed: int, epoch: int, buffer: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """How an epoch goes through S shards of the given numbers of clips [S], K clips in all.

    Returns the clips shard by shard, (shard, clip) [K], and the order in which they leave a buffer that is
    filled so, as numbers of the former [K]: near each other in the files, and so on disk, and yet mixed.
    """
    rng = np.random.default_rng((SHARD_ORDER, seed, epoch))
    arrivals = [(int(s), c) for s in rng.permutation(len(counts)) for c in range(counts[s])]
    waiting: list[int] = []
    order: list[int] = []
    for arrival in range(len(arrivals)):
        waiting.append(arrival)
        if len(waiting) == buffer:
            order.append(_draw(waiting, rng))
    while waiting:
        order.append(_draw(waiting, rng))
    return arrivals, order


def _draw(waiting: list[int], rng: np.random.Generator) -> int:
    """Take one out: the last one takes its place."""
    chosen = int(rng.integers(len(waiting)))
    waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
    return waiting.pop()


def _map_clip(folder: Path, shard: Shard, place: int, *, verify: bool) -> LoadedClip:
    path = folder / shard.file
    try:
        state = path.stat()
        if verify and _hash_of(path, state.st_size, state.st_mtime_ns) != shard.sha256:
            raise ConfigError(f"{path}: damaged, its SHA-256 is not the one that {INDEX} gives")
        return _mapped(path, state.st_size, state.st_mtime_ns).clip(place)
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: {reason}; make the shards again") from error


@remember_some(maxsize=_OPEN_SHARDS)
def _mapped(path: Path, size: int, changed_ns: int) -> MappedShard:  # noqa: ARG001 - a file that changed is another
    return MappedShard(path)


@remember
def _hash_of(path: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001 - a file that changed is another
    """Every process reads a shard once more for its hash, not once every epoch."""
    return sha256_of(path)


def _write_shard(path: Path, cache: Path, entries: list[CachedClip], *, first_number: int) -> tuple[int, ...]:
    """Write one shard whole or not at all; the same clips give the same bytes."""
    windows = []
    with whole_file(path) as unfinished, tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, entry in enumerate(entries, first_number):
            video, audio = read_parts(cache, entry)
            clip = unpack_clip(entry, video, audio)
            windows.append(clip.windows)
            about = json.dumps(asdict(entry)).encode()
            for name, data in zip(PARTS, (about, video, audio, _npy(loud_ticks(clip.mel))), strict=True):
                _add(tar, f"{number:07d}.{name}", data)
    return tuple(windows)


def _npy(array: NDArray[np.bool_]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
