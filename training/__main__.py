"""Command line of the training; each command imports what it needs when it runs."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsync_cli.errors import EXIT_INTERRUPTED, AvsyncError, ConfigError
from training.data_commands import audit, prepare, scatter, shard

if TYPE_CHECKING:
    from training.recipe import Recipe

_SMOKE = "Whether it runs, not what it learns: two steps of tiny networks, from nothing."

_MicroBatches = Annotated[
    int | None,
    typer.Option(
        min=1, help="Parts of a step's pairs, in place of the recipe's: less memory, or shares of processes."
    ),
]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Prepare the corpus, train a student, and measure it."""


for data_command in (prepare, shard, audit, scatter):
    app.command()(data_command)


@app.command()
def match(
    config: Annotated[Path, typer.Argument(help="TOML file; see training/configs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the config's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from, in place of the config's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help=_SMOKE)] = False,
) -> None:
    """Train the two encoders by matching every window with the sound of its own clip."""
    from training.config import read_config
    from training.match import train
    from training.smoke import shrink_match

    chosen = shrink_match(read_config(config)) if smoke else read_config(config)
    if not train(chosen, output, cache=cache, start=start, resume=resume):
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def average(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT...", help="Of runs that grew from one checkpoint.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint to write.")],
) -> None:
    """Average the weights of several matching runs into one student."""
    from training.average import average_checkpoints
    from training.checkpoint import save_checkpoint

    if output.exists():
        raise ConfigError(f"{output}: exists already")
    averaged = average_checkpoints(checkpoints)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(output, averaged)
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror or error}") from error


@app.command()
def teacher(
    config: Annotated[Path, typer.Argument(help="TOML recipe of the method BCE; see training/configs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the recipe's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from, in place of the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the recipe's.")] = None,
    micro_batches: _MicroBatches = None,
    smoke: Annotated[bool, typer.Option("--smoke", help=_SMOKE)] = False,
) -> None:
    """Train a network on pairs that are in sync or not, without a teacher."""
    from training.recipe import read_recipe

    recipe = read_recipe(config)
    if recipe.teacher is not None or recipe.method.name != "BCE":
        raise ConfigError(f"{config}: has a teacher; run it with distill")
    recipe = _with_options(recipe, seed=seed, micro_batches=micro_batches, smoke=smoke)
    _train(recipe, output, cache=cache, teacher=None, start=start, resume=resume)


@app.command()
def distill(
    config: Annotated[Path, typer.Argument(help="TOML recipe; see training/configs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the recipe's.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher's weights, in place of the recipe's.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from, in place of the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the recipe's.")] = None,
    micro_batches: _MicroBatches = None,
    smoke: Annotated[bool, typer.Option("--smoke", help=_SMOKE)] = False,
) -> None:
    """Train a student by a recipe of any method, from a teacher where the method has one."""
    from training.recipe import read_recipe

    recipe = read_recipe(config)
    recipe = _with_options(recipe, seed=seed, micro_batches=micro_batches, smoke=smoke)
    _train(recipe, output, cache=cache, teacher=teacher, start=start, resume=resume)


def _with_options(recipe: "Recipe", *, seed: int | None, micro_batches: int | None, smoke: bool) -> "Recipe":
    from training.smoke import shrink_recipe

    if micro_batches is not None:
        recipe = replace(recipe, data=replace(recipe.data, micro_batches=micro_batches))
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    return shrink_recipe(recipe) if smoke else recipe


def _train(
    recipe: "Recipe",
    output: Path,
    *,
    cache: Path | None,
    teacher: Path | None,
    start: Path | None,
    resume: bool,
) -> None:
    from training.distill import train, with_files

    if resume and start is not None:
        raise ConfigError("--start: a run that is resumed has its weights")
    if not train(with_files(recipe, cache=cache, teacher=teacher, start=start), output, resume=resume):
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def baseline(
    config: Annotated[Path, typer.Argument(help="TOML file of a baseline; see training/configs/fig2.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the config's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the config's.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help=_SMOKE)] = False,
) -> None:
    """Train a two-stream network as SyncNet or as Perfect Match."""
    from training.baseline import train
    from training.baseline_recipe import read_baseline
    from training.smoke import shrink_baseline

    chosen = shrink_baseline(read_baseline(config)) if smoke else read_baseline(config)
    if cache is not None:
        chosen = replace(chosen, cache=str(cache))
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if not train(chosen, output, resume=resume):
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def evaluate(
    student: Annotated[
        Path | None, typer.Option(help="Student's folder, or a file of weights (protocol alone).")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Whose weights the file holds, where they are the authors'.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache folder, for the protocol.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus folder, for the other measures.")] = None,
    measures: Annotated[
        str, typer.Option(help="Any of these.")
    ] = "protocol,truth,audited,halves,shifts,mismatched",
    split: Annotated[str, typer.Option(help="Which clips.")] = "val",
    only: Annotated[
        list[str] | None, typer.Option(help="Only files whose path begins so; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    max_frames: Annotated[
        int | None, typer.Option(min=5, help="Only the first frames of each clip (protocol).")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Only so many clips, spread evenly (protocol).")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the result.")] = None,
) -> None:
    """Measure a student: the paper's protocol on the cache, the whole tool through real files."""
    from training.evaluate import evaluate as run
    from training.evaluate import markdown, write_result

    result = run(
        student,
        measures.split(","),
        cache=cache,
        corpus=corpus,
        split=split,
        jobs=jobs,
        only=tuple(only or ()),
        network=network,
        max_frames=max_frames,
        clips=clips,
    )
    if output is not None:
        write_result(output, result)
    typer.echo(markdown(result))


@app.command()
def reproduce(
    root: Annotated[Path, typer.Argument(help="LRS2's folder, with pretrain.txt, val.txt and test.txt.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for data, runs and comparison.")],
    vocalist: Annotated[
        Path | None, typer.Option(help="The authors' VocaLiST weights, for the teacher to start from.")
    ] = None,
    experiments: Annotated[
        str, typer.Option(help="Which of the paper's experiments to run.")
    ] = "table1,table2,fig2,fig3,fig4",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    smoke: Annotated[bool, typer.Option("--smoke", help=_SMOKE)] = False,
) -> None:
    """Run the paper's experiments from end to end; run it again to go on where it was stopped."""
    from training.reproduce import EXPERIMENTS
    from training.reproduce import reproduce as run

    names = experiments.split(",")
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        raise ConfigError(f"experiment {sorted(unknown)[0]!r}: not one of {', '.join(EXPERIMENTS)}")
    command = shlex.join(["python", "-m", "training", *sys.argv[1:]])
    text = run(root, output, experiments=names, vocalist=vocalist, jobs=jobs, command=command, smoke=smoke)
    if text is None:
        raise typer.Exit(EXIT_INTERRUPTED)
    typer.echo(text)


@app.command()
def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_CONFIG...",
            help="Run folders with their metrics.json; a TOML file stands for the runs made with its name.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for comparison.md and the plots.")],
    runs: Annotated[Path, typer.Option(help="Where the runs of configurations are looked for.")] = Path(
        "runs"
    ),
    group: Annotated[str, typer.Option(help="Which group of clips: all, or a domain.")] = "all",
    published: Annotated[
        bool, typer.Option("--published", help="Add the published figures in a table of their own.")
    ] = False,
) -> None:
    """Compare evaluated runs: a Markdown table and the plots of the paper."""
    from training.compare import compare as run

    command = shlex.join(["python", "-m", "training", *sys.argv[1:]])
    typer.echo(run(paths, output, runs=runs, command=command, group=group, published=published))


@app.command()
def calibrate(
    student: Annotated[Path, typer.Option(help="Folder of an exported student; its model.json is changed.")],
    cache: Annotated[Path, typer.Option(help="Cache folder.")],
    seed: Annotated[int, typer.Option(min=0, help="Draws the stretches and moves.")] = 0,
) -> None:
    """Fit confidence, refusal and uncertainty of a student on the validation clips."""
    from training.calibrate import calibrate as run
    from training.calibrate import describe

    calibration, examples = run(student, cache, seed=seed)
    typer.echo(describe(calibration, examples))


def run_app() -> None:
    """Run a command; an expected failure is one line and its exit code."""
    try:
        app(prog_name="python -m training")
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run_app()
