"""What `reproduce` takes up of an earlier call: nothing of another setting, and no figures without a name."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from behaviours import STUDENT_WIDTH, TEACHER_WIDTH, made_up_behaviour
from recipes import STUDENT, make_recipe
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError
from training.evaluation.evaluate import evaluate, write_result
from training.loops.distill import train, with_files
from training.loops.loop import BEST
from training.losses.methods import make_method
from training.recipe import Recipe
from training.reproduction.reproduce import EXPERIMENTS, LISTS, read_experiments
from training.reproduction.resume import copy_figures, find_original, require_same_data, require_same_run
from training.reproduction.runs import METRICS, read_run
from training.smoke import shrink_recipe

ONE_STEP = {"max_steps": 1, "validation": {"pairs": 4}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("earlier") / "cache")


@pytest.fixture(scope="module")
def recipe(cache):
    return make_recipe(cache, name="first", label="BCE", experiment="Table 1", **ONE_STEP)


@pytest.fixture(scope="module")
def run(recipe, cache):
    """A run of one step that was measured."""
    folder = cache.with_name("first")
    assert train(recipe, folder)
    limits = {"max_frames": 8, "clips": 1}
    result = evaluate(folder / BEST, ["protocol"], cache=cache, corpus=None, split="val", jobs=1, **limits)
    write_result(folder / METRICS, result)
    return folder


def test_a_run_of_another_setting_is_refused(run, recipe, tmp_path):
    require_same_run(run, recipe)
    other = make_cache(tmp_path / "cache", seed=1)
    with pytest.raises(ConfigError, match="first: holds a run that differs in cache_manifest_sha256;"):
        require_same_run(run, replace(recipe, cache=str(other)))
    with pytest.raises(ConfigError, match="differs in seed, log_every;"):
        require_same_run(run, replace(recipe, seed=5, log_every=5))
    with pytest.raises(ConfigError, match="differs in network, data, validation, max_steps; use another"):
        require_same_run(run, shrink_recipe(recipe))
    with pytest.raises(ConfigError, match="differs in start_sha256;"):
        require_same_run(run, with_files(recipe, start=run / BEST))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config.json"):
        require_same_run(tmp_path / "empty", recipe)


def test_data_moved_with_their_runs_are_the_same(run, recipe, cache, tmp_path):
    (tmp_path / "cache").symlink_to(cache)
    require_same_run(run, replace(recipe, cache=str(tmp_path / "cache")))


def test_a_teacher_with_other_weights_is_another_setting(cache, run, tmp_path):
    taught = {"method": {"name": "KD"}, "teacher": STUDENT, **ONE_STEP}
    recipe = with_files(make_recipe(cache, **taught), teacher=run / BEST)
    assert train(recipe, tmp_path / "taught")
    require_same_run(tmp_path / "taught", recipe)
    assert train(make_recipe(cache, seed=1, **ONE_STEP), tmp_path / "teacher")
    with pytest.raises(ConfigError, match="taught: holds a run that differs in teacher_sha256;"):
        require_same_run(tmp_path / "taught", with_files(recipe, teacher=tmp_path / "teacher" / BEST))


def test_data_of_another_root_or_other_lists_are_refused(tmp_path):
    for root in (tmp_path / "one", tmp_path / "two"):
        root.mkdir()
        for name in LISTS:
            (root / name).write_text("SPEAKER/00001\n")
    output = tmp_path / "all"
    for _ in range(2):
        require_same_data(output, tmp_path / "one", LISTS)
    with pytest.raises(ConfigError, match=r"all: holds the data of .*one, not of .*two"):
        require_same_data(output, tmp_path / "two", LISTS)
    (tmp_path / "one" / "val.txt").write_text("SPEAKER/00002\n")
    with pytest.raises(ConfigError, match=r"made by another val\.txt"):
        require_same_data(output, tmp_path / "one", LISTS)
    (tmp_path / "old" / "cache").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"old: holds data without a data\.json"):
        require_same_data(tmp_path / "old", tmp_path / "one", LISTS)


def test_the_paper_s_runs_that_are_one_recipe():
    recipes = read_experiments(list(EXPERIMENTS), Path("shards"), Path("runs"), vocalist=None)
    originals = {recipe.name: find_original(recipe, recipes).name for recipe in recipes}
    copies = {name: original for name, original in originals.items() if name != original}
    assert copies == {
        "table1-mtd": "fig4-mtd",
        "fig3-uw-25d": "fig4-mtd",
        "table2-bce": "table1-bce",
        "table2-nmtd": "table1-minilm",
        "fig3-f4": "table1-minilm",
    }
    # What trains the same has the same loss, and what does not has another.
    behaviours = made_up_behaviour(STUDENT_WIDTH, seed=1), made_up_behaviour(TEACHER_WIDTH, seed=2)
    losses = {}
    for recipe in recipes:
        if isinstance(recipe, Recipe) and recipe.name != "vocalist":
            torch.manual_seed(0)  # of the projection that FitNets learns
            method = make_method(recipe.method, student_width=STUDENT_WIDTH, teacher_width=TEACHER_WIDTH)
            losses[recipe.name] = method(*behaviours, torch.tensor([1.0, 0.0, 1.0])).total.item()
    for name, original in copies.items():
        assert losses[name] == losses[original]
    assert Counter(originals.values())["vocalist"] == 1


def test_a_copy_has_the_figures_under_its_own_name(run, recipe):
    other = replace(recipe, name="second", label="Alone", experiment="Table 2")
    copy_figures(run, run.with_name("second"), other)
    require_same_run(run.with_name("second"), other)
    first, second = (read_run(run.with_name(name), group="all") for name in ("first", "second"))
    assert (second.label, second.experiment) == ("Alone", "Table 2")
    assert replace(second, folder=first.folder, label=first.label, experiment=first.experiment) == first
    metrics = json.loads((second.folder / METRICS).read_text())
    assert (metrics["name"], metrics["run_of"]) == ("second", "first")
    assert json.loads((second.folder / "config.json").read_text())["origin"]["run_of"] == "first"
    with pytest.raises(ConfigError, match="differs in name, experiment, label"):
        require_same_run(second.folder, recipe)
