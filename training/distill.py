"""`python -m training teacher` and `distill`: train a network by a recipe, resumably.

A run that goes on takes the same steps as one that was never stopped: to the bit on the CPU, with one number
of threads; on a GPU some sums are taken in any order, and their rounding differs from run to run.
`torchrun --nproc-per-node N -m training distill ...` shares a step's micro-batches among N processes.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from avsync_cli.errors import ConfigError
from avsync_cli.spec import MEL_STEPS_PER_SECOND, VIDEO_FPS
from training.cache import GREY, sha256_of
from training.compact import CompactNet
from training.config import as_table
from training.journal import Table, provenance_of, stop_requests
from training.methods import make_method
from training.networks import freeze, load_exactly, load_fitting, make_network, width_of
from training.observe import val_columns, validate
from training.optimise import parameter_groups
from training.pairs import ClipPairs, PairBatch, fixed_batches
from training.processes import Processes, join_processes, pick_device
from training.progress import Progress
from training.recipe import NetworkConfig, Recipe
from training.recipe_checkpoint import RecipeCheckpoint, load_recipe_checkpoint, save_recipe_checkpoint
from training.sources import MemorySource, crop_of, open_source
from training.steps import AnyNetwork, PairSource, Trainer, take_step
from training.streams import StreamedPairs
from training.vocalist import Reach

LAST, BEST = "last.pt", "best.pt"
_OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Progressed:
    """How far a run is: steps done, and the best F1 so far (-1 before the first)."""

    step: int = 0
    best_f1: float = -1.0


def train(recipe: Recipe, run: Path, *, resume: bool = False) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    torch.set_num_threads(recipe.threads)
    device = pick_device(recipe.device)
    if not resume and (run / LAST).exists():
        raise ConfigError(f"{run}: already holds a run; give --resume or another folder")
    with join_processes(device, parts=recipe.data.micro_batches) as processes:
        trainer, val_batches = make_trainer(recipe, device, processes)
        origin = origin_of(recipe)
        if resume:
            done, origin = restore(trainer, load_recipe_checkpoint(run / LAST), origin)
        else:
            done, origin = Progressed(), origin | start(trainer)
        return run_steps(trainer, val_batches, run, done, origin)


def run_steps(
    trainer: Trainer,
    val_batches: list[PairBatch],
    run: Path,
    done: Progressed,
    origin: dict[str, Any],
) -> bool:
    """The loop; every process steps, the first one alone validates and writes."""
    recipe, processes = trainer.recipe, trainer.processes
    last = last_step(trainer)
    with (
        open_folder(run, trainer, done, origin) as folder,
        Progress(recipe.name, last, unit="steps", done=done.step, quiet=folder is None) as progress,
        stop_requests() as stop,
    ):
        if done.step == 0 and origin["started"]:
            progress.note(origin["started"])
        while done.step < last and not processes.any_of(bool(stop), trainer.device):
            row = take_step(trainer, done.step)
            done = replace(done, step=done.step + 1)
            progress.advance(1, text=f"loss {row['total']:.3f}, {row['seconds'] * 1000:.0f} ms a step")
            if folder is None:
                continue
            if done.step % recipe.log_every == 0 or done.step == last:
                folder.add_step({"step": done.step, **row})
            if is_validated(trainer, done.step):
                found = validate(trainer, val_batches)
                folder.add_validation({"step": done.step, "epoch": row["epoch"], **found})
                progress.note(describe(found, done.step))
                if found["f1"] > done.best_f1:
                    done = replace(done, best_f1=found["f1"])
                    save_recipe_checkpoint(run / BEST, snapshot(trainer, done, origin, to_go_on=False))
            if done.step % recipe.checkpoint_every == 0 or done.step == last:
                save_recipe_checkpoint(run / LAST, snapshot(trainer, done, origin))
        if done.step < last and folder is not None:
            save_recipe_checkpoint(run / LAST, snapshot(trainer, done, origin))
            progress.note(f"stopped after step {done.step}; --resume goes on from there")
    return done.step >= last


def make_trainer(
    recipe: Recipe, device: torch.device, processes: Processes
) -> tuple[Trainer, list[PairBatch]]:
    """A trainer before its first step, with the student's initial weights, and the pairs to validate on.

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
    source, val_batches = open_pairs(recipe, [student, *([teacher] if teacher else [])], reach, processes)
    trainer = Trainer(
        recipe, source, student, teacher, method, average, optimiser, frozen, reach, device, processes
    )
    return trainer, val_batches


def load_teacher(config: NetworkConfig) -> AnyNetwork:
    """A teacher with all its weights, which do not learn. Raises ConfigError or ModelError."""
    if config.weights is None:
        raise ConfigError("teacher: needs weights; set them in the recipe or give --teacher")
    teacher = make_network(config)
    load_exactly(teacher, Path(config.weights), config)
    return teacher.eval().requires_grad_(False)


def open_pairs(
    recipe: Recipe, networks: list[AnyNetwork], reach: Reach, processes: Processes
) -> tuple[PairSource, list[PairBatch]]:
    """The pairs to train on, and those to validate on, from a cache in memory or from shards.

    Raises ConfigError, also where the networks or the augmentation do not take the data's crops.
    """
    folder, data = Path(recipe.cache), recipe.data
    margin = max(reach.frames, -(-reach.mel_steps * VIDEO_FPS // MEL_STEPS_PER_SECOND))
    training, validation = (
        open_source(folder, split=split, min_windows=2 * margin + 2) for split in ("train", "val")
    )
    if training.crop != GREY:
        if any(isinstance(network, CompactNet) for network in networks):
            raise ConfigError(f"{folder}: holds RGB crops, but a compact network takes grey ones")
        if data.augment is not None:
            raise ConfigError(f"{folder}: holds RGB crops, but augment is made for grey ones")
    source: PairSource
    if isinstance(training, MemorySource):
        source = ClipPairs(training.clips, data, seed=recipe.seed, reach=reach)
    else:
        source = StreamedPairs(training, data, seed=recipe.seed, reach=reach, processes=processes)
    if source.epoch_pairs < data.batch:
        raise ConfigError(f"data: an epoch has {source.epoch_pairs} pairs, less than a batch")
    size, fixed = data.batch // data.micro_batches, recipe.validation
    drawn = fixed_batches(
        validation, fixed.pairs, size, seed=fixed.seed, reach=reach, negatives=data.negatives
    )
    return source, drawn


def start(trainer: Trainer) -> dict[str, Any]:
    """Give the student the weights to start from, if there are any; returns what the origin says of them."""
    weights = trainer.recipe.network.weights
    if weights is None:
        return {"started": "", "start_sha256": ""}
    started = load_fitting(trainer.student, Path(weights))
    if trainer.average is not None:
        trainer.average.load_state_dict(trainer.student.state_dict())
    return {"started": started.describe(), "start_sha256": sha256_of(Path(weights))}


def restore(
    trainer: Trainer, checkpoint: RecipeCheckpoint, origin: dict[str, Any]
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
    trainer: Trainer, done: Progressed, origin: dict[str, Any], *, to_go_on: bool = True
) -> RecipeCheckpoint:
    rest: dict[str, Any] = {}
    if to_go_on:
        rest = {
            "student": trainer.student.state_dict(),
            "method": trainer.method.state_dict(),
            "optimiser": trainer.optimiser.state_dict(),
            "best_f1": done.best_f1,
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
    """What of a recipe must not change when a run goes on; its files may lie elsewhere."""
    teacher = None if recipe.teacher is None else replace(recipe.teacher, weights=None)
    return replace(recipe, cache="", network=replace(recipe.network, weights=None), teacher=teacher)


def wider(one: Reach, other: Reach) -> Reach:
    """The reach that holds both."""
    return Reach(max(one.frames, other.frames), max(one.mel_steps, other.mel_steps))


def last_step(trainer: Trainer) -> int:
    steps = trainer.recipe.data.epochs * trainer.steps_per_epoch
    return steps if trainer.recipe.max_steps is None else min(steps, trainer.recipe.max_steps)


def is_validated(trainer: Trainer, step: int) -> bool:
    """Whether a validation follows the step."""
    when = trainer.recipe.validation
    every = when.every_steps or (when.every_epochs or 1) * trainer.steps_per_epoch
    return step % every == 0 or step == last_step(trainer)


def describe(found: dict[str, float], step: int) -> str:
    return f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items())


@dataclass(frozen=True)
class Folder:
    """A run's tables and its TensorBoard."""

    log: Table
    val: Table
    board: SummaryWriter

    def add_step(self, row: dict[str, Any]) -> None:
        self.log.add(row)
        self._draw("train", row)

    def add_validation(self, row: dict[str, Any]) -> None:
        self.val.add(row)
        self._draw("val", row)

    def _draw(self, group: str, row: dict[str, Any]) -> None:
        for name in row.keys() - {"step", "epoch"}:
            self.board.add_scalar(f"{group}/{name}", row[name], row["step"])


@contextmanager
def open_folder(
    run: Path, trainer: Trainer, done: Progressed, origin: dict[str, Any]
) -> Iterator[Folder | None]:
    """The folder of a run; None for all processes but the first."""
    if not trainer.processes.is_first:
        yield None
        return
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(
        json.dumps(as_table(trainer.recipe) | {"origin": origin}, indent=1) + "\n", encoding="utf-8"
    )
    board = SummaryWriter(run / "tensorboard", purge_step=done.step + 1 if done.step else None)
    try:
        yield Folder(
            Table(run / "log.csv", keep_until=done.step),
            Table(run / "val.csv", val_columns(trainer.recipe), keep_until=done.step),
            board,
        )
    finally:
        board.close()
