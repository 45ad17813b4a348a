"""The pairs of a baseline: drawn, and cut as its method compares them. C: clips; N: candidates."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avsync_cli.errors import ConfigError
from training.baseline_recipe import DEFAULT_CANDIDATES, BaselineConfig
from training.data.clips import LoadedClip
from training.data.pairs import ClipPairs, Pair, PairBatch, PairSource, cut_pairs, cut_sounds, fixed_pairs
from training.data.sources import MemorySource, open_source
from training.data.streamed_pairs import StreamedPairs
from training.loops.recipe_pairs import require_shards, unverified_in_workers
from training.reach import Reach

ClipPair = tuple[LoadedClip, Pair]


class BaselineDraw:
    """Draws the share (step, part) of a baseline's steps; sent to another process, it opens its shards
    there."""

    def __init__(self, config: BaselineConfig, source: PairSource, shares: int) -> None:
        self.config, self.shares = config, shares
        self._source: PairSource | None = source

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    def __call__(self, step: int, part: int) -> PairBatch:
        if self._source is None:
            self._source = open_pairs(self.config)
        size = self.config.data.batch
        epoch, place = divmod(step, self._source.epoch_pairs // size)
        indices = range(place * size + part, (place + 1) * size, self.shares)
        return cut_windows(self.config, self._source.pairs(epoch, indices))


def open_pairs(config: BaselineConfig) -> PairSource:
    """The pairs to train on, from a cache in memory or from shards. Raises ConfigError."""
    folder = Path(config.cache)
    source = unverified_in_workers(open_source(folder, split="train", min_windows=windows_needed(config)))
    if config.speed.workers:
        require_shards(source, folder)
    if isinstance(source, MemorySource):
        return ClipPairs(source.clips, config.data, seed=config.seed, reach=Reach())
    return StreamedPairs(source, config.data, seed=config.seed, reach=Reach())


def validation_batches(config: BaselineConfig) -> list[PairBatch]:
    """Windows to validate on, the same at every validation. Raises ConfigError."""
    source = open_source(Path(config.cache), split="val", min_windows=windows_needed(config))
    fixed = config.validation
    pairs = fixed_pairs(source, fixed.pairs, seed=fixed.seed, reach=Reach(), negatives=config.data.negatives)
    batches = []
    while part := list(itertools.islice(pairs, config.data.batch)):
        batches.append(cut_windows(config, part))
    if not batches:
        raise ConfigError("no clip to validate on is loud enough to draw pairs from")
    return batches


def windows_needed(config: BaselineConfig) -> int:
    """How many windows a clip must have: one more than a negative needs, or all candidates."""
    return 2 if config.method == "contrastive" else candidates_of(config)


def candidates_of(config: BaselineConfig) -> int:
    return config.candidates or DEFAULT_CANDIDATES


def cut_windows(config: BaselineConfig, pairs: Sequence[ClipPair]) -> PairBatch:
    """The windows of drawn pairs, or for "multi-way" those of the runs around them, C * N.

    For "offsets" there are C video windows and the C * N sounds of the runs around them.
    """
    if config.method == "offsets":
        return cut_offsets(pairs, candidates_of(config))
    if config.method == "multi-way":
        count = candidates_of(config)
        pairs = [window for clip, pair in pairs for window in run_around(clip, pair.video_tick, count)]
    return cut_pairs(pairs, Reach())


def cut_offsets(pairs: Sequence[ClipPair], count: int) -> PairBatch:
    """C video windows, and for each the sounds of `count` windows around it; `labels` [C * N] tell its
    own."""
    videos = [(clip, Pair(pair.video_tick, pair.video_tick)) for clip, pair in pairs]
    sounds = [
        (clip, Pair(pair.video_tick, own.audio_tick))
        for clip, pair in pairs
        for _, own in run_around(clip, pair.video_tick, count)
    ]
    labels = torch.tensor([float(pair.in_sync) for _, pair in sounds])
    return replace(cut_pairs(videos, Reach()), mels=cut_sounds(sounds, Reach()), labels=labels)


def run_around(clip: LoadedClip, tick: int, count: int) -> list[ClipPair]:
    """`count` neighbouring windows of a clip with their own sounds, the tick's among them."""
    first, end = clip.run
    start = min(max(first, tick - count // 2), end - count)
    return [(clip, Pair(place, place)) for place in range(start, start + count)]
