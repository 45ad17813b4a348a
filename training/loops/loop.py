"""The loop that every training shares: start or resume, step, log, validate, checkpoint, stop.

A run's folder holds config.json, commands.txt, log.csv, val.csv, `last.pt` to go on from and, where a figure
says which weights are the best, `best.pt`.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from avsync_cli.errors import ConfigError
from training.baseline_recipe import BaselineConfig
from training.config import MatchConfig, as_table
from training.loops.journal import Folder, note_command, open_folder, stop_requests
from training.loops.trackers import BoardTracker, Tracker, open_tracker
from training.processes import Processes
from training.progress import Progress
from training.recipe import Recipe, ValidationConfig
from training.residual_recipe import ResidualConfig
from training.whole_file import write_json

LAST, BEST = "last.pt", "best.pt"
CONFIG = "config.json"

Row = dict[str, Any]  # of a table
Origin = dict[str, Any]  # where a run comes from


@dataclass(frozen=True)
class Progressed:
    """How far a run is: steps done, and the best figure so far."""

    step: int = 0
    best: float = -math.inf


@dataclass(frozen=True)
class Validation:
    """What a validation found: rows for its table, the same in words, and the figure that the best weights
    are chosen by, if they are chosen."""

    rows: list[Row]
    text: str
    figure: float | None = None


class Save(Protocol):
    """Write a checkpoint; one that is not `to_go_on` from is only to be used."""

    def __call__(self, path: Path, done: Progressed, origin: Origin, *, to_go_on: bool) -> None: ...


@dataclass(frozen=True)
class Loop:
    """What a kind of training brings to the loop.

    `start` readies the first step and returns the run's origin; `restore` readies the step after a
    checkpoint's and returns how far that is too. Without columns a table has those of its first row.
    """

    name: str
    config: MatchConfig | Recipe | BaselineConfig | ResidualConfig
    last_step: int
    validate_every: int  # steps; 0: never
    take_step: Callable[[int], dict[str, float]]
    validate: Callable[[int], Validation]  # after so many steps
    start: Callable[[], Origin]
    restore: Callable[[Path], tuple[Progressed, Origin]]
    save: Save
    log_columns: tuple[str, ...] = ()
    val_columns: tuple[str, ...] = ()
    board: bool = True  # whether TensorBoard is written
    track: str | None = None  # what else is told (see `trackers`)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = field(default_factory=Processes)


def run_loop(loop: Loop, run: Path, *, resume: bool) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume).

    Every process steps, the first one alone validates and writes. Raises ConfigError.
    """
    if not resume and (run / LAST).exists():
        raise ConfigError(f"{run}: already holds a run; give --resume or another folder")
    done, origin = loop.restore(run / LAST) if resume else (Progressed(), loop.start())
    with (
        _open(loop, run, done, origin) as folder,
        Progress(loop.name, loop.last_step, unit="steps", done=done.step, quiet=folder is None) as progress,
        stop_requests() as stop,
    ):
        if done.step == 0 and origin.get("started"):
            progress.note(origin["started"])
        while done.step < loop.last_step and not loop.processes.any_of(bool(stop), loop.device):
            row = loop.take_step(done.step)
            done = replace(done, step=done.step + 1)
            progress.advance(1, text=f"loss {row['total']:.3f}, {row['seconds'] * 1000:.0f} ms a step")
            if folder is not None:
                done = _write(loop, run, done, origin, row=row, folder=folder, progress=progress)
        if done.step < loop.last_step and folder is not None:
            loop.save(run / LAST, done, origin, to_go_on=True)
            progress.note(f"stopped after step {done.step}; --resume goes on from there")
    return done.step >= loop.last_step


def steps_between(config: ValidationConfig, steps_per_epoch: int) -> int:
    """Steps between validations."""
    return config.every_steps or (config.every_epochs or 1) * steps_per_epoch


def in_words(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


def _open(loop: Loop, run: Path, done: Progressed, origin: Origin) -> AbstractContextManager[Folder | None]:
    """The folder of a run; None for all processes but the first."""
    if not loop.processes.is_first:
        return nullcontext()
    run.mkdir(parents=True, exist_ok=True)
    table = as_table(loop.config) | {"origin": origin}
    write_json(run / CONFIG, table)
    note_command(run)
    trackers: list[Tracker] = [BoardTracker(run, done.step)] if loop.board else []
    if loop.track is not None:
        trackers.append(open_tracker(loop.track, run, table, step=done.step))
    return open_folder(
        run, done.step, log_columns=loop.log_columns, val_columns=loop.val_columns, trackers=trackers
    )


def _write(
    loop: Loop, run: Path, done: Progressed, origin: Origin, *, row: Row, folder: Folder, progress: Progress
) -> Progressed:
    """What is due after a step: a row of the log, a validation, checkpoints."""
    config, is_last = loop.config, done.step == loop.last_step
    if done.step % config.log_every == 0 or is_last:
        folder.add_step({"step": done.step, **row})
    if loop.validate_every and (done.step % loop.validate_every == 0 or is_last):
        found = loop.validate(done.step)
        about = {"step": done.step} | ({"epoch": row["epoch"]} if "epoch" in row else {})
        for part in found.rows:
            folder.add_validation(about | part)
        progress.note(f"step {done.step}: {found.text}")
        if found.figure is not None and found.figure > done.best:
            done = replace(done, best=found.figure)
            loop.save(run / BEST, done, origin, to_go_on=False)
    if done.step % config.checkpoint_every == 0 or is_last:
        loop.save(run / LAST, done, origin, to_go_on=True)
    return done
