"""Commands that make, turn and describe files of weights; each imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from avsync_cli.errors import ConfigError


def unfold(
    student: Annotated[Path, typer.Argument(help="Folder of an exported student, of mtdvocalist-edge.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint to write.")],
    cache: Annotated[Path, typer.Option(help="Cache folder, some of whose train clips are looked at.")],
) -> None:
    """Make a checkpoint to start from out of a student's graphs, where its own is gone."""
    from training.data.cache import read_manifest, require_grey
    from training.data.clips import load_clip
    from training.weights.match_checkpoint import save_checkpoint
    from training.weights.unfold import MEASURED_CLIPS, unfold_student

    require_grey(cache)
    entries = [entry for entry in read_manifest(cache) if entry.reason is None and entry.split == "train"]
    chosen = entries[:: max(1, len(entries) // MEASURED_CLIPS)]
    save_checkpoint(output, unfold_student(student, (load_clip(cache, entry) for entry in chosen)))


def average(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT...", help="Of runs that grew from one checkpoint.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint to write.")],
    half: Annotated[
        bool, typer.Option("--half", help="In half precision: to start from, as that of the bundled student.")
    ] = False,
    student: Annotated[
        Path | None,
        typer.Option(help="Folder of the student made of these weights, to name the checkpoint by its hash."),
    ] = None,
) -> None:
    """Average the weights of several matching runs into one student; of one, keep its weights alone."""
    from training.weights.average import average_checkpoints, name_start
    from training.weights.match_checkpoint import halved, save_checkpoint

    if output.exists():
        raise ConfigError(f"{output}: exists already")
    averaged = average_checkpoints(checkpoints)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(output, halved(averaged) if half else averaged)
        if student is not None:
            name_start(student, output)
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror or error}") from error


def convert(
    weights: Annotated[Path, typer.Argument(help="Checkpoint of a recipe, a baseline or the matching.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .safetensors or .pt.")],
) -> None:
    """Write the weights to use alone, as safetensors or as a checkpoint, with all that the file says of
    itself."""
    from training.weights.convert import convert_weights

    convert_weights(weights, output)
    typer.echo(f"{output}: written")


def card(
    run: Annotated[Path, typer.Argument(help="Run folder, with its metrics.json if it was measured.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File, instead of RUN/card.md.")
    ] = None,
) -> None:
    """Write a model card of a run: its figures, the hashes of data and weights, and the commands."""
    from training.reproduction.card import write_card

    path = output or run / "card.md"
    write_card(run, path)
    typer.echo(f"{path}: written")
