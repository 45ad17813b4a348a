"""Pairs of clips that are not all in memory: each clip gives one pair an epoch.

Any pair can be drawn at any time, by any process: only the clip at its place of the epoch is looked at.
"""

from collections.abc import Sequence

import numpy as np

from avsync_cli.errors import ConfigError
from training.data.clips import LoadedClip
from training.data.draws import PAIR
from training.data.pairs import Pair, make_drawable
from training.data.sources import Source
from training.reach import Reach
from training.recipe import PairsConfig


class StreamedPairs:
    """One pair of every clip, epoch by epoch, as published; see `pairs.ClipPairs` for clips in memory.

    A clip that is too short or silent throughout gives none: its batch is smaller by one.
    """

    def __init__(self, stream: Source, config: PairsConfig, *, seed: int, reach: Reach) -> None:
        if config.epoch_pairs is not None:
            raise ConfigError("data: epoch_pairs and domains need clips in memory, not shards")
        self.epoch_pairs = stream.clips_per_epoch
        self._stream, self._negatives, self._seed, self._reach = stream, config.negatives, seed, reach

    def pairs(self, epoch: int, indices: Sequence[int]) -> list[tuple[LoadedClip, Pair]]:
        """The pairs of the given indices of an epoch. Raises ConfigError where none of them is to be had."""
        drawn = []
        for index in indices:
            clip = self._stream.clip_at(self._seed, epoch, index)
            drawable = make_drawable(clip, reach=self._reach, negatives=self._negatives)
            if drawable is not None:
                rng = np.random.default_rng((PAIR, self._seed, epoch, index))
                drawn.append((clip, drawable.draw(rng)))
        if not drawn:
            raise ConfigError(f"epoch {epoch}: no clip of a micro-batch is long and loud enough for a pair")
        return drawn
