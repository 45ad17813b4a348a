"""A recipe's steps: they learn, change only what they should, and are validated as they should be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from recipes import MTD_RECIPE, PUBLISHED, make_recipe, trainer_of
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError
from training.config import from_table
from training.data.clips import load_clips
from training.data.pairs import ClipPairs, PairBatch
from training.loops.distill import make_trainer
from training.loops.recipe_pairs import RecipeDraw
from training.loops.steps import behave, take_step
from training.loops.validation import validate, watched_losses
from training.losses.relations import ALL_LAYERS, compare_layers
from training.networks.presets import make_network
from training.processes import Processes
from training.recipe import NetworkConfig


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


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
    trainer, draw = make_trainer(recipe, torch.device("cpu"), Processes())
    batches = draw(6)
    assert draw(2) is batches
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
    asked = []

    class Noting(ClipPairs):
        def pairs(self, epoch, indices):
            asked.append((epoch, list(indices)))
            return super().pairs(epoch, indices)

    recipe, reach = make_recipe(cache), trainer_of(make_recipe(cache)).reach
    clips = load_clips(cache, split="train")
    draw = RecipeDraw(recipe, reach, Noting(clips, recipe.data, seed=recipe.seed, reach=reach))
    for step in range(6):
        asked.clear()
        for part in range(2):
            draw(step, part)
        epochs, parts = zip(*asked, strict=True)
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
