"""Workers draw what the process itself would draw, in its order, wherever it is begun."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colour_cache import make_colour_cache
from recipes import PUBLISHED, make_recipe

from avsync_cli.errors import ConfigError
from training.data.shards import write_shards
from training.loops import baseline, distill
from training.loops.feed import WorkerFeed, make_feed
from training.loops.hasten import allow_tf32, hasten
from training.loops.loop import LAST
from training.loops.recipe_pairs import RecipeDraw, open_pairs
from training.networks.presets import make_network
from training.processes import Processes
from training.reach import Reach
from training.recipe import NetworkConfig, SpeedConfig
from training.weights.files import read_weights_file

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
PARTS = range(0, 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    cache = make_colour_cache(tmp_path_factory.mktemp("data") / "cache", clips=15)
    write_shards(cache, cache.with_name("shards"), clips_per_shard=4)
    return cache.with_name("shards")


def recipe_of(shards, **more):
    data = {"batch": 4, "micro_batches": 2, "epoch_pairs": None, "epochs": 3}
    return make_recipe(shards, network=PUBLISHED, data=data, **more)


def assert_same(one, other):
    for name in ("frames", "lips", "mels", "labels"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_workers_give_every_micro_batch_in_its_turn(shards):
    recipe = recipe_of(shards)
    source, _ = open_pairs(recipe, [], Reach())
    draw = RecipeDraw(recipe, Reach(), source)
    feed = make_feed(draw, SpeedConfig(workers=2), parts=PARTS, last_step=6, device=CPU)
    assert isinstance(feed, WorkerFeed)
    asked = [(step, part) for step in range(4) for part in PARTS]
    for place in [*asked, (1, 1), (2, 0)]:  # and back, as nothing forbids
        assert_same(feed.batch(*place), draw(*place))
    feed.close()


def test_what_keeps_a_worker_from_drawing_is_one_line(shards, tmp_path):
    recipe = recipe_of(shards)
    source, _ = open_pairs(recipe, [], Reach())
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    recipe = replace(recipe, cache=str(folder))
    for path in folder.glob("train-*.tar"):
        path.write_bytes(path.read_bytes()[:-2048] + bytes(2048) + b"x")
    draw = RecipeDraw(recipe, Reach(), source)
    feed = make_feed(draw, SpeedConfig(workers=1), parts=PARTS, last_step=6, device=CPU)
    with pytest.raises(ConfigError, match=r"train-\d+\.tar: damaged") as caught:
        feed.batch(0, 0)
    assert "\n" not in str(caught.value)
    feed.close()


def losses(run):
    with (run / "log.csv").open() as file:
        return [(row["step"], row["total"], row["norm"]) for row in csv.DictReader(file)]


def assert_same_weights(one, other, key):
    ours, theirs = (read_weights_file(run / LAST)[key] for run in (one, other))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_with_workers_goes_on_to_the_bit_and_so_without(shards, tmp_path):
    recipe = recipe_of(shards, checkpoint_every=1)
    fast = replace(recipe, speed=SpeedConfig(workers=2, prefetch=2))
    assert distill.train(recipe, tmp_path / "alone")
    assert distill.train(replace(fast, max_steps=3), tmp_path / "cut")
    # As if it had been stopped: the recipe is that of the whole.
    content = dict(read_weights_file(tmp_path / "cut" / LAST))
    content["recipe"] |= {"max_steps": None}
    torch.save(content, tmp_path / "cut" / LAST)
    assert distill.train(fast, tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "alone")
    assert_same_weights(tmp_path / "cut", tmp_path / "alone", "network")
    with (tmp_path / "cut" / "log.csv").open() as file:
        assert all(0 <= float(row["waited"]) <= float(row["seconds"]) for row in csv.DictReader(file))


def test_a_baseline_with_workers_is_the_same_too(shards, tmp_path):
    from test_baseline_run import small_config

    data = replace(small_config(shards, "offsets").data, epoch_pairs=None)
    config = replace(small_config(shards, "offsets"), data=data)
    for name, speed in (("alone", SpeedConfig()), ("helped", SpeedConfig(workers=1))):
        assert baseline.train(replace(config, speed=speed), tmp_path / name)
    assert losses(tmp_path / "alone") == losses(tmp_path / "helped")
    assert_same_weights(tmp_path / "alone", tmp_path / "helped", "network")


def test_workers_need_shards_and_something_to_do(shards, tmp_path):
    cache = shards.with_name("cache")
    with pytest.raises(ConfigError, match="workers need shards"):
        distill.train(recipe_of(cache, speed={"workers": 1}), tmp_path / "run")
    for speed, words in (({"workers": -1}, "workers is 0 or more"), ({"prefetch": 0}, "prefetch is 1")):
        with pytest.raises(ConfigError, match=words):
            recipe_of(shards, speed=speed)


@torch.no_grad()
def logits_of(network):
    """Of three pairs, always the same."""
    random = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (3, 5, 48, 96, 3), generator=random)
    mels = torch.randn(3, 80, 16, generator=random)
    tokens = network.encode_video(frames, torch.zeros(0)), network.encode_audio(mels)
    return network.relate(*tokens).logits


@pytest.mark.parametrize("speed", [{"channels_last": True}, {"tf32": True}])
def test_what_hastens_changes_roundings_alone(speed):
    torch.manual_seed(0)
    config = NetworkConfig("mtdvocalist", dims=PUBLISHED["dims"])
    network = make_network(config).eval()
    expected = logits_of(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    allow_tf32(SpeedConfig(**speed))
    try:
        hasten(network, SpeedConfig(**speed))
        found = logits_of(network)
    finally:
        allow_tf32(SpeedConfig())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    kernels = [p for p in network.parameters() if p.ndim == 5 and p.shape[1] > 1 and p.shape[2] > 1]
    last = [p.is_contiguous(memory_format=torch.channels_last_3d) for p in kernels]
    assert all(last) == bool(speed.get("channels_last"))


@pytest.mark.slow
@pytest.mark.repeats
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_networks_keep_their_names_and_numbers():
    torch.manual_seed(0)
    network = make_network(NetworkConfig("mtdvocalist", dims=PUBLISHED["dims"])).eval()
    names = list(network.state_dict())
    expected = logits_of(network)
    hasten(network, SpeedConfig(compile=True))
    assert list(network.state_dict()) == names
    torch.testing.assert_close(logits_of(network), expected, rtol=1e-4, atol=1e-5)


def torchrun(*words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [*command, "-m", "training", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    said = [line for line in told.stderr.splitlines() if line.startswith("error:")]
    assert told.returncode == 0, said or told.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("syncnet", marks=pytest.mark.repeats), "avst"])
def test_processes_share_a_baseline(shards, tmp_path, name):
    config = ROOT / "training" / "configs" / "fig2" / f"{name}.toml"
    words = ["baseline", config, "--cache", shards, "--smoke"]
    torchrun(*words, "-o", tmp_path / "shared", "--set", "speed.workers=1")
    rows = losses(tmp_path / "shared")
    assert [row[0] for row in rows] == ["1", "2"]
    assert (tmp_path / "shared" / "best.pt").exists()


def test_a_shared_step_is_the_mean_of_its_shares(shards):
    """What two processes do, one after the other in this one: the sums that they would exchange."""
    from test_baseline_run import small_config

    config = small_config(shards, "offsets")
    config = replace(config, data=replace(config.data, epoch_pairs=None, batch=4))
    trainers = [baseline.make_trainer(config, Halves(rank, 2)) for rank in range(2)]
    for trainer in trainers:
        baseline.take_step(trainer, 0)
    labels = [trainer.feed.batch(0, rank).labels for rank, trainer in enumerate(trainers)]
    assert [len(part) for part in labels] == [12, 12]
    whole = baseline.make_trainer(config).feed.batch(0, 0)
    assert torch.equal(torch.stack([part.view(2, 6) for part in labels], dim=1).flatten(), whole.labels)


class Halves(Processes):
    """One of two processes that does not wait for the other."""

    def add_up(self, tensors):
        pass
