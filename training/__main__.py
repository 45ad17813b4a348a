"""Command line of the training; each command imports what it needs when it runs."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from avsync_cli.errors import EXIT_INTERRUPTED, AvsyncError

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Prepare the corpus, train a student, and measure it."""


@app.command()
def prepare(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder with its manifest.csv.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Cache folder.")],
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    only: Annotated[
        list[str] | None, typer.Option(help="Only files whose path begins so; may be repeated.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many clips.")] = None,
) -> None:
    """Decode the corpus once into a cache of mouth crops, lip geometry and mels."""
    from training.corpus import read_corpus
    from training.prepare import prepare as run

    clips = [
        clip
        for clip in read_corpus(corpus)
        if (not only or clip.file.startswith(tuple(only))) and split in (None, clip.split)
    ]
    entries = run(corpus, clips[:limit], output, jobs=jobs)
    kept = [entry for entry in entries if entry.reason is None]
    minutes = sum(entry.frames for entry in kept) / 1500
    typer.echo(f"{len(kept)} clips, {minutes:.1f} minutes; {len(entries) - len(kept)} left out")


@app.command()
def match(
    config: Annotated[Path, typer.Argument(help="TOML file; see training/configs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    cache: Annotated[Path | None, typer.Option(help="Cache folder, in place of the config's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from, in place of the config's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train the two encoders by matching every window with the sound of its own clip."""
    from training.config import read_config
    from training.match import train

    if not train(read_config(config), output, cache=cache, start=start, resume=resume):
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def evaluate(
    student: Annotated[
        Path | None, typer.Option(help="Student's folder, or a checkpoint (protocol alone).")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache folder, for the protocol.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus folder, for the other measures.")] = None,
    measures: Annotated[str, typer.Option(help="Any of the four.")] = "protocol,truth,halves,shifts",
    split: Annotated[str, typer.Option(help="Which clips.")] = "val",
    only: Annotated[
        list[str] | None, typer.Option(help="Only files whose path begins so; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
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
    )
    if output is not None:
        write_result(output, result)
    typer.echo(markdown(result))


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
    seed: Annotated[int, typer.Option(help="Draws the stretches and moves.")] = 0,
) -> None:
    """Fit confidence, refusal and uncertainty of a student on the validation clips."""
    from training.calibrate import calibrate as run
    from training.calibrate import describe

    calibration, examples = run(student, cache, seed=seed)
    typer.echo(describe(calibration, examples))


@app.command()
def scatter(
    cache: Annotated[Path, typer.Option(help="Cache folder.")],
    domain: Annotated[str, typer.Option(help="First folder of the clips' paths.")] = "broadcast",
    split: Annotated[str, typer.Option(help="Which clips.")] = "val",
    student: Annotated[Path | None, typer.Option(help="Student's folder, or a checkpoint.")] = None,
) -> None:
    """How far a domain's clips lie apart, and how much of it is their own."""
    from training.clips import load_clips
    from training.evaluate import encoders_of
    from training.scatter import measure_scatter
    from training.validate import score_clip

    clips = [clip for clip in load_clips(cache, split=split) if clip.entry.domain == domain]
    encoders = encoders_of(student, threads=os.cpu_count() or 1)
    found = measure_scatter([score_clip(clip, encoders) for clip in clips])
    typer.echo(
        f"{found.clips} of {len(clips)} clips: median {found.median_frames:+.2f} frames, standard deviation "
        f"{found.deviation_frames:.2f}; halves correlate by {found.correlation:.2f}, so "
        f"{found.own_deviation_frames:.2f} frames are the clips' own"
    )


def run_app() -> None:
    """Run a command; an expected failure is one line and its exit code."""
    try:
        app(prog_name="python -m training")
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run_app()
