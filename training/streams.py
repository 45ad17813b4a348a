"""Pairs of clips that are not all in memory: each clip passes by once an epoch and gives one pair.

Of W processes each reads the clips at every W-th place of an epoch (see `sources`), which are the pairs of
its own micro-batches (see `steps.indices_of`).
"""

from collections.abc import Iterator

import numpy as np

from avsync_cli.errors import ConfigError
from training.clips import LoadedClip
from training.draws import PAIR
from training.pairs import Pair, make_drawable
from training.processes import Processes
from training.recipe import PairsConfig
from training.sources import Source
from training.vocalist import Reach


class StreamedPairs:
    """One pair of every clip, epoch by epoch, as published; see `pairs.ClipPairs` for clips in memory.

    A clip that is too short or silent throughout gives none: its batch is smaller by one.
    """

    def __init__(
        self, stream: Source, config: PairsConfig, *, seed: int, reach: Reach, processes: Processes
    ) -> None:
        if config.epoch_pairs is not None:
            raise ConfigError("data: epoch_pairs and domains need clips in memory, not shards")
        self.epoch_pairs = stream.clips_per_epoch
        self._stream, self._negatives, self._seed, self._reach = stream, config.negatives, seed, reach
        self._processes = processes
        self._epoch, self._next = -1, 0
        self._passing: Iterator[tuple[int, LoadedClip]] = iter(())
        self._waiting: dict[int, LoadedClip] = {}  # that have passed by and are wanted in this step

    def pairs(self, epoch: int, indices: range) -> list[tuple[LoadedClip, Pair]]:
        """The pairs of the given indices of an epoch; forward is fast, backward begins the epoch again."""
        drawn = []
        for index in indices:
            clip = self._take(epoch, index)
            drawable = make_drawable(clip, reach=self._reach, negatives=self._negatives)
            if drawable is not None:
                rng = np.random.default_rng((PAIR, self._seed, epoch, index))
                drawn.append((clip, drawable.draw(rng)))
        if not drawn:
            raise ConfigError(f"epoch {epoch}: no clip of a micro-batch is long and loud enough for a pair")
        return drawn

    def _take(self, epoch: int, index: int) -> LoadedClip:
        if epoch != self._epoch or (index not in self._waiting and index < self._next):
            processes = self._processes
            self._passing = self._stream.epoch(
                self._seed, epoch, skip=index, rank=processes.rank, world=processes.world
            )
            self._epoch, self._next, self._waiting = epoch, index, {}
        while index not in self._waiting:
            place, clip = next(self._passing)
            self._waiting[place], self._next = clip, place + 1
        return self._waiting.pop(index)
