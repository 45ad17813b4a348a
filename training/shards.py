"""Shards: the clips of a cache in tar files, for data that does not fit into memory.

A folder of shards holds `<split>-00000.tar` ... and an index. Each shard follows webdataset's convention,
so that its tools can read it: the members of a clip lie beside each other and share their name up to the
first dot,
    0000000.json       what the cache's manifest says of the clip
    0000000.video.npz  the two files of the cache, as they are
    0000000.audio.npz
Clips are mixed once when they are written, so neighbours in a shard are not of one speaker.

They are read with `tarfile`, not by webdataset. Its reader has no order by (seed, epoch) that is the same for
any number of ranks (whole shards go to a rank), cannot begin in the middle of an epoch without reading what
went before, and does not notice a damaged file. Here the order of an epoch is computed from the index before
any clip is read, so clips that were skipped or that belong to another rank are never read at all.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache as remember
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from avsync_cli.errors import ConfigError
from training.cache import (
    CROPS,
    CachedClip,
    are_ours,
    prepared_inputs,
    read_crop,
    read_manifest,
    read_parts,
    sha256_of,
)
from training.clips import LoadedClip, unpack_clip
from training.draws import SHARD_ORDER
from training.progress import Progress
from training.whole_file import whole_file, write_json

FORMAT = "avsync-shards"
VERSION = 1
INDEX = "index.json"
PARTS = ("json", "video.npz", "audio.npz")
BUFFER_CLIPS = 256
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
    """The clips of one split, streamed (see `sources.Source`); at most `buffer` of them are in memory."""

    folder: Path
    shards: tuple[Shard, ...]
    crop: str
    sha256: str
    min_windows: int
    buffer: int

    @property
    def clips_per_epoch(self) -> int:
        return sum(len(_usable(shard, self.min_windows)) for shard in self.shards)

    def epoch(
        self, seed: int, epoch: int, *, skip: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, LoadedClip]]:
        return stream_clips(
            self.folder,
            self.shards,
            seed=seed,
            epoch=epoch,
            buffer=self.buffer,
            min_windows=self.min_windows,
            skip=skip,
            rank=rank,
            world=world,
        )


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


def stream_clips(
    folder: Path,
    shards: Sequence[Shard],
    *,
    seed: int,
    epoch: int,
    buffer: int = BUFFER_CLIPS,
    min_windows: int = 1,
    skip: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[int, LoadedClip]]:
    """A rank's clips of an epoch from place `skip` on, each with its place.

    Shards are read one after another; at most `buffer` clips are in memory. Raises ConfigError where a shard
    is missing or is not the one of the index.
    """
    places = [_usable(shard, min_windows) for shard in shards]
    arrivals, order = epoch_order([len(usable) for usable in places], seed=seed, epoch=epoch, buffer=buffer)
    mine = [place for place in range(skip, len(order)) if place % world == rank]
    wanted = sorted(order[place] for place in mine)
    clips = _read_clips(folder, [(shards[s], places[s][c]) for s, c in (arrivals[a] for a in wanted)])
    incoming = zip(wanted, clips, strict=True)
    held: dict[int, LoadedClip] = {}
    for place in mine:
        while order[place] not in held:
            arrival, clip = next(incoming)
            held[arrival] = clip
        yield place, held.pop(order[place])


def epoch_order(
    counts: Sequence[int], *, seed: int, epoch: int, buffer: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """How an epoch goes through S shards of the given numbers of clips [S], K clips in all.

    Returns the order in which clips are read, (shard, clip) [K], and the order in which they leave the
    buffer, as numbers of the former [K].
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


def _usable(shard: Shard, min_windows: int) -> list[int]:
    return [place for place, windows in enumerate(shard.windows) if windows >= min_windows]


def _read_clips(folder: Path, wanted: Sequence[tuple[Shard, int]]) -> Iterator[LoadedClip]:
    """The given clips (shard, place); those of one shard follow each other."""
    for shard, group in groupby(wanted, key=itemgetter(0)):
        with _open_shard(folder / shard.file, shard.sha256) as tar:
            members: dict[str, dict[str, tarfile.TarInfo]] = {}
            for member in tar:
                key, _, part = member.name.partition(".")
                members.setdefault(key, {})[part] = member
            keys = list(members)
            for _, place in group:
                parts = members[keys[place]]
                about, video, audio = (_read(tar, parts[name]) for name in PARTS)
                yield unpack_clip(CachedClip(**json.loads(about)), video, audio)


def _open_shard(path: Path, sha256: str) -> tarfile.TarFile:
    try:
        state = path.stat()
        found = _hash_of(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make the shards again") from error
    if found != sha256:
        raise ConfigError(f"{path}: damaged, its SHA-256 is not the one that {INDEX} gives")
    return tarfile.open(path, "r:")


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
            windows.append(unpack_clip(entry, video, audio).windows)
            about = json.dumps(asdict(entry)).encode()
            for name, data in zip(PARTS, (about, video, audio), strict=True):
                _add(tar, f"{number:07d}.{name}", data)
    return tuple(windows)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ConfigError(f"{tar.name!s}: {member.name} is not a file; make the shards again")
    return file.read()
