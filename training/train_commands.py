"""Commands that train; each imports what it needs when it runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avsync_cli.errors import EXIT_INTERRUPTED, ConfigError

if TYPE_CHECKING:
    from training.recipe import Recipe

SMOKE = "Whether it runs, not what it learns: two steps of tiny networks, from nothing."

Tracked = Literal["wandb", "mlflow"]

_Output = Annotated[Path, typer.Option("-o", "--output", help="Run folder.")]
_Cache = Annotated[Path | None, typer.Option(help="Cache folder or shards, in place of the recipe's.")]
_Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
_Smoke = Annotated[bool, typer.Option("--smoke", help=SMOKE)]
_Seed = Annotated[int | None, typer.Option(min=0, help="Seed, in place of the recipe's.")]
_Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="So many runs, from the seed on, each in a folder seed-N of the run folder."),
]
_Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A key of the recipe, as optimiser.ema=0.99; repeatable."
    ),
]
_Track = Annotated[
    Tracked | None, typer.Option(help="Tell this tracker too, beside TensorBoard, if it is installed.")
]
_MicroBatches = Annotated[
    int | None,
    typer.Option(
        min=1, help="Parts of a step's pairs, in place of the recipe's: less memory, or shares of processes."
    ),
]


def match(
    config: Annotated[Path, typer.Argument(help="TOML file; see training/configs.")],
    output: _Output,
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the config's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help='Checkpoint to start from, in place of the config\'s, or "bundled".')
    ] = None,
    resume: _Resume = False,
    seed: _Seed = None,
    seeds: _Seeds = None,
    changes: _Changes = None,
    track: _Track = None,
    smoke: _Smoke = False,
) -> None:
    """Train the two encoders by matching every window with the sound of its own clip."""
    from training.config import read_config
    from training.loops.match import train
    from training.smoke import shrink_match

    chosen = read_config(config, changes or ())
    chosen = shrink_match(chosen) if smoke else chosen

    def run(seed: int, folder: Path, resume: bool) -> bool:
        own = replace(chosen, seed=seed)
        return train(own, folder, cache=cache, start=start, resume=resume, track=track)

    _run_seeds(run, output, seed=chosen.seed if seed is None else seed, seeds=seeds, resume=resume)


def teacher(
    config: Annotated[Path, typer.Argument(help="TOML recipe of the method BCE; see training/configs.")],
    output: _Output,
    cache: _Cache = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from, in place of the recipe's.")
    ] = None,
    resume: _Resume = False,
    seed: _Seed = None,
    seeds: _Seeds = None,
    changes: _Changes = None,
    micro_batches: _MicroBatches = None,
    track: _Track = None,
    smoke: _Smoke = False,
) -> None:
    """Train a network on pairs that are in sync or not, without a teacher."""
    recipe = _read(config, changes, micro_batches=micro_batches, smoke=smoke)
    if recipe.teacher is not None or recipe.method.name != "BCE":
        raise ConfigError(f"{config}: has a teacher; run it with distill")
    run = _trainer_of(recipe, cache=cache, teacher=None, start=start, resume=resume, track=track)
    _run_seeds(run, output, seed=recipe.seed if seed is None else seed, seeds=seeds, resume=resume)


def distill(
    config: Annotated[Path, typer.Argument(help="TOML recipe; see training/configs.")],
    output: _Output,
    cache: _Cache = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher's weights, in place of the recipe's.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from, in place of the recipe's.")
    ] = None,
    resume: _Resume = False,
    seed: _Seed = None,
    seeds: _Seeds = None,
    changes: _Changes = None,
    micro_batches: _MicroBatches = None,
    track: _Track = None,
    smoke: _Smoke = False,
) -> None:
    """Train a student by a recipe of any method, from a teacher where the method has one."""
    recipe = _read(config, changes, micro_batches=micro_batches, smoke=smoke)
    run = _trainer_of(recipe, cache=cache, teacher=teacher, start=start, resume=resume, track=track)
    _run_seeds(run, output, seed=recipe.seed if seed is None else seed, seeds=seeds, resume=resume)


def baseline(
    config: Annotated[Path, typer.Argument(help="TOML file of a baseline; see training/configs/fig2.")],
    output: _Output,
    cache: _Cache = None,
    resume: _Resume = False,
    seed: _Seed = None,
    seeds: _Seeds = None,
    changes: _Changes = None,
    track: _Track = None,
    smoke: _Smoke = False,
) -> None:
    """Train a baseline of Fig. 2: SyncNet, Perfect Match or AVST."""
    from training.baseline_recipe import read_baseline
    from training.loops.baseline import train
    from training.smoke import shrink_baseline

    chosen = read_baseline(config, changes or ())
    chosen = shrink_baseline(chosen) if smoke else chosen
    chosen = chosen if cache is None else replace(chosen, cache=str(cache))

    def run(seed: int, folder: Path, resume: bool) -> bool:
        return train(replace(chosen, seed=seed), folder, resume=resume, track=track)

    _run_seeds(run, output, seed=chosen.seed if seed is None else seed, seeds=seeds, resume=resume)


def residual(
    config: Annotated[Path, typer.Argument(help="TOML file of a residual; see training/configs.")],
    output: _Output,
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the config's.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint of a wider residual, in place of the config's.")
    ] = None,
    resume: _Resume = False,
    seed: _Seed = None,
    seeds: _Seeds = None,
    changes: _Changes = None,
    track: _Track = None,
) -> None:
    """Train a cross-modal part that is added to a matching's cosine, by softmax alone or by MTD too."""
    from training.loops.residual import train
    from training.residual_recipe import read_residual

    chosen = read_residual(config, changes or ())
    chosen = chosen if teacher is None else replace(chosen, teacher=str(teacher))

    def run(seed: int, folder: Path, resume: bool) -> bool:
        return train(replace(chosen, seed=seed), folder, cache=cache, resume=resume, track=track)

    _run_seeds(run, output, seed=chosen.seed if seed is None else seed, seeds=seeds, resume=resume)


def _read(path: Path, changes: list[str] | None, *, micro_batches: int | None, smoke: bool) -> "Recipe":
    from training.recipe import read_recipe
    from training.smoke import shrink_recipe

    recipe = read_recipe(path, changes or ())
    if micro_batches is not None:
        recipe = replace(recipe, data=replace(recipe.data, micro_batches=micro_batches))
    return shrink_recipe(recipe) if smoke else recipe


def _trainer_of(
    recipe: "Recipe",
    *,
    cache: Path | None,
    teacher: Path | None,
    start: Path | None,
    resume: bool,
    track: Tracked | None,
) -> Callable[[int, Path, bool], bool]:
    """What trains a recipe with a seed into a folder."""
    from training.loops.distill import train, with_files

    if resume and start is not None:
        raise ConfigError("--start: a run that is resumed has its weights")
    own = with_files(recipe, cache=cache, teacher=teacher, start=start)

    def run(seed: int, folder: Path, resume: bool) -> bool:
        return train(replace(own, seed=seed), folder, resume=resume, track=track)

    return run


def _run_seeds(
    run: Callable[[int, Path, bool], bool], output: Path, *, seed: int, seeds: int | None, resume: bool
) -> None:
    """One run into the folder, or several into folders of it, of which those that had begun go on."""
    from training.loops.loop import LAST

    if seeds is None:
        done = run(seed, output, resume)
    else:
        folders = {number: output / f"seed-{number}" for number in range(seed, seed + seeds)}
        done = all(run(n, place, resume and (place / LAST).exists()) for n, place in folders.items())
    if not done:
        raise typer.Exit(EXIT_INTERRUPTED)
