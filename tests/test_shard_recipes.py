"""Recipes on shards and on RGB crops, as LRS2 is trained on."""

import csv

import pytest
import torch
from colour_cache import make_colour_cache
from recipes import PUBLISHED, STUDENT, make_recipe
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError
from training.data.cache import sha256_of
from training.data.shards import write_shards
from training.evaluation.evaluate import evaluate
from training.loops.distill import make_trainer, origin_of, snapshot, start, train
from training.loops.loop import BEST, LAST, Progressed
from training.loops.steps import take_step
from training.processes import Processes
from training.weights.recipe_checkpoint import save_recipe_checkpoint

PUBLISHED_WAY = {"network": PUBLISHED, "data": {"batch": 4, "epoch_pairs": None}}  # a pair of every clip


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    return make_colour_cache(tmp_path_factory.mktemp("colour") / "cache", clips=15)


@pytest.fixture(scope="module")
def shards(colour):
    write_shards(colour, colour.with_name("shards"), clips_per_shard=4)
    return colour.with_name("shards")


def losses(run):
    with (run / "log.csv").open() as file:
        return [(row["step"], row["total"], row["norm"]) for row in csv.DictReader(file)]


def test_a_run_on_shards_is_resumed_to_the_same_numbers(shards, tmp_path):
    recipe = make_recipe(shards, **PUBLISHED_WAY)
    assert train(recipe, tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 4  # 10 clips give 2 batches an epoch
    cut, _ = make_trainer(recipe, torch.device("cpu"), Processes())
    take_step(cut, 0)
    origin = origin_of(recipe) | start(cut)
    assert origin["cache_manifest_sha256"] == sha256_of(shards / "index.json")
    (tmp_path / "cut").mkdir()
    save_recipe_checkpoint(tmp_path / "cut" / LAST, snapshot(cut, Progressed(1), origin))
    assert train(recipe, tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")[1:]


def test_colour_is_for_the_published_networks(colour, tmp_path):
    recipe = make_recipe(colour, **PUBLISHED_WAY, max_steps=1)
    assert train(recipe, tmp_path)
    asked = {"corpus": None, "split": "val", "jobs": 1, "max_frames": 8, "clips": 1}
    assert evaluate(tmp_path / BEST, ["protocol"], cache=colour, **asked)["protocol"][0]["clips"] == 1
    with pytest.raises(ConfigError, match="a compact network takes grey ones"):
        train(make_recipe(colour, network=STUDENT), tmp_path / "compact")
    with pytest.raises(ConfigError, match="augment is made for grey ones"):
        train(make_recipe(colour, network=PUBLISHED, data={"augment": {}}), tmp_path / "augmented")
    with pytest.raises(ConfigError, match="needs the tool's own grey ones"):
        evaluate(None, ["protocol"], cache=colour, **asked)


def test_shards_are_drawn_from_once_an_epoch(tmp_path):
    write_shards(make_cache(tmp_path / "cache"), tmp_path / "shards", clips_per_shard=4)
    with pytest.raises(ConfigError, match="need clips in memory, not shards"):
        train(make_recipe(tmp_path / "shards"), tmp_path / "run")
