"""`python -m training teacher` and `distill`: train a network by a recipe, resumably.

A run that goes on takes the same steps as one that was never stopped: to the bit on the CPU, with one number
of threads; on a GPU some sums are taken in any order, and their rounding differs from run to run.
`torchrun --nproc-per-node N -m training distill ...` shares a step's micro-batches among N processes.
"""

import copy
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avsync_cli.errors import ConfigError
from training.data.cache import sha256_of
from training.data.provenance import provenance_of
from training.data.sources import crop_of
from training.loops.feed import make_feed
from training.loops.hasten import allow_tf32, hasten
from training.loops.loop import Loop, Origin, Progressed, Validation, in_words, run_loop, steps_between
from training.loops.optimise import parameter_groups
from training.loops.recipe_pairs import DrawVal, RecipeDraw, open_pairs
from training.loops.steps import AnyNetwork, RecipeTrainer, take_step
from training.loops.validation import chosen_by, val_columns, validate
from training.losses.methods import make_method
from training.networks.presets import freeze, make_network, width_of
from training.processes import Processes, join_processes, pick_device
from training.reach import Reach
from training.recipe import NetworkConfig, Recipe
from training.weights.loading import load_exactly, load_fitting
from training.weights.recipe_checkpoint import (
    RecipeCheckpoint,
    load_recipe_checkpoint,
    save_recipe_checkpoint,
)

_OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def train(recipe: Recipe, run: Path, *, resume: bool = False, track: str | None = None) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    torch.set_num_threads(recipe.threads)
    device = pick_device(recipe.device)
    allow_tf32(recipe.speed)
    with join_processes(device, parts=recipe.data.micro_batches, what="micro_batches") as processes:
        trainer, draw_val = make_trainer(recipe, device, processes)
        with closing(trainer.feed):
            return run_loop(replace(make_loop(trainer, draw_val), track=track), run, resume=resume)


def make_loop(trainer: RecipeTrainer, draw_val: DrawVal) -> Loop:
    """What a recipe brings to the loop."""
    recipe, origin = trainer.recipe, origin_of(trainer.recipe)

    def judge(step: int) -> Validation:
        found = validate(trainer, draw_val(step))
        return Validation([found], in_words(found), found[chosen_by(recipe)])

    def save(path: Path, done: Progressed, origin: Origin, *, to_go_on: bool) -> None:
        save_recipe_checkpoint(path, snapshot(trainer, done, origin, to_go_on=to_go_on))

    return Loop(
        recipe.name,
        recipe,
        last_step=last_step(recipe, trainer.steps_per_epoch),
        validate_every=steps_between(recipe.validation, trainer.steps_per_epoch),
        take_step=partial(take_step, trainer),
        validate=judge,
        start=lambda: origin | start(trainer),
        restore=lambda path: restore(trainer, load_recipe_checkpoint(path), origin),
        save=save,
        val_columns=val_columns(recipe),
        device=trainer.device,
        processes=trainer.processes,
    )


def make_trainer(recipe: Recipe, device: torch.device, processes: Processes) -> tuple[RecipeTrainer, DrawVal]:
    """A trainer before its first step, with the student's initial weights, and what draws pairs to validate
    on.

    The student's weights depend on the seed alone, whatever method it is for.
    """
    torch.manual_seed(recipe.seed)
    student = make_network(recipe.network).to(device)
    frozen = freeze(student, recipe.freeze)
    teacher = None if recipe.teacher is None else load_teacher(recipe.teacher).to(device)
    teacher_width = width_of(student if teacher is None else teacher)
    method = make_method(recipe.method, student_width=width_of(student), teacher_width=teacher_width)
    learned = [p for p in (*student.parameters(), *method.to(device).parameters()) if p.requires_grad]
    if not learned:
        raise ConfigError("freeze: leaves nothing to learn")
    groups = parameter_groups(learned, weight_decay=recipe.optimiser.weight_decay)
    optimiser = _OPTIMISERS[recipe.optimiser.name](groups, lr=0.0)
    reach = wider(student.reach, Reach() if teacher is None else teacher.reach)
    average = copy.deepcopy(student).eval() if recipe.optimiser.ema is not None else None
    networks = [student, *([teacher] if teacher else [])]
    source, draw_val = open_pairs(recipe, networks, reach)
    feed = make_feed(
        RecipeDraw(recipe, reach, source),
        recipe.speed,
        parts=processes.share(recipe.data.micro_batches),
        last_step=last_step(recipe, source.epoch_pairs // recipe.data.batch),
        device=device,
    )
    for network in networks:
        hasten(network, recipe.speed)
    trainer = RecipeTrainer(
        recipe, source, student, teacher, method, average, optimiser, frozen, reach, device, processes, feed
    )
    return trainer, draw_val


def load_teacher(config: NetworkConfig) -> AnyNetwork:
    """A teacher with all its weights, which do not learn. Raises ConfigError or ModelError."""
    if config.weights is None:
        raise ConfigError("teacher: needs weights; set them in the recipe or give --teacher")
    teacher = make_network(config)
    load_exactly(teacher, Path(config.weights), config)
    return teacher.eval().requires_grad_(False)


def start(trainer: RecipeTrainer) -> dict[str, Any]:
    """Give the student the weights to start from, if there are any; returns what the origin says of them."""
    weights = trainer.recipe.network.weights
    if weights is None:
        return {"started": "", "start_sha256": ""}
    started = load_fitting(trainer.student, Path(weights))
    if trainer.average is not None:
        trainer.average.load_state_dict(trainer.student.state_dict())
    return {"started": started.describe(), "start_sha256": sha256_of(Path(weights))}


def restore(
    trainer: RecipeTrainer, checkpoint: RecipeCheckpoint, origin: dict[str, Any]
) -> tuple[Progressed, dict[str, Any]]:
    """Put a trainer where a checkpoint left off; returns how far that is, and the run's whole origin."""
    if without_paths(checkpoint.recipe) != without_paths(trainer.recipe):
        raise ConfigError("the checkpoint was made with another recipe")
    for key, what in (("cache_manifest_sha256", "cache"), ("teacher_sha256", "teacher")):
        if checkpoint.origin[key] != origin[key]:
            raise ConfigError(f"the checkpoint was made with another {what}")
    rest = checkpoint.rest
    trainer.student.load_state_dict(rest["student"])
    trainer.method.load_state_dict(rest["method"])
    trainer.optimiser.load_state_dict(rest["optimiser"])
    if trainer.average is not None:
        trainer.average.load_state_dict(checkpoint.network)
    begun = {key: checkpoint.origin[key] for key in ("started", "start_sha256")}
    return Progressed(checkpoint.step, rest["best_f1"]), origin | begun


def snapshot(
    trainer: RecipeTrainer, done: Progressed, origin: dict[str, Any], *, to_go_on: bool = True
) -> RecipeCheckpoint:
    rest: dict[str, Any] = {}
    if to_go_on:
        rest = {
            "student": trainer.student.state_dict(),
            "method": trainer.method.state_dict(),
            "optimiser": trainer.optimiser.state_dict(),
            "best_f1": done.best,
        }
    return RecipeCheckpoint(trainer.recipe, done.step, trainer.network.state_dict(), rest, origin)


def origin_of(recipe: Recipe) -> dict[str, Any]:
    """The commit, the hashes of the data and of the teacher, and what the data's crops are."""
    teacher = recipe.teacher.weights if recipe.teacher is not None else None
    folder = Path(recipe.cache)
    return provenance_of(folder) | {
        "crop": crop_of(folder),
        "teacher_sha256": sha256_of(Path(teacher)) if teacher else "",
    }


def with_files(
    recipe: Recipe, *, cache: Path | None = None, teacher: Path | None = None, start: Path | None = None
) -> Recipe:
    """The recipe with other files than its own. Raises ConfigError for a teacher that it does not have."""
    if cache is not None:
        recipe = replace(recipe, cache=str(cache))
    if start is not None:
        recipe = replace(recipe, network=replace(recipe.network, weights=str(start)))
    if teacher is not None:
        if recipe.teacher is None:
            raise ConfigError(f"{recipe.name}: has no teacher to take weights for")
        recipe = replace(recipe, teacher=replace(recipe.teacher, weights=str(teacher)))
    return recipe


def without_paths(recipe: Recipe) -> Recipe:
    """What of a recipe must not change when a run goes on; its files may lie elsewhere, and who draws may
    change."""
    teacher = None if recipe.teacher is None else replace(recipe.teacher, weights=None)
    network = replace(recipe.network, weights=None)
    return replace(recipe, cache="", network=network, teacher=teacher, speed=recipe.speed.of_any_machine())


def wider(one: Reach, other: Reach) -> Reach:
    """The reach that holds both."""
    return Reach(max(one.frames, other.frames), max(one.mel_steps, other.mel_steps))


def last_step(recipe: Recipe, steps_per_epoch: int) -> int:
    steps = recipe.data.epochs * steps_per_epoch
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)
