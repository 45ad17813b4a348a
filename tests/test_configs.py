"""The configurations that are shipped: each is read, says what its experiment says, and runs."""

import csv
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from behaviours import STUDENT_WIDTH, TEACHER_WIDTH, made_up_behaviour
from synthetic_cache import DOMAINS, make_cache
from typer.testing import CliRunner

from training.__main__ import app
from training.baseline_recipe import BaselineConfig, read_baseline
from training.config import MatchConfig, read_config
from training.losses.distillation import MTD
from training.losses.methods import make_method
from training.losses.relations import ALL_LAYERS
from training.recipe import PairsConfig, Recipe, RecipeOptimiser, read_recipe
from training.smoke import shrink_baseline, shrink_match, shrink_recipe
from training.tables import read_table

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
APART = ("base", "residual")  # read by others, or by a test of their own
PATHS = sorted(p for p in CONFIGS.glob("**/*.toml") if p.parent.name not in APART)
RECIPES = [path for path in PATHS if "[method]" in path.read_text()]
PAPER = [path for path in RECIPES if path.parent.name in ("table1", "table2", "fig3", "fig4")]
CORPUS = [path for path in RECIPES if path.parent.name == "corpus" and path.stem != "teacher"]
FIG3_LAYERS = [f"{encoder}{layer}" for encoder in ("F", "AV", "VA") for layer in (1, 2, 3, 4)]


def title(path):
    return str(path.relative_to(CONFIGS).with_suffix(""))


def command_of(path):
    """The command that a configuration is for."""
    table = read_table(path)
    if "method" not in table:
        return "match"
    if isinstance(table["method"], str):
        return "baseline"
    return "distill" if "teacher" in table else "teacher"


def read(path):
    readers = {"match": read_config, "baseline": read_baseline}
    return readers.get(command_of(path), read_recipe)(path)


def shrink(config: Recipe | BaselineConfig | MatchConfig):
    shrinkers = {Recipe: shrink_recipe, BaselineConfig: shrink_baseline, MatchConfig: shrink_match}
    return shrinkers[type(config)](config)


def loss_of(path):
    """The configuration's method, and its loss of made-up behaviours."""
    method = make_method(read(path).method, student_width=STUDENT_WIDTH, teacher_width=TEACHER_WIDTH)
    student = made_up_behaviour(STUDENT_WIDTH, seed=1)
    teacher = made_up_behaviour(TEACHER_WIDTH, seed=2)
    return method, method(student, teacher, torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("path", PATHS, ids=title)
def test_it_is_read_and_its_loss_is_made(path):
    config = read(path)
    assert config.cache == "cache"
    if path in RECIPES:
        _, loss = loss_of(path)
        loss.total.backward()
        assert loss.total.isfinite()
        assert "bce" in loss.parts


def test_every_run_has_a_folder_of_its_own():
    named = {read(path).name: path for path in PATHS if command_of(path) != "match"}
    assert len(named) == sum(command_of(path) != "match" for path in PATHS)
    assert all(name in (title(path).replace("/", "-"), path.stem) for name, path in named.items())


@pytest.mark.parametrize(
    ("folder", "labels"),
    [
        ("table1", ["BCE", "KD", "RKD", "MiniLM*", "FitNets", "MTD"]),
        ("table2", ["BCE", "NMTD w/o VR", "NMTD w/o CAD", "NMTD"]),
        ("fig2", ["SyncNet", "Perfect Match", "AVST"]),
        ("fig3", [*FIG3_LAYERS, "Uniform", "AW-13D", "AW-25D", "UW-13D", "UW-25D"]),
        ("fig4", ["MTD"]),
        ("corpus", ["VocaLiST compact", "BCE", "KD", "RKD", "MiniLM*", "FitNets", "MTD"]),
    ],
)
def test_every_row_and_bar_of_an_experiment_is_there(folder, labels):
    found = [read(path) for path in PATHS if path.parent.name == folder]
    assert sorted(config.label for config in found) == sorted(labels)
    assert len({config.experiment for config in found}) == 1


@pytest.mark.parametrize("path", PAPER, ids=title)
def test_the_paper_s_setting(path):
    """Section 4.1 and the published code: Adam 5e-5, batch 128, 80 epochs, 10 of warm-up, x0.8 every 20."""
    recipe = read(path)
    optimiser = recipe.optimiser
    assert (recipe.network.preset, recipe.network.weights) == ("mtdvocalist", None)
    assert (recipe.data.batch, recipe.data.epochs, recipe.data.negatives) == (128, 80, 15)
    assert recipe.data == PairsConfig()
    assert (optimiser.name, optimiser.learning_rate, optimiser.warm_up) == ("adam", 5e-5, 10)
    assert (optimiser.schedule, optimiser.decay, optimiser.decay_every) == ("step", None, None)
    assert (optimiser.clip_norm is not None) == recipe.label.startswith("AW")
    assert replace(optimiser, clip_norm=None) == RecipeOptimiser()
    if recipe.teacher is not None:
        assert (recipe.teacher.preset, recipe.teacher.pixels) == ("vocalist", "rgb255")
        assert recipe.teacher.weights == f"runs/{read(CONFIGS / 'teacher' / 'vocalist.toml').name}/best.pt"


@pytest.mark.parametrize("label", FIG3_LAYERS)
def test_a_single_layer_is_compared_and_no_other(label):
    _, loss = loss_of(CONFIGS / "fig3" / f"{label.lower()}.toml")
    assert loss.parts.keys() == {"bce", f"cad_{label}", f"vr_{label}"}
    torch.testing.assert_close(loss.total.detach(), sum(loss.parts.values()))


@pytest.mark.parametrize(
    ("name", "kept"),
    [("bce", []), ("no-vr", ["cad_F4"]), ("no-cad", ["vr_F4"]), ("nmtd", ["cad_F4", "vr_F4"])],
)
def test_table_2_leaves_out_what_its_rows_say(name, kept):
    _, loss = loss_of(CONFIGS / "table2" / f"{name}.toml")
    expected = loss.parts["bce"] + sum(loss.parts[part] for part in kept)
    torch.testing.assert_close(loss.total.detach(), expected)


@pytest.mark.parametrize("label", ["UW-13D", "UW-25D", "AW-13D", "AW-25D"])
def test_all_layers_are_weighed_with_as_many_weights_as_the_bar_says(label):
    method, loss = loss_of(CONFIGS / "fig3" / f"{label.lower()}.toml")
    assert isinstance(method, MTD)
    assert (method.weighting, len(method.weights)) == (label, int(label[3:5]))
    assert loss.parts.keys() == {
        "bce",
        *(f"{map_}_{layer}" for map_ in ("cad", "vr") for layer in ALL_LAYERS),
    }


def test_fig_4_watches_what_it_shows():
    recipe = read(CONFIGS / "fig4" / "mtd.toml")
    assert recipe.validation.observe == ("MTD", "Last-MTD", "FitNets", "FitNets-published")
    assert recipe.method == read(CONFIGS / "table1" / "mtd.toml").method


def test_on_the_corpus_methods_differ_in_nothing_but_the_method():
    recipes = [read(path) for path in CORPUS]
    # What is observed besides changes nothing.
    recipes = [replace(r, validation=replace(r.validation, observe=())) for r in recipes]
    assert len(recipes) == 6
    aside = {"name", "label", "method", "teacher"}
    same = {entry.name for entry in fields(Recipe)} - aside
    assert all(getattr(recipe, key) == getattr(recipes[0], key) for recipe in recipes for key in same)
    teachers = {recipe.teacher.weights for recipe in recipes if recipe.teacher is not None}
    assert teachers == {f"runs/{read(CONFIGS / 'corpus' / 'teacher.toml').name}/best.pt"}


@pytest.mark.parametrize("path", PATHS, ids=title)
def test_smoke_shrinks_what_a_run_costs_and_nothing_else(path):
    config = read(path)
    small = shrink(config)
    shrunk = {"network", "teacher", "data", "validation", "candidates", "threads", "log_every", "max_steps"}
    if isinstance(config, MatchConfig):
        shrunk = {
            "steps",
            "end_at",
            "start",
            "threads",
            "log_every",
            "validate_every",
            "validate_frames",
            "data",
            "model",
        }
    for entry in fields(config):
        before, after = getattr(config, entry.name), getattr(small, entry.name)
        assert after == before or entry.name in shrunk, entry.name
    if not isinstance(config, MatchConfig):
        assert small.validation.observe == config.validation.observe
        kept = ("negatives", "domains", "augment", "micro_batches")
        assert all(getattr(small.data, key) == getattr(config.data, key) for key in kept)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def folder_of(path):
    """The run folder where other configurations look for it."""
    return Path("runs") / getattr(read(path), "name", path.stem)


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.repeats
@pytest.mark.slow
def test_every_configuration_runs_through_its_command_and_into_the_comparison(tmp_path, monkeypatch):
    """As a user would: teachers first, then all others, their evaluation, and the comparison."""
    monkeypatch.chdir(tmp_path)
    make_cache(Path("cache"), clips=12, frames=46, domains=DOMAINS)
    recipes = [path for path in PATHS if command_of(path) != "match"]
    for path in sorted(PATHS, key=lambda path: (command_of(path) != "teacher", path)):
        run(command_of(path), path, "-o", folder_of(path), "--smoke")
    for path in recipes:
        folder = folder_of(path)
        assert [row["step"] for row in rows_of(folder / "log.csv")] == ["1", "2"]
        assert [row["step"] for row in rows_of(folder / "val.csv")] == ["1", "2"]
        assert json.loads((folder / "config.json").read_text())["label"] == read(path).label
    shown = [path for path in recipes if path.parent.name in ("table1", "fig2", "fig4", "teacher")]
    for path in shown:
        folder = folder_of(path)
        limits = ("--max-frames", 20, "--clips", 2)
        options = ("--measures", "protocol", "--cache", "cache", *limits, "-o", folder / "metrics.json")
        run("evaluate", "--student", folder / "best.pt", *options)
    run("compare", *shown, "-o", "comparison", "--published")
    text = Path("comparison/comparison.md").read_text()
    assert "Left out" not in text
    assert "Beware" not in text
    assert all(f"| {read(path).label} | {read(path).experiment} |" in text for path in shown)
    assert sorted(path.name for path in Path("comparison").glob("*.png")) == [
        "fig2.png",
        "fig3.png",
        "fig4.png",
    ]
