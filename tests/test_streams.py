"""Pairs of streamed clips are those of the same clips in memory, whoever reads them and wherever from."""

from collections import Counter

import numpy as np
import pytest
import torch
from noise_clips import made_clip

from avsync_cli.errors import ConfigError
from training.pairs import ClipPairs, fixed_batches
from training.processes import Processes
from training.recipe import PairsConfig
from training.streams import StreamedPairs, fixed_stream_batches
from training.vocalist import Reach

BATCH, PARTS = 8, 4
NONE, COMPACT = Reach(0, 0), Reach(2, 6)


class CountingStream:
    """Clips in memory as a stream that counts what is read of it."""

    def __init__(self, clips):
        self.clips, self.reads = clips, Counter()
        self.clips_per_epoch = len(clips)

    def epoch(self, seed, epoch, *, skip=0, rank=0, world=1):
        order = np.random.default_rng((seed, epoch)).permutation(len(self.clips))
        for place in range(skip, len(order)):
            if place % world == rank:
                self.reads[epoch, place] += 1
                yield place, self.clips[order[place]]


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
        processes, stream = Processes(rank, world), CountingStream(clips)
        source = StreamedPairs(stream, PairsConfig(), seed=3, reach=NONE, processes=processes)
        assert source.epoch_pairs == memory.epoch_pairs == 26
        for epoch in range(2):
            for step in range(3):
                for part in processes.share(PARTS):
                    drawn = source.pairs(epoch, part_of(step, part))
                    assert names(drawn) == names(memory.pairs(epoch, part_of(step, part)))
        assert set(stream.reads.values()) == {1}
        assert {place % world for _, place in stream.reads} == {rank}


def test_a_resumed_stream_goes_on_without_reading_what_went_before(clips):
    memory, stream = ClipPairs(clips, PairsConfig(), seed=3, reach=NONE), CountingStream(clips)
    source = StreamedPairs(stream, PairsConfig(), seed=3, reach=NONE, processes=Processes())
    for step in (2, 1):  # forward to the step it stopped at, and back, which nothing forbids
        for part in range(PARTS):
            drawn = source.pairs(5, part_of(step, part))
            assert names(drawn) == names(memory.pairs(5, part_of(step, part)))
    assert min(place for _, place in stream.reads) == BATCH


def test_clips_that_give_no_pair_are_left_out(clips):
    mixed = CountingStream([made_clip(level=0.001), *clips[:3]])
    source = StreamedPairs(mixed, PairsConfig(), seed=0, reach=NONE, processes=Processes())
    assert len(source.pairs(0, range(4))) == 3
    silent = CountingStream([made_clip(level=0.001)])
    source = StreamedPairs(silent, PairsConfig(), seed=0, reach=NONE, processes=Processes())
    with pytest.raises(ConfigError, match="long and loud enough"):
        source.pairs(0, range(1))
    with pytest.raises(ConfigError, match="long and loud enough"):
        fixed_stream_batches(silent, 4, 2, seed=0, reach=NONE, negatives=15)
    with pytest.raises(ConfigError, match="need clips in memory"):
        StreamedPairs(mixed, PairsConfig(epoch_pairs=8), seed=0, reach=NONE, processes=Processes())


def test_fixed_pairs_of_a_stream_go_through_its_clips(clips):
    stream = CountingStream(clips[:3])
    batches = fixed_stream_batches(stream, 7, 4, seed=0, reach=COMPACT, negatives=15)
    assert [len(batch.labels) for batch in batches] == [4, 3]
    order = [clips[place] for place in np.random.default_rng((0, 0)).permutation(3)]
    expected = fixed_batches(order, 3, 4, seed=0, reach=COMPACT, negatives=15)[0]
    assert torch.equal(batches[0].frames[:3], expected.frames)
    assert torch.equal(batches[0].labels[:3], expected.labels)
