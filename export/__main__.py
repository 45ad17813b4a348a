"""Command line of the exporters; each command imports what it needs when it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsync_cli.errors import AvsyncError

app = typer.Typer(no_args_is_help=True, add_completion=False)

ASSETS = Path("avsync_cli") / "assets"

# Options of every command that opens a checkpoint.
Network = Annotated[
    str | None, typer.Option(help="Whose weights the file holds: vocalist or mtdvocalist, say.")
]
PixelScale = Annotated[
    Literal["rgb255", "bgr1"] | None,
    typer.Option(help="How published weights want their frames, if not as they were published."),
]
Crop = Annotated[
    Literal["mouth", "face"] | None,
    typer.Option(help="What a published network was trained on, if its file does not say; face."),
]


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """An expected failure is one line and its exit code."""
    try:
        yield
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


@app.callback()
def main() -> None:
    """Make the model files that avsync_cli ships."""


@app.command()
@failing_in_one_line()
def faces(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the ONNX files.")] = ASSETS,
) -> None:
    """Convert MediaPipe's face detector and face mesh to ONNX."""
    from export.faces import export_faces

    for path in export_faces(output):
        typer.echo(f"{path}  {path.stat().st_size} bytes")


@app.command()
@failing_in_one_line()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or a file of published weights.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the student.")],
    calibration: Annotated[
        Path | None, typer.Option(help="JSON with weights, min_confidence and spread_ms.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name in reports; the folder's by default.")] = None,
    network: Network = None,
    pixels: PixelScale = None,
    crop: Crop = None,
) -> None:
    """Turn a checkpoint into a student: three ONNX graphs and the model.json that describes them."""
    from export.student import export_student, loses_calibration
    from export.trained import open_trained

    trained = open_trained(checkpoint, network=network, pixels=pixels, crop=crop)
    loses = calibration is None and loses_calibration(output)
    folder = export_student(trained, output, calibration=calibration, name=name)
    if loses:
        typer.echo(
            f"{folder}: the older student's calibration is gone; python -m training calibrate fits one"
        )
    for path in sorted(folder.iterdir()):
        typer.echo(f"{path}  {path.stat().st_size} bytes")


@app.command()
@failing_in_one_line()
def quantize(
    student: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a student, which is added to.")],
    cache: Annotated[
        Path | None, typer.Option(help="Prepared clips to calibrate encoders on; their train split is used.")
    ] = None,
    method: Annotated[
        Literal["percentile", "entropy", "minmax"] | None,
        typer.Option(help="How ranges are set; by default whichever moves scores least on other clips."),
    ] = None,
    storage: Annotated[
        Literal["fp32", "fp16"], typer.Option(help="How the fp32 graphs' weights are stored.")
    ] = "fp32",
    seed: Annotated[int, typer.Option(min=0, help="Of the clips that are drawn.")] = 0,
) -> None:
    """Give a student int8 graphs beside its own."""
    from export.quantize import quantize_student

    made = quantize_student(student, cache, method=method, storage=storage, seed=seed)
    for name, drift in made.drift.items():
        taken = " (taken)" if name == made.method else ""
        typer.echo(f"{name}: scores drift by {drift:.4f} of their spread{taken}")
    if made.storage == "fp16" != storage:
        typer.echo("weights of the fp32 graphs stay stored in fp16, as they were")
    for path in sorted(made.folder.iterdir()):
        typer.echo(f"{path}  {path.stat().st_size} bytes")


@app.command()
@failing_in_one_line()
def parity(
    student: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a student.")],
    cache: Annotated[Path, typer.Option(help="Prepared clips, of which the val split is used.")],
    checkpoint: Annotated[Path | None, typer.Option(help="What it was exported from, for torch.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="So many clips; all by default.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON to write.")] = None,
    network: Network = None,
    pixels: PixelScale = None,
    crop: Crop = None,
) -> None:
    """Compare torch, fp32 and int8 on the same clips; exit code 1 if they differ by too much."""
    from rich.console import Console

    from export.parity import compare_forms, write_parity
    from export.parity_table import parity_tables
    from training.whole_file import require_writable

    if output is not None:
        require_writable(output)  # before minutes of work
    found = compare_forms(student, cache, checkpoint, clips=clips, network=network, pixels=pixels, crop=crop)
    Console().print(parity_tables(found))
    if output is not None:
        write_parity(found, output)
    raise typer.Exit(0 if found.passed else 1)


@app.command()
@failing_in_one_line()
def answers(
    student: Annotated[Path, typer.Argument(help="Folder of a student that has none.")],
) -> None:
    """Give a student the known answers that `avsync doctor` compares with; `onnx` does it by itself."""
    from export.known_answers import add_known_answers

    add_known_answers(student)


if __name__ == "__main__":
    app(prog_name="python -m export")
