"""Pairs: inside their clips, as the paper draws them, and the same whenever they are asked for."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_clips import made_clip
from scipy.signal import lfilter
from scipy.stats import chi2_contingency, chisquare

from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack, mel_track
from avsync_cli.sound import Sound
from avsync_cli.timing import mel_step_at
from training.data.clips import LoadedClip
from training.data.loudness import window_rms
from training.data.pairs import (
    ClipPairs,
    Pair,
    cut_pairs,
    fixed_batches,
    fixed_pairs,
    make_drawable,
)
from training.data.shards import epoch_order
from training.data.sources import MemorySource
from training.reach import Reach
from training.recipe import PairsConfig

NONE = Reach(0, 0)
COMPACT = Reach(2, 6)


def numbered(clip):
    """The same clip, its mel replaced by the numbers of its steps."""
    steps = np.arange(len(clip.mel.mel), dtype=np.float32)[:, None].repeat(80, 1)
    mel = MelTrack(steps, clip.mel.origin_tick, clip.mel.first_tick, clip.mel.ticks)
    return LoadedClip(clip.entry, clip.crops, clip.lips, clip.first_tick, mel)


def numbered_by(clip, number):
    """The same clip with a number at its lips."""
    return replace(clip, lips=np.full((len(clip.crops), 40, 3), number, np.float16))


@settings(max_examples=40)
@given(
    frames=st.integers(1, 40),
    sounds=st.integers(3, 40),
    first_tick=st.integers(0, 6),
    sound_tick=st.integers(-6, 6),
    reach=st.sampled_from([NONE, COMPACT, Reach(1, 9)]),
    negatives=st.sampled_from([1, 15, "clip"]),
    seed=st.integers(0, 1000),
)
def test_pairs_lie_inside_their_clip_with_their_reach(
    frames, sounds, first_tick, sound_tick, reach, negatives, seed
):
    clip = made_clip(frames, sounds, first_tick=first_tick, sound_tick=sound_tick)
    drawable = make_drawable(clip, reach=reach, negatives=negatives)
    if drawable is None:
        return
    pair = drawable.draw(np.random.default_rng(seed))
    row = pair.video_tick - first_tick
    assert row - reach.frames >= 0
    assert row + 5 + reach.frames <= frames
    step = mel_step_at(pair.audio_tick - clip.mel.origin_tick)
    first_step = mel_step_at(sound_tick - clip.mel.origin_tick)
    assert first_step <= step - reach.mel_steps
    # A step's own samples end 200 after its middle: 3.2 steps to a frame of sound.
    assert step + 16 + reach.mel_steps <= first_step + 3.2 * sounds
    distance = abs(pair.video_tick - pair.audio_tick)
    assert distance == 0 if pair.in_sync else 1 <= distance <= (40 if negatives == "clip" else negatives)
    # What is cut out is whole: numpy shortens a slice that leaves its array without a word.
    batch = cut_pairs([(clip, pair)], reach)
    assert batch.frames.shape == (1, 5 + 2 * reach.frames, 48, 96)
    assert batch.mels.shape == (1, 80, 16 + 2 * reach.mel_steps)


def test_a_clip_too_short_for_a_negative_is_not_drawn_from():
    assert make_drawable(made_clip(6, 6), reach=NONE, negatives=15) is not None
    assert make_drawable(made_clip(6, 5), reach=NONE, negatives=15) is None
    assert make_drawable(made_clip(8, 40), reach=COMPACT, negatives=15) is None


@pytest.mark.parametrize("negatives", [1, 4, 15, "clip"])
def test_every_window_that_is_drawn_has_something_to_be_paired_with(negatives):
    level = np.random.default_rng(2).choice([0.001, 0.001, 0.1], 60).repeat(2)
    clip = made_clip(120, 120, level=level)
    drawable = make_drawable(clip, reach=NONE, negatives=negatives)
    partners = [len(drawable.others(tick)) for tick in range(116)]
    assert drawable.partners.tolist() == partners
    assert 0 not in partners or negatives in (1, 4)
    rng = np.random.default_rng(0)
    assert all(partners[drawable.draw(rng).video_tick] for _ in range(200))


PATCHY = np.where(np.arange(30) % 12 < 7, 0.001, 0.1)  # silent windows here and there


@pytest.mark.parametrize("negatives", [3, "clip"])
@pytest.mark.parametrize(
    "clip",
    [
        made_clip(20, 60, first_tick=25),
        made_clip(60, 20, sound_tick=7),
        made_clip(30, 30),
        made_clip(30, 30, level=PATCHY),
    ],
    ids=["face in the midst", "sound in the midst", "both", "both, patchy"],
)
def test_neither_picture_nor_sound_alone_tells_the_label(clip, negatives):
    """Which tick the picture is from, or the sound, depends on the clip but not on whether they agree."""
    drawable = make_drawable(clip, reach=NONE, negatives=negatives)
    rng = np.random.default_rng(0)
    pairs = [drawable.draw(rng) for _ in range(12_000)]
    labels = [pair.in_sync for pair in pairs]
    assert np.mean(labels) == pytest.approx(0.5, abs=0.025)  # five standard deviations
    for name in ("video_tick", "audio_tick"):
        ticks = [getattr(pair, name) for pair in pairs]
        assert {*ticks} <= {*range(*clip.run)}
        table = np.array([[ticks_of(pairs, name, label)[tick] for tick in {*ticks}] for label in (0, 1)])
        assert chi2_contingency(table).pvalue > 1e-4, name


def ticks_of(pairs, name, label):
    return Counter(getattr(pair, name) for pair in pairs if pair.in_sync == label)


def test_every_negative_that_is_allowed_is_as_likely_as_any_other():
    level = np.where(np.arange(12) < 8, 0.001, 0.1)
    drawable = make_drawable(made_clip(level=level, frames=12, sounds=12), reach=NONE, negatives=3)
    is_loud = [tick + 5 > 8 for tick in range(8)]  # a window with a loud frame in it
    allowed = [
        (v, a) for v in range(8) for a in range(8) if 1 <= abs(v - a) <= 3 and (is_loud[v] or is_loud[a])
    ]
    rng = np.random.default_rng(0)
    pairs = [drawable.draw(rng) for _ in range(10_000)]
    drawn = Counter((pair.video_tick, pair.audio_tick) for pair in pairs if not pair.in_sync)
    assert {*drawn} == {*allowed}
    assert chisquare([drawn[pair] for pair in allowed]).pvalue > 1e-4


def test_negatives_of_the_paper_lie_within_15_frames_and_of_the_code_anywhere():
    clip = made_clip(60, 60)
    near, far = (make_drawable(clip, reach=NONE, negatives=n) for n in (15, "clip"))
    assert set(near.others(30)) == {*range(15, 30), *range(31, 46)}
    assert set(near.others(2)) == {0, 1, *range(3, 18)}
    assert set(far.others(30)) == {*range(30), *range(31, 56)}


def test_the_negative_of_a_silent_window_is_not_silent():
    level = np.where(np.arange(40) < 20, 0.001, 0.1)
    drawable = make_drawable(made_clip(level=level), reach=NONE, negatives=15)
    loud_from = 16  # the first window with a loud frame in it
    assert all(min(drawable.others(tick)) == loud_from for tick in range(1, loud_from))
    assert min(drawable.others(20)) == 5  # the negative of a loud one may be silent
    # Window 0 has no loud one within 15 frames, so it is not drawn as a positive either.
    assert drawable.partners[:2].tolist() == [0, 1]
    assert make_drawable(made_clip(level=0.001), reach=NONE, negatives=15) is None


@pytest.mark.parametrize("pole", [0.0, 0.9])
@pytest.mark.parametrize("level", [0.003, 0.01, 0.3])
def test_rms_from_the_mel_is_that_of_the_samples(pole, level):
    noise = lfilter([1], [1, -pole], np.random.default_rng(0).standard_normal(32_000))
    samples = (level * noise / np.sqrt(np.mean(noise**2))).astype(np.float32)
    samples *= np.linspace(0.5, 1.5, len(samples), dtype=np.float32)
    mel = mel_track(Sound(samples, 0))
    ticks = np.arange(mel.first_tick, mel.first_tick + mel.ticks)
    true = [np.sqrt(np.mean(samples[640 * tick : 640 * tick + 3200] ** 2)) for tick in ticks]
    assert np.allclose(20 * np.log10(window_rms(mel, ticks) / true), 0, atol=1.0)


def test_cut_windows_belong_to_their_ticks():
    clip = numbered(made_clip(first_tick=3, sound_tick=1))
    batch = cut_pairs([(clip, Pair(10, 10)), (clip, Pair(10, 14))], COMPACT)
    assert batch.frames[0, :, 0, 0].tolist() == list(range(5, 14))  # tick 10 is frame 7, with 2 before it
    assert batch.lips[1, :, 0].tolist() == list(range(5, 14))
    start = mel_step_at(10 - 1)
    assert batch.mels[0, 0].tolist() == list(range(start - 6, start + 22))
    assert batch.mels[1, 79, 6] == mel_step_at(14 - 1)
    assert batch.labels.tolist() == [1.0, 0.0]
    narrow = cut_pairs([(clip, Pair(10, 10)), (clip, Pair(10, 14))], NONE)
    within = batch.within(NONE)
    assert torch.equal(within.frames, narrow.frames)
    assert torch.equal(within.lips, narrow.lips)
    assert torch.equal(within.mels, narrow.mels)


def make_source(clips, *, seed=0, **config):
    return ClipPairs(clips, PairsConfig(**config), seed=seed, reach=NONE)


def drawn(source, epoch, indices):
    return [(clip.entry.file, pair) for clip, pair in source.pairs(epoch, indices)]


def test_draws_depend_on_seed_epoch_and_index_alone():
    clips = [made_clip(name=str(number)) for number in range(7)]
    for config in ({}, {"epoch_pairs": 50}):
        source = make_source(clips, **config)
        whole = drawn(source, 3, range(7))
        assert [drawn(source, 3, [index])[0] for index in reversed(range(7))] == whole[::-1]
        assert drawn(make_source(clips, **config), 3, range(7)) == whole
        assert drawn(source, 4, range(7)) != whole
        assert drawn(make_source(clips, seed=1, **config), 3, range(7)) != whole


def test_an_epoch_as_published_takes_a_pair_of_every_clip():
    source = make_source([made_clip(name=str(number)) for number in range(7)] + [made_clip(4, 4)])
    assert source.epoch_pairs == 7
    orders = [[file for file, _ in drawn(source, epoch, range(7))] for epoch in range(5)]
    assert all(len(set(order)) == 7 for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_no_two_purposes_share_random_numbers(monkeypatch):
    """Every stream's first number, whatever it is for: numpy takes (1, 2) and (1, 2, 0) for the same seed."""
    seeds, make = set(), np.random.default_rng

    def noting(seed):
        seeds.add(seed)
        return make(seed)

    clips = [made_clip(name=str(number)) for number in range(3)]
    monkeypatch.setattr(np.random, "default_rng", noting)
    source = MemorySource(clips, "grey", "")
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        make_source(clips, seed=seed).pairs(epoch, range(3))
        epoch_order([3], seed=seed, epoch=epoch, buffer=2)
    list(fixed_pairs(source, 3, seed=0, reach=NONE, negatives=15))
    assert len({len(seed) for seed in seeds}) > 1
    firsts = [tuple(make(seed).integers(2**62, size=2)) for seed in seeds]
    assert len({*firsts}) == len(seeds) > 15


def test_domains_have_their_shares():
    clips = [
        made_clip(domain=d, name=str(n)) for d, count in (("a", 8), ("b", 1), ("c", 3)) for n in range(count)
    ]
    source = make_source(clips, epoch_pairs=1000, domains={"a": 1.0, "b": 3.0})
    counts = Counter(file[0] for file, _ in drawn(source, 0, range(1000)))
    assert counts["b"] == pytest.approx(750, abs=70)
    assert counts["a"] + counts["b"] == 1000
    with pytest.raises(ConfigError, match="domain 'd'"):
        make_source(clips, epoch_pairs=10, domains={"d": 1.0})


def test_fixed_pairs_are_the_same_at_every_call_and_spread_over_clips():
    clips = [made_clip(name=str(number)) for number in range(4)]
    clips[3] = replace(clips[3], entry=replace(clips[3].entry, machine_made=True))
    source = MemorySource([numbered_by(clip, number) for number, clip in enumerate(clips)], "grey", "")
    first, again, other = (
        fixed_batches(source, 10, 4, seed=seed, reach=COMPACT, negatives=15) for seed in (0, 0, 1)
    )
    assert [len(batch.labels) for batch in first] == [4, 4, 2]
    for one, same in zip(first, again, strict=True):
        assert torch.equal(one.frames, same.frames)
        assert torch.equal(one.mels, same.mels)
        assert torch.equal(one.labels, same.labels)
    assert not torch.equal(first[0].mels, other[0].mels)
    whose = [int(batch.lips[row, 0, 1]) for batch in first for row in range(len(batch.labels))]
    assert sorted(Counter(whose).values()) == [3, 3, 4]


def test_no_fixed_pairs_without_a_clip_to_draw_from():
    source = MemorySource([made_clip(level=0.001)], "grey", "")
    with pytest.raises(ConfigError, match="long and loud enough"):
        fixed_batches(source, 4, 2, seed=0, reach=NONE, negatives=15)
