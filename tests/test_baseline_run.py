"""Runs of the baselines: exact when resumed, judged by what they say, better than chance after a while."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from colour_cache import make_colour_cache
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError
from avsync_cli.spec import RANGE_FRAMES
from training.baseline_recipe import BaselineConfig
from training.config import AugmentConfig, as_table, from_table
from training.data.clips import load_clips
from training.data.pairs import fixed_pairs
from training.data.provenance import provenance_of
from training.data.shards import write_shards
from training.data.sources import open_source
from training.evaluation.evaluate import evaluate
from training.evaluation.score_clips import score_clip
from training.evaluation.torch_encoders import two_stream_encoders
from training.loops.baseline import make_trainer, snapshot, take_step, train, validate
from training.loops.baseline_pairs import run_around
from training.reach import Reach
from training.recipe import PairsConfig, RecipeOptimiser, ValidationConfig
from training.weights.baseline_checkpoint import baseline_net, load_baseline, save_baseline

METHODS = ("contrastive", "multi-way", "offsets")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"), clips=9, frames=40)


def small_config(cache, method):
    return BaselineConfig(
        name="small",
        cache=str(cache),
        method=method,
        network="avst-small" if method == "offsets" else "two-stream-small",
        candidates=None if method == "contrastive" else 6,
        optimiser=RecipeOptimiser(learning_rate=1e-3, warm_up=0.0),
        data=PairsConfig(batch=2, epochs=2, epoch_pairs=4),
        validation=ValidationConfig(pairs=10),
        threads=1,
        log_every=1,
    )


def losses(run):
    with (run / "log.csv").open() as file:
        return [(row["step"], row["epoch"], row["total"], row["norm"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(cache, tmp_path, method):
    config, origin = small_config(cache, method), provenance_of(cache)
    assert train(config, tmp_path / "whole")
    trainer = make_trainer(config)
    for step in range(2):
        take_step(trainer, step)
    rest = {"optimiser": trainer.optimiser.state_dict(), "best": 2.0}
    (tmp_path / "cut").mkdir()
    save_baseline(tmp_path / "cut" / "last.pt", snapshot(trainer, 2, rest, origin))
    assert train(config, tmp_path / "cut", resume=True)
    assert [row[:2] for row in losses(tmp_path / "whole")] == [("1", "0"), ("2", "0"), ("3", "1"), ("4", "1")]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")[2:]
    whole, cut = (load_baseline(tmp_path / run / "last.pt") for run in ("whole", "cut"))
    for name, value in whole.network.items():
        assert torch.equal(value, cut.network[name]), name
    assert not (tmp_path / "cut" / "best.pt").exists()  # nothing was better than the best so far
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config, tmp_path / "whole")
    with pytest.raises(ConfigError, match="another configuration"):
        train(replace(config, seed=7), tmp_path / "cut", resume=True)


def test_colour_is_trained_on_and_evaluated(tmp_path):
    colour = make_colour_cache(tmp_path / "cache", clips=6)
    assert train(replace(small_config(colour, "contrastive"), max_steps=1), tmp_path / "run")
    asked = {"corpus": None, "split": "val", "jobs": 1, "max_frames": 8, "clips": 1}
    result = evaluate(tmp_path / "run" / "best.pt", ["protocol"], cache=colour, **asked)
    assert result["protocol"][0]["clips"] == 1
    assert result["network"] == "two-stream-small"


@pytest.mark.parametrize("method", METHODS)
def test_shards_are_trained_on_and_resumed_too(cache, tmp_path, method):
    write_shards(cache, tmp_path / "shards", clips_per_shard=4)
    data = PairsConfig(batch=2, epochs=2)
    config = replace(small_config(tmp_path / "shards", method), data=data, checkpoint_every=1)
    assert train(config, tmp_path / "whole")
    rows = losses(tmp_path / "whole")
    assert [row[1] for row in rows] == ["0", "0", "0", "1", "1", "1"]  # six clips, each once an epoch
    trainer, origin = make_trainer(config), provenance_of(tmp_path / "shards")
    for step in range(4):
        take_step(trainer, step)
    rest = {"optimiser": trainer.optimiser.state_dict(), "best": 0.0}
    (tmp_path / "cut").mkdir()
    save_baseline(tmp_path / "cut" / "last.pt", snapshot(trainer, 4, rest, origin))
    assert train(config, tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == rows[4:]


def test_f1_is_that_of_pairs_nearer_than_half_the_margin(cache):
    trainer = make_trainer(replace(small_config(cache, "contrastive"), margin=4.9))
    trainer.net.eval()
    hits = misses = alarms = 0
    source = open_source(cache, split="val", min_windows=2)
    pairs = list(fixed_pairs(source, 10, seed=0, reach=Reach(), negatives=15))
    for clip, pair in pairs:
        row = pair.video_tick - clip.first_tick
        with torch.no_grad():
            video = trainer.net.encode_video(torch.from_numpy(clip.crops[None, row : row + 5]))
            audio = trainer.net.encode_audio(
                torch.from_numpy(clip.mel.windows(np.array([pair.audio_tick]))).float()
            )
        is_near = torch.dist(video, audio).item() < 4.9 / 2
        hits += is_near and pair.in_sync
        alarms += is_near and not pair.in_sync
        misses += pair.in_sync and not is_near
    figures = validate(trainer)
    assert 0 < hits + misses < len(pairs) == 10
    assert figures["f1"] == pytest.approx(2 * hits / max(1, 2 * hits + alarms + misses))
    assert figures["accuracy"] == pytest.approx(1 - (alarms + misses) / 10)
    assert validate(trainer) == figures


def test_candidates_are_neighbours_with_their_own_sounds(cache):
    for clip in load_clips(cache, split="train"):
        first, end = clip.run
        for tick in range(first, end):
            ticks = [pair.video_tick for _, pair in run_around(clip, tick, 6)]
            assert ticks == list(range(ticks[0], ticks[0] + 6))
            assert first <= ticks[0] <= tick <= ticks[-1] < end
            assert all(pair.in_sync for _, pair in run_around(clip, tick, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "batch", "chance"),
    [
        ("contrastive", 48, 0.5),
        ("multi-way", 8, 1 / 6),
        pytest.param("offsets", 16, 1 / 6, marks=pytest.mark.repeats),
    ],
)
def test_it_learns_what_can_be_seen(cache, method, batch, chance):
    """Mouths open as wide as their sound is loud; the val clips were never trained on."""
    data = PairsConfig(batch=batch, epochs=10, epoch_pairs=12 * batch)
    config = replace(small_config(cache, method), data=data, validation=ValidationConfig(pairs=60))
    trainer = make_trainer(config)
    for step in range(120):
        take_step(trainer, step)
    assert validate(trainer)["accuracy"] > 1.4 * chance


def test_the_protocol_s_scores_are_the_distances(cache, tmp_path):
    config = small_config(cache, "multi-way")
    train(config, tmp_path)
    net = baseline_net(load_baseline(tmp_path / "best.pt"))
    clip = load_clips(cache, split="val")[0]
    scores = score_clip(clip, two_stream_encoders(net))
    sound = torch.from_numpy(clip.mel.windows().astype(np.float32))
    with torch.no_grad():
        for row in (0, 7, 20):
            video = net.encode_video(torch.from_numpy(clip.crops[None, row : row + 5]))
            audio = net.encode_audio(sound[clip.first_tick + row - clip.mel.first_tick][None])
            assert scores[row, RANGE_FRAMES] == pytest.approx(-torch.dist(video, audio).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"margin": 1.0, "method": "multi-way"}, "multi-way: has no use for 'margin'"),
        ({"candidates": 5}, "contrastive: has no use for 'candidates'"),
        ({"method": "multi-way", "data": PairsConfig(negatives="clip")}, "has no use for 'negatives'"),
        ({"data": PairsConfig(micro_batches=2)}, "has no use for 'micro_batches'"),
        ({"data": PairsConfig(augment=AugmentConfig())}, "has no use for 'augment'"),
        ({"optimiser": RecipeOptimiser(ema=0.9)}, "has no use for 'ema'"),
        ({"validation": ValidationConfig(observe=("MTD",))}, "has no use for 'observe'"),
        ({"max_steps": 0}, "max_steps is 1 or more"),
        ({"seed": -1}, "seed is 0 or more"),
        ({"threads": 0}, "threads is 1 or more"),
        ({"candidates": 1, "method": "multi-way"}, "candidates is 2 or more"),
        ({"margin": 0.0}, "margin is more than 0"),
        ({"network": "vocalist"}, "network 'vocalist' is not one of two-stream"),
        ({"method": "offsets"}, "offsets: network 'two-stream' is not one of avst"),
        ({"network": "avst"}, "contrastive: network 'avst' is not one of two-stream"),
    ],
)
def test_what_a_baseline_has_no_use_for_or_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        BaselineConfig(**({"name": "x", "cache": "cache", "method": "contrastive"} | changes))


def test_too_many_candidates_are_refused_and_tables_survive(cache):
    config = small_config(cache, "multi-way")
    assert from_table(BaselineConfig, as_table(config), where="test") == config
    with pytest.raises(ConfigError, match="no clip of the split 'train' has 50 windows"):
        make_trainer(replace(config, candidates=50))
