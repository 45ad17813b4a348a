"""Where a recipe's clips come from: a cache, whole in memory, or shards, streamed from disk.

A source gives the clips of an epoch in an order that depends on (seed, epoch) alone: not on how many
ranks share it, nor on where a run was resumed. Each clip comes with its place in that order, from which
the recipe draws what it needs of the clip, so that a draw depends on (seed, epoch, place) alone too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache as remember_some
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avsync_cli.errors import ConfigError
from training.data.cache import MANIFEST, read_crop, sha256_of
from training.data.clips import LoadedClip, load_clips
from training.data.draws import CLIP_ORDER
from training.data.shards import BUFFER_CLIPS, INDEX, ShardSource, open_shards, read_index


class Source(Protocol):
    """Clips of one split. `crop` is their kind (see `cache`), `sha256` that of the table of its files."""

    @property
    def clips_per_epoch(self) -> int: ...

    @property
    def crop(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    def epoch(
        self, seed: int, epoch: int, *, skip: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, LoadedClip]]:
        """The clips at the places skip .. clips_per_epoch - 1 of the epoch, each with its place.

        Of `world` ranks, each gets the places that leave its own number when divided by `world`.
        """
        ...

    def clip_at(self, seed: int, epoch: int, place: int) -> LoadedClip:
        """The clip at one place of the epoch."""
        ...


@dataclass(frozen=True)
class MemorySource:
    """Clips that are in memory already."""

    clips: list[LoadedClip]
    crop: str
    sha256: str

    @property
    def clips_per_epoch(self) -> int:
        return len(self.clips)

    def epoch(
        self, seed: int, epoch: int, *, skip: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, LoadedClip]]:
        for place in range(skip, len(self.clips)):
            if place % world == rank:
                yield place, self.clip_at(seed, epoch, place)

    def clip_at(self, seed: int, epoch: int, place: int) -> LoadedClip:
        return self.clips[int(clip_order(len(self.clips), seed, epoch)[place])]


@remember_some(maxsize=4)
def clip_order(clips: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """In which order an epoch goes through clips in memory."""
    return np.random.default_rng((CLIP_ORDER, seed, epoch)).permutation(clips)


def open_source(
    folder: Path, *, split: str, min_windows: int = 1, buffer: int = BUFFER_CLIPS
) -> MemorySource | ShardSource:
    """The clips of a split that have at least `min_windows` windows, from a cache or from shards.

    `buffer` is how many clips of shards are in memory at once. Raises ConfigError.
    """
    if (folder / INDEX).exists():
        return open_shards(folder, split=split, min_windows=min_windows, buffer=buffer)
    clips = [clip for clip in load_clips(folder, split=split) if clip.windows >= min_windows]
    if not clips:
        raise ConfigError(f"{folder}: no clip of the split {split!r} has {min_windows} windows")
    return MemorySource(clips, read_crop(folder), sha256_of(folder / MANIFEST))


def crop_of(folder: Path) -> str:
    """The kind of the crops of a cache or of shards. Raises ConfigError."""
    return read_index(folder)[0] if (folder / INDEX).exists() else read_crop(folder)
