"""The pairs of a recipe: opened from a cache or shards, and drawn by micro-batches, here or in a worker."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avsync_cli.errors import ConfigError
from avsync_cli.spec import MEL_STEPS_PER_SECOND, VIDEO_FPS
from training.data.cache import GREY
from training.data.pairs import ClipPairs, PairBatch, PairSource, cut_pairs, fixed_batches
from training.data.shards import ShardSource
from training.data.sources import MemorySource, Source, open_source
from training.data.streamed_pairs import StreamedPairs
from training.loops.augment_pairs import augment_pairs
from training.loops.feed import is_other_worker
from training.networks.compact import CompactNet
from training.networks.presets import PublishedNet
from training.reach import Reach
from training.recipe import Recipe

DrawVal = Callable[[int], list[PairBatch]]  # after so many steps


class RecipeDraw:
    """Draws micro-batches (step, part) of a recipe; sent to another process, it opens its shards there."""

    def __init__(self, recipe: Recipe, reach: Reach, source: PairSource) -> None:
        self.recipe, self.reach = recipe, reach
        self._source: PairSource | None = source

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    def __call__(self, step: int, part: int) -> PairBatch:
        """The pairs with the recipe's augmentation, on the CPU."""
        if self._source is None:
            self._source = make_source(self.recipe, open_split(self.recipe, self.reach, "train"), self.reach)
        data = self.recipe.data
        epoch, place = divmod(step, self._source.epoch_pairs // data.batch)
        # Of M micro-batches each takes every M-th pair of the step.
        indices = range(place * data.batch + part, (place + 1) * data.batch, data.micro_batches)
        batch = cut_pairs(self._source.pairs(epoch, indices), self.reach, mel=data.mel)
        if data.augment is None:
            return batch
        rng = torch.Generator().manual_seed(seed_of(self.recipe, step, part))
        return augment_pairs(batch, data.augment, rng)


def seed_of(recipe: Recipe, step: int, part: int) -> int:
    """What a micro-batch's augmentation and dropout are drawn from."""
    return (recipe.seed * 1_000_003 + step) * recipe.data.micro_batches + part


def open_pairs(
    recipe: Recipe, networks: list[PublishedNet | CompactNet], reach: Reach
) -> tuple[PairSource, DrawVal]:
    """The pairs to train on, and what draws those to validate on, from a cache in memory or from shards.

    Raises ConfigError, also where the networks or the augmentation do not take the data's crops.
    """
    folder, data = Path(recipe.cache), recipe.data
    to_train, to_validate = (open_split(recipe, reach, split) for split in ("train", "val"))
    if to_train.crop != GREY:
        if any(isinstance(network, CompactNet) for network in networks):
            raise ConfigError(f"{folder}: holds RGB crops, but a compact network takes grey ones")
        if data.augment is not None:
            raise ConfigError(f"{folder}: holds RGB crops, but augment is made for grey ones")
    if data.mel == "chunk" and reach != Reach():
        raise ConfigError("data: mel chunk: these networks look beyond their windows")
    if recipe.speed.workers:
        require_shards(to_train, folder)
    source = make_source(recipe, to_train, reach)
    if source.epoch_pairs < data.batch:
        raise ConfigError(f"data: an epoch has {source.epoch_pairs} pairs, less than a batch")
    return source, val_drawer(recipe, to_validate, reach)


def open_split(recipe: Recipe, reach: Reach, split: str) -> MemorySource | ShardSource:
    """The clips of a split that are long enough for the reach. Raises ConfigError."""
    margin = max(reach.frames, -(-reach.mel_steps * VIDEO_FPS // MEL_STEPS_PER_SECOND))
    return unverified_in_workers(open_source(Path(recipe.cache), split=split, min_windows=2 * margin + 2))


def unverified_in_workers(source: MemorySource | ShardSource) -> MemorySource | ShardSource:
    """The source, whose hashes of all workers the first alone compares."""
    if isinstance(source, ShardSource) and is_other_worker():
        return replace(source, verify=False)
    return source


def require_shards(source: MemorySource | ShardSource, folder: Path) -> None:
    """Raises ConfigError where workers would each hold all clips in memory."""
    if isinstance(source, MemorySource):
        raise ConfigError(f"{folder}: workers need shards (python -m training shard), not a cache")


def make_source(recipe: Recipe, clips: MemorySource | ShardSource, reach: Reach) -> PairSource:
    """The pairs of clips."""
    if isinstance(clips, MemorySource):
        return ClipPairs(clips.clips, recipe.data, seed=recipe.seed, reach=reach)
    return StreamedPairs(clips, recipe.data, seed=recipe.seed, reach=reach)


def val_drawer(recipe: Recipe, source: Source, reach: Reach) -> DrawVal:
    """What draws the pairs to validate on: the same after every step, or as published others each time.

    Either way they depend on the recipe and the step alone. Raises ConfigError.
    """
    data, fixed = recipe.data, recipe.validation

    def draw(step: int) -> list[PairBatch]:
        return fixed_batches(
            source,
            fixed.pairs,
            data.batch // data.micro_batches,
            seed=fixed.seed + step,
            reach=reach,
            negatives=data.negatives,
            mel=data.mel,
        )

    if fixed.rule == "published":
        return draw
    drawn = draw(0)
    return lambda _step: drawn
