"""The recipes' loop: it learns, goes on to the same numbers, and changes only what it should."""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import COMPACT_DIMS, PUBLISHED, STUDENT, TEACHER, make_recipe
from synthetic_cache import make_cache
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError, ModelError
from training.__main__ import app
from training.config import as_table, from_table
from training.distill import (
    BEST,
    LAST,
    Progressed,
    make_trainer,
    origin_of,
    restore,
    snapshot,
    start,
    train,
    with_files,
)
from training.evaluate import evaluate
from training.networks import make_network
from training.observe import validate, watched_losses
from training.pairs import PairBatch
from training.processes import Processes
from training.recipe import NetworkConfig, Recipe
from training.recipe_checkpoint import RecipeCheckpoint, load_recipe_checkpoint, save_recipe_checkpoint
from training.relations import ALL_LAYERS, compare_layers
from training.shards import write_shards
from training.steps import behave, indices_of, take_step
from training.vocalist import MTDVOCALIST, VocaList

ROOT = Path(__file__).parents[1]
MTD_RECIPE = {
    "method": {"name": "MTD"},
    "optimiser": {"ema": 0.9, "schedule": "cosine", "clip_norm": 5.0, "name": "adamw"},
    "data": {"augment": {"blur": 0.5}},
    "validation": {"observe": ["MTD", "Last-MTD", "FitNets"], "every_steps": 2},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def teacher_weights(tmp_path_factory):
    """A teacher with random weights, as a recipe would have left it."""
    path = tmp_path_factory.mktemp("teacher") / BEST
    torch.manual_seed(9)
    network = make_network(from_table(NetworkConfig, TEACHER, where="test"))
    recipe = make_recipe(Path("cache"), network=TEACHER)
    save_recipe_checkpoint(path, RecipeCheckpoint(recipe, 1, network.state_dict(), {}, {"commit": "x"}))
    return path


@pytest.fixture
def teacher(teacher_weights):
    return TEACHER | {"weights": str(teacher_weights)}


def trainer_of(recipe):
    trainer, _ = make_trainer(recipe, torch.device("cpu"), Processes())
    return trainer


def rows(run, table="log.csv"):
    with (run / table).open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def copy_of(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize(
    "method",
    [
        {"name": "BCE"},
        {"name": "KD"},
        {"name": "RKD"},
        {"name": "MiniLM"},
        {"name": "FitNets"},
        {"name": "NMTD", "layers": ["F4", "VA1"]},
        {"name": "Last-MTD"},
        {"name": "MTD", "weighting": "AW-13D"},
    ],
    ids=lambda method: method["name"],
)
def test_every_method_steps_and_leaves_the_teacher_alone(cache, teacher, method):
    optimiser = {"clip_norm": 1.0}
    given = {} if method["name"] == "BCE" else {"teacher": teacher}
    trainer = trainer_of(make_recipe(cache, method=method, optimiser=optimiser, **given))
    student, learned = copy_of(trainer.student), copy_of(trainer.method)
    theirs = copy_of(trainer.teacher) if trainer.teacher else {}
    row = take_step(trainer, 0)
    assert {"epoch", "total", "bce", "rate", "norm", "seconds"} <= row.keys()
    now = trainer.student.state_dict()
    for key in ("fc.weight", "video_encoder.trunk.picture.0.norm.running_mean"):
        assert not torch.equal(now[key], student[key])
    for key, value in theirs.items():
        assert torch.equal(trainer.teacher.state_dict()[key], value), key
    # What a method learns itself is learned with the student: FitNets' projection, MTD's weights.
    parameters = [name for name, _ in trainer.method.named_parameters()]
    assert bool(parameters) == (method["name"] in ("FitNets", "MTD"))
    for name in parameters:
        assert not torch.equal(trainer.method.state_dict()[name], learned[name]), name


def test_a_few_dozen_steps_lower_the_loss(cache, teacher):
    optimiser = {"learning_rate": 3e-3}
    recipe = make_recipe(cache, teacher=teacher, method={"name": "NMTD"}, optimiser=optimiser)
    trainer = trainer_of(recipe)
    losses = [take_step(trainer, step)["total"] for step in range(24)]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


@pytest.mark.parametrize("name", ["MTD", "FitNets"])
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


def test_frozen_modules_do_not_change(cache):
    recipe = make_recipe(cache, freeze=["video_encoder.trunk", "audio_encoder"], optimiser={"ema": 0.5})
    trainer = trainer_of(recipe)
    before = copy_of(trainer.student)
    for step in range(3):
        take_step(trainer, step)
    for network in (trainer.student, trainer.average):
        for key, value in network.state_dict().items():
            if key.startswith(("video_encoder.trunk.", "audio_encoder.")):
                assert torch.equal(value, before[key]), key
    assert not torch.equal(
        trainer.student.video_encoder.project.linear.weight, before["video_encoder.project.linear.weight"]
    )
    everything = ["video_encoder", "audio_encoder", "av_transformer", "va_transformer", "mem_transformer"]
    with pytest.raises(ConfigError, match="leaves nothing to learn"):
        trainer_of(make_recipe(cache, freeze=[*everything, "fc", "classifier"]))


def test_students_of_one_seed_begin_alike_whatever_their_method(cache, teacher):
    plain = trainer_of(make_recipe(cache))
    hinted = trainer_of(make_recipe(cache, teacher=teacher, method={"name": "FitNets"}))
    for key, value in plain.student.state_dict().items():
        assert torch.equal(value, hinted.student.state_dict()[key]), key


def test_the_average_keeps_less_at_first(cache):
    """A tenth after the first step, two elevenths after the second, and never more than `ema`."""
    trainer = trainer_of(make_recipe(cache, optimiser={"ema": 0.15}))
    students = [copy_of(trainer.student)]
    for step in range(2):
        take_step(trainer, step)
        students.append(copy_of(trainer.student))
    average = trainer.average.state_dict()
    for key, value in average.items():
        first, second, third = (student[key] for student in students)
        if value.is_floating_point():
            expected = 0.15 * (0.1 * first + 0.9 * second) + 0.85 * third
            assert torch.allclose(value, expected, rtol=1e-5, atol=1e-7), key
        else:
            assert torch.equal(value, third), key
    key = "video_encoder.trunk.picture.0.norm.running_mean"  # the norms' statistics are averaged too
    assert not torch.equal(average[key], students[2][key])
    warm = trainer_of(make_recipe(cache, optimiser={"ema": 0.9}))
    students = [copy_of(warm.student)]
    for step in range(2):
        take_step(warm, step)
        students.append(copy_of(warm.student))
    first, second, third = (student["fc.weight"] for student in students)
    expected = (2 / 11) * (0.1 * first + 0.9 * second) + (9 / 11) * third
    assert torch.allclose(warm.average.state_dict()["fc.weight"], expected, rtol=1e-5, atol=1e-7)


def test_a_validation_is_that_of_all_pairs_at_once(cache, teacher):
    """Of the averaged weights, over batches of 4 and 3, against numbers worked out from the 7 pairs."""
    changes = {**MTD_RECIPE, "validation": MTD_RECIPE["validation"] | {"pairs": 7}}
    recipe = make_recipe(cache, teacher=teacher, **changes)
    trainer, batches = make_trainer(recipe, torch.device("cpu"), Processes())
    for step in range(2):
        take_step(trainer, step)
    row = validate(trainer, batches)
    assert [len(batch.labels) for batch in batches] == [4, 3]
    parts = ([getattr(b, name) for b in batches] for name in ("frames", "lips", "mels", "labels"))
    whole = PairBatch(*(torch.cat(part) for part in parts), batches[0].reach)
    with torch.no_grad():
        student = behave(trainer.average.eval(), whole)
        teacher_s = behave(trainer.teacher, whole)
        live = behave(trainer.student.eval(), whole)
    assert not torch.allclose(live.logits, student.logits, rtol=1e-3)
    chance, labels = student.logits.sigmoid().double(), whole.labels.double()
    bce = -(labels * chance.log() + (1 - labels) * (1 - chance).log()).mean().item()
    assert row["bce"] == pytest.approx(bce, rel=1e-4)
    said = student.logits > 0
    hits, wrong = (said & (whole.labels == 1)).sum().item(), (said != (whole.labels == 1)).sum().item()
    assert row["accuracy"] == pytest.approx(1 - wrong / 7)
    assert row["f1"] == pytest.approx(2 * hits / max(2 * hits + wrong, 1))

    found = compare_layers(student, teacher_s, layers=ALL_LAYERS)
    terms = [bce, *found.cad.tolist(), *found.vr.tolist()]
    weights = trainer.method.weights.tolist()
    assert max(abs(weight - 1) for weight in weights) > 1e-4
    mtd = sum(term / (2 * w**2) + math.log(1 + w**2) for term, w in zip(terms, weights, strict=True))
    assert row["observed/MTD"] == pytest.approx(mtd, rel=1e-4)
    last = compare_layers(student, teacher_s, layers=("F4",))
    last_mtd = bce + last.cad.item() + last.vr.item()
    assert row["observed/Last-MTD"] == pytest.approx(last_mtd, rel=1e-4)

    ours, theirs = (b.mem.output.double().numpy() for b in (student, teacher_s))
    ours = np.concatenate([ours, np.ones((*ours.shape[:2], 1))], axis=2)
    fitted, wanted = (tokens[0::2].reshape(-1, tokens.shape[2]) for tokens in (ours, theirs))
    ridge = math.sqrt(1e-3 * np.square(fitted).sum(axis=0).mean()) * np.eye(fitted.shape[1])
    nothing = np.zeros((fitted.shape[1], wanted.shape[1]))
    weights = np.linalg.lstsq(np.concatenate([fitted, ridge]), np.concatenate([wanted, nothing]))[0]
    hint = np.square(ours[1::2] @ weights - theirs[1::2]).mean()
    assert row["observed/FitNets"] == pytest.approx(bce + hint, rel=1e-4)


def test_watched_losses_are_where_the_training_is(cache, teacher):
    recipe = make_recipe(cache, teacher=teacher, validation={"observe": ["MTD", "Last-MTD"]})
    recipe = replace(recipe, method=replace(recipe.method, name="KD"))
    elsewhere = replace(trainer_of(recipe), device=torch.device("meta"))
    for name, loss in watched_losses(elsewhere).items():
        devices = {tensor.device.type for tensor in (*loss.buffers(), *loss.parameters())}
        assert devices == {"meta"}, name


def test_micro_batches_share_a_step_without_overlap(cache):
    trainer = trainer_of(make_recipe(cache))
    for step in range(6):
        epochs, parts = zip(*(indices_of(trainer, step, part) for part in range(2)), strict=True)
        assert epochs == (step // 3, step // 3)
        first = 8 * (step % 3)
        assert sorted([*parts[0], *parts[1]]) == list(range(first, first + 8))


def test_a_gradient_that_is_not_finite_is_refused(cache):
    trainer = trainer_of(make_recipe(cache, optimiser={"learning_rate": 1e30}))
    take_step(trainer, 0)
    with pytest.raises(ConfigError, match="step 1: the gradient is not finite"):
        take_step(trainer, 1)


def test_bf16_comes_close_to_fp32(cache, teacher):
    losses = []
    for precision in ("fp32", "bf16"):
        optimiser = {"precision": precision}
        recipe = make_recipe(cache, teacher=teacher, method={"name": "MTD"}, optimiser=optimiser)
        losses.append(take_step(trainer_of(recipe), 0)["total"])
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_published_networks_learn_from_each_other(cache, tmp_path):
    torch.manual_seed(3)
    theirs = PUBLISHED | {"dims": PUBLISHED["dims"] | {"width": 24, "channels": [4, 4, 8, 8, 24]}}
    network = make_network(from_table(NetworkConfig, theirs, where="test"))
    torch.save({"state_dict": network.net.state_dict()}, tmp_path / "authors.pth")
    recipe = make_recipe(
        cache,
        network=PUBLISHED,
        teacher=theirs | {"weights": str(tmp_path / "authors.pth")},
        method={"name": "MTD"},
        data={"batch": 4},
    )
    row = take_step(trainer_of(recipe), 0)
    assert row["cad_VA3"] > 0


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
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
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
@pytest.mark.parametrize("kind", ["cache", "shards"])
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
    _, told = process.communicate(timeout=300)
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
    assert "cannot be shared by 3 processes" in refused.communicate(timeout=300)[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_itself_and_goes_on(cache, tmp_path, number):
    recipe = make_recipe(cache, data={"epochs": 10}, network=STUDENT | {"dims": COMPACT_DIMS})
    config, run = toml_of(recipe, tmp_path / "recipe.toml"), tmp_path / "run"
    process = command_of(config, run)
    log = run / "log.csv"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "--resume goes on" in told
    done = load_recipe_checkpoint(run / LAST).step
    assert 0 < done < 30
    again = command_of(config, run, "--resume")
    _, told = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert [int(row["step"]) for row in rows(run)] == list(range(1, 31))
