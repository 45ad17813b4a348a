"""Command line of the training; each command imports what it needs when it runs."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from avsync_cli.errors import EXIT_INTERRUPTED, AvsyncError, ConfigError
from training.data_commands import audit, prepare, scatter, shard, zero
from training.train_commands import SMOKE, baseline, distill, match, residual, teacher
from training.weight_commands import average, card, convert, unfold

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Prepare the corpus, train a student, and measure it."""


for data_command in (prepare, shard, audit, zero, scatter):
    app.command()(data_command)
for train_command in (match, teacher, distill, baseline, residual):
    app.command()(train_command)
for weight_command in (unfold, average, convert, card):
    app.command()(weight_command)


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
    from training.evaluation.evaluate import evaluate as run
    from training.evaluation.evaluate import markdown, write_result

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
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each recipe, from its seed on, for mean and spread.")
    ] = 1,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Train by the published code's rules (docs/reproduce.md).")
    ] = False,
    full_teacher: Annotated[
        bool, typer.Option("--full-teacher", help="Without --vocalist: train the teacher for 600 epochs.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    smoke: Annotated[bool, typer.Option("--smoke", help=SMOKE)] = False,
) -> None:
    """Run the paper's experiments from end to end; run it again to go on where it was stopped."""
    from training.reproduction.reproduce import EXPERIMENTS, ReproduceOptions
    from training.reproduction.reproduce import reproduce as run

    names = experiments.split(",")
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        raise ConfigError(f"experiment {sorted(unknown)[0]!r}: not one of {', '.join(EXPERIMENTS)}")
    command = shlex.join(["python", "-m", "training", *sys.argv[1:]])
    text = run(
        root,
        output,
        experiments=names,
        vocalist=vocalist,
        jobs=jobs,
        command=command,
        options=ReproduceOptions(seeds, as_published, full_teacher, smoke),
    )
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
        bool, typer.Option("--published", help="Add the published figures, alone and beside ours.")
    ] = False,
) -> None:
    """Compare evaluated runs: a Markdown table and the plots of the paper."""
    from training.reproduction.compare import compare as run

    command = shlex.join(["python", "-m", "training", *sys.argv[1:]])
    typer.echo(run(paths, output, runs=runs, command=command, group=group, published=published))


@app.command()
def calibrate(
    student: Annotated[Path, typer.Option(help="Folder of an exported student; its model.json is changed.")],
    cache: Annotated[Path, typer.Option(help="Cache folder.")],
    seed: Annotated[int, typer.Option(min=0, help="Draws the stretches and moves.")] = 0,
) -> None:
    """Fit confidence, refusal and uncertainty of a student on the validation clips."""
    from training.evaluation.calibrate import calibrate as run
    from training.evaluation.calibrate import describe_calibration

    calibration, examples = run(student, cache, seed=seed)
    typer.echo(describe_calibration(calibration, examples))


def run_app() -> None:
    """Run a command; an expected failure is one line and its exit code."""
    try:
        app(prog_name="python -m training")
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run_app()
