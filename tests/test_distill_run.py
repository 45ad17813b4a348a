"""A recipe's runs: what they leave, that they go on to the same numbers, and how they are evaluated."""

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes import COMPACT_DIMS, MTD_RECIPE, STUDENT, make_recipe, trainer_of
from synthetic_cache import make_cache
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError, ModelError
from training.__main__ import app
from training.config import as_table, from_table
from training.data.shards import write_shards
from training.evaluation.evaluate import evaluate
from training.loops.distill import make_trainer, origin_of, restore, snapshot, start, train, with_files
from training.loops.loop import BEST, LAST, Progressed
from training.loops.steps import take_step
from training.networks.vocalist import MTDVOCALIST, VocaList
from training.processes import Processes
from training.recipe import Recipe
from training.weights.recipe_checkpoint import (
    load_recipe_checkpoint,
    save_recipe_checkpoint,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def rows(run, table="log.csv"):
    with (run / table).open() as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("name", ["MTD", pytest.param("FitNets", marks=pytest.mark.repeats)])
def test_a_resumed_run_equals_an_uninterrupted_one(cache, teacher, tmp_path, name):
    recipe = make_recipe(cache, teacher=teacher, **MTD_RECIPE | {"method": {"name": name}})
    assert train(recipe, tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "whole")] == list("123456")
    cut, _ = make_trainer(recipe, torch.device("cpu"), Processes())
    for step in range(3):
        take_step(cut, step)
    origin = origin_of(recipe) | start(cut)
    (tmp_path / "cut").mkdir()
    # F1 after step 2 is unknown to this trainer: the run that goes on finds what it is given.
    save_recipe_checkpoint(tmp_path / "cut" / LAST, snapshot(cut, Progressed(3, 0.25), origin))
    assert train(recipe, tmp_path / "cut", resume=True)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")[3:]
    assert rows(tmp_path / "cut", "val.csv") == rows(tmp_path / "whole", "val.csv")[1:]
    whole, cut = (load_recipe_checkpoint(tmp_path / run / LAST) for run in ("whole", "cut"))
    for part, ours in (
        ("network", cut.network),
        ("student", cut.rest["student"]),
        ("method", cut.rest["method"]),
    ):
        theirs = whole.network if part == "network" else whole.rest[part]
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), (part, key)


def test_a_run_folder_holds_what_was_run(cache, teacher, tmp_path):
    recipe = make_recipe(cache, teacher=teacher, **MTD_RECIPE)
    assert train(recipe, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config.pop("origin")) == {
        "commit", "cache_manifest_sha256", "crop", "teacher_sha256", "started", "start_sha256"
    }  # fmt: skip
    assert from_table(Recipe, config, where="test") == recipe
    validations = rows(tmp_path, "val.csv")
    assert [row["step"] for row in validations] == ["2", "4", "6"]
    columns = [
        "step",
        "epoch",
        "f1",
        "accuracy",
        "bce",
        "observed/MTD",
        "observed/Last-MTD",
        "observed/FitNets",
    ]
    assert list(validations[0]) == columns
    best = load_recipe_checkpoint(tmp_path / BEST)
    f1 = {int(row["step"]): float(row["f1"]) for row in validations}
    assert f1[best.step] == max(f1.values())
    assert best.rest == {}
    assert load_recipe_checkpoint(tmp_path / LAST).rest["best_f1"] == pytest.approx(
        max(f1.values()), rel=1e-4
    )
    assert list((tmp_path / "tensorboard").iterdir())
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe, tmp_path)


def test_another_recipe_cache_or_teacher_is_refused_when_resuming(cache, teacher):
    recipe = make_recipe(cache, teacher=teacher, **MTD_RECIPE)
    trainer = trainer_of(recipe)
    origin = origin_of(recipe)
    saved = snapshot(trainer, Progressed(0), origin | start(trainer))
    elsewhere = replace(trainer, recipe=with_files(recipe, cache=Path("moved"), teacher=Path("moved.pt")))
    assert restore(elsewhere, saved, origin)[0] == Progressed(0)
    with pytest.raises(ConfigError, match="another recipe"):
        restore(replace(trainer, recipe=replace(recipe, seed=5)), saved, origin)
    for key, what in (("cache_manifest_sha256", "cache"), ("teacher_sha256", "teacher")):
        with pytest.raises(ConfigError, match=f"another {what}"):
            restore(trainer, saved, origin | {key: "other"})


def test_the_start_is_taken_and_told(cache, teacher_weights, tmp_path):
    recipe = make_recipe(cache, network=STUDENT | {"weights": str(teacher_weights)}, max_steps=1)
    trainer = trainer_of(recipe)
    told = start(trainer)["started"]
    # The teacher is wider: of its parts only what comes before the projections fits.
    assert "video_encoder.trunk" in told.partition("left at its initial value")[0]
    assert "video_encoder.project" in told.partition("left at its initial value")[2]
    theirs = load_recipe_checkpoint(teacher_weights).network
    key = "video_encoder.trunk.picture.0.convolution.weight"
    assert torch.equal(trainer.student.state_dict()[key], theirs[key])
    assert train(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["origin"]["started"] == told


def test_a_student_of_a_recipe_is_evaluated(cache, tmp_path):
    recipe = make_recipe(cache, experiment="Table 1", label="BCE", max_steps=1)
    assert train(recipe, tmp_path)
    result = evaluate(
        tmp_path / BEST, ["protocol"], cache=cache, corpus=None, split="val", jobs=1, max_frames=12, clips=1
    )
    facts = {"name": "tiny", "experiment": "Table 1", "label": "BCE", "network": "mtdvocalist-edge"}
    facts |= {"method": "BCE", "seed": 0, "steps": 1}
    assert facts.items() <= result.items()
    assert result["parameters"] == sum(p.numel() for p in trainer_of(recipe).student.parameters())
    groups = {row["group"]: row for row in result["protocol"]}
    assert groups["all"]["clips"] == 1
    assert set(groups["all"]["percent"]) == {"5", "7", "9", "11", "clip"}  # 12 frames hold no stretch of 13
    assert result["origin"]["cache_manifest_sha256"] == origin_of(recipe)["cache_manifest_sha256"]
    json.dumps(result)
    with pytest.raises(ConfigError, match="holds a mtdvocalist-edge, not a vocalist"):
        evaluate(
            tmp_path / BEST, ["protocol"], cache=cache, corpus=None, split="val", jobs=1, network="vocalist"
        )


@pytest.mark.slow
def test_authors_files_are_evaluated(cache, tmp_path):
    torch.manual_seed(0)
    weights = VocaList(MTDVOCALIST).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "pure.pth")
    asked = {"cache": cache, "corpus": None, "split": "val", "jobs": 1, "max_frames": 6, "clips": 1}
    with pytest.raises(ConfigError, match="say with --network whose weights it holds"):
        evaluate(tmp_path / "pure.pth", ["protocol"], **asked)
    result = evaluate(tmp_path / "pure.pth", ["protocol"], network="mtdvocalist", **asked)
    assert (result["name"], result["network"]) == ("pure", "mtdvocalist")
    assert round(result["parameters"] / 1e6, 3) == 13.281
    assert result["protocol"][0]["group"] == "all"
    with pytest.raises(ModelError, match=r"net\.vid_prenet\.0\S+ has shape .* but vocalist needs"):
        evaluate(tmp_path / "pure.pth", ["protocol"], network="vocalist", **asked)


def toml_of(recipe, path):
    """A recipe as a file: only what differs from the defaults' None, as TOML has no null."""

    def lines(table, name=""):
        plain = {k: v for k, v in table.items() if not isinstance(v, dict) and v is not None}
        yield from ([f"[{name}]"] if name else [])
        yield from (f"{key} = {json.dumps(value)}" for key, value in plain.items())
        for key, value in table.items():
            if isinstance(value, dict):
                yield from lines(value, f"{name}.{key}" if name else key)

    path.write_text("\n".join(lines(as_table(recipe))) + "\n")
    return path


def command_of(config, run, *options, processes=1):
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        if processes > 1
        else []
    )
    command = [sys.executable, *launcher, "-m", "training", "distill", str(config), "-o", str(run), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_micro_batches_are_taken_from_the_command_line(cache, tmp_path):
    recipe = make_recipe(cache, data={"micro_batches": 1}, max_steps=1)
    config = toml_of(recipe, tmp_path / "recipe.toml")
    for command, options in (("distill", []), ("teacher", ["--seed", "3"])):
        run = tmp_path / command
        words = [command, str(config), "-o", str(run), "--micro-batches", "4", *options]
        assert CliRunner().invoke(app, words).exit_code == 0
        made_with = load_recipe_checkpoint(run / LAST).recipe
        data = replace(recipe.data, micro_batches=4)
        assert made_with == replace(recipe, data=data, seed=3 if options else 0)
    refused = CliRunner().invoke(app, ["distill", str(config), "-o", "x", "--micro-batches", "3"])
    assert isinstance(refused.exception, ConfigError)
    for options in (["--micro-batches", "0"], ["--seed", "-1"]):
        assert CliRunner().invoke(app, ["distill", str(config), "-o", "x", *options]).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cache", pytest.param("shards", marks=pytest.mark.repeats)])
def test_two_processes_take_the_steps_of_one(cache, teacher, tmp_path, kind):
    data, folder = {"micro_batches": 1}, cache
    if kind == "shards":  # an epoch takes each of the 8 clips once
        folder = tmp_path / "shards"
        write_shards(make_cache(tmp_path / "cache", clips=12), folder, clips_per_shard=3)
        data |= {"epoch_pairs": None, "epochs": 3}
    recipe = make_recipe(folder, teacher=teacher, **MTD_RECIPE | {"data": data}, max_steps=3)
    config = toml_of(recipe, tmp_path / "recipe.toml")
    recipe = replace(recipe, data=replace(recipe.data, micro_batches=4))
    assert train(recipe, tmp_path / "one")
    process = command_of(config, tmp_path / "two", "--micro-batches", "4", processes=2)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == ["1", "2", "3"]
    for ours, theirs in zip(one, two, strict=True):
        for name, value in ours.items():
            assert float(theirs[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-5), name
    ones, twos = (load_recipe_checkpoint(tmp_path / run / LAST).rest["student"] for run in ("one", "two"))
    for key, value in ones.items():
        # A key's bias does nothing to attention: its gradient is rounding, which Adam makes as large as any.
        if not key.endswith("in_proj_bias"):
            assert torch.allclose(twos[key].float(), value.float(), atol=1e-5), key
    refused = command_of(config, tmp_path / "three", "--micro-batches", "4", processes=3)
    assert "cannot be shared by 3 processes" in refused.communicate(timeout=900)[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.repeats), signal.SIGTERM])
def test_an_interrupted_run_saves_itself_and_goes_on(cache, tmp_path, number):
    recipe = make_recipe(cache, data={"epochs": 10}, network=STUDENT | {"dims": COMPACT_DIMS})
    config, run = toml_of(recipe, tmp_path / "recipe.toml"), tmp_path / "run"
    process = command_of(config, run)
    log = run / "log.csv"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 130, told
    assert "--resume goes on" in told
    done = load_recipe_checkpoint(run / LAST).step
    assert 0 < done < 30
    again = command_of(config, run, "--resume")
    _, told = again.communicate(timeout=900)
    assert again.returncode == 0, told
    assert [int(row["step"]) for row in rows(run)] == list(range(1, 31))
