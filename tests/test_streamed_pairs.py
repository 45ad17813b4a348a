"""Pairs of streamed clips are those of the same clips in memory, whoever reads them and wherever from."""

from collections import Counter

import pytest
from noise_clips import made_clip

from avsync_cli.errors import ConfigError
from training.data.pairs import ClipPairs
from training.data.sources import MemorySource
from training.data.streamed_pairs import StreamedPairs
from training.processes import Processes
from training.reach import Reach
from training.recipe import PairsConfig

BATCH, PARTS = 8, 4
NONE = Reach(0, 0)


class CountingSource(MemorySource):
    """Clips in memory that note which places of an epoch are looked at."""

    def __init__(self, clips):
        super().__init__(clips, "grey", "")
        object.__setattr__(self, "reads", Counter())

    def clip_at(self, seed, epoch, place):
        self.reads[epoch, place] += 1
        return super().clip_at(seed, epoch, place)


@pytest.fixture(scope="module")
def clips():
    return [made_clip(name=str(number)) for number in range(26)]


def part_of(step, part):
    return range(BATCH * step + part, BATCH * (step + 1), PARTS)


def names(pairs):
    return [(clip.entry.file, pair) for clip, pair in pairs]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_process_reads_its_own_pairs_once(clips, world):
    memory = ClipPairs(clips, PairsConfig(), seed=3, reach=NONE)
    for rank in range(world):
        processes, stream = Processes(rank, world), CountingSource(clips)
        source = StreamedPairs(stream, PairsConfig(), seed=3, reach=NONE)
        assert source.epoch_pairs == memory.epoch_pairs == 26
        for epoch in range(2):
            for step in range(3):
                for part in processes.share(PARTS):
                    drawn = source.pairs(epoch, part_of(step, part))
                    assert names(drawn) == names(memory.pairs(epoch, part_of(step, part)))
        assert set(stream.reads.values()) == {1}
        assert {place % world for _, place in stream.reads} == {rank}


def test_any_step_is_drawn_without_looking_at_another(clips):
    memory, stream = ClipPairs(clips, PairsConfig(), seed=3, reach=NONE), CountingSource(clips)
    source = StreamedPairs(stream, PairsConfig(), seed=3, reach=NONE)
    for step in (2, 1):
        for part in range(PARTS):
            drawn = source.pairs(5, part_of(step, part))
            assert names(drawn) == names(memory.pairs(5, part_of(step, part)))
    assert min(place for _, place in stream.reads) == BATCH


def test_clips_that_give_no_pair_are_left_out(clips):
    mixed = CountingSource([made_clip(level=0.001), *clips[:3]])
    source = StreamedPairs(mixed, PairsConfig(), seed=0, reach=NONE)
    assert len(source.pairs(0, range(4))) == 3
    silent = CountingSource([made_clip(level=0.001)])
    source = StreamedPairs(silent, PairsConfig(), seed=0, reach=NONE)
    with pytest.raises(ConfigError, match="long and loud enough"):
        source.pairs(0, range(1))
    with pytest.raises(ConfigError, match="need clips in memory"):
        StreamedPairs(mixed, PairsConfig(epoch_pairs=8), seed=0, reach=NONE)
