"""Command line of the exporters; each command imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)

ASSETS = Path("avsync_cli") / "assets"


@app.callback()
def main() -> None:
    """Make the model files that avsync_cli ships."""


@app.command()
def faces(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the ONNX files.")] = ASSETS,
) -> None:
    """Convert MediaPipe's face detector and face mesh to ONNX."""
    from export.faces import WheelError, export_faces

    try:
        written = export_faces(output)
    except WheelError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for path in written:
        typer.echo(f"{path}  {path.stat().st_size} bytes")


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or a file of published weights.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the student.")],
    calibration: Annotated[
        Path | None, typer.Option(help="JSON with weights, min_confidence and spread_ms.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name in reports; the folder's by default.")] = None,
    network: Annotated[
        str | None, typer.Option(help="Whose weights the file holds: vocalist or mtdvocalist, say.")
    ] = None,
    pixels: Annotated[
        Literal["rgb255", "bgr1"] | None,
        typer.Option(help="How published weights want their frames, if not as they were published."),
    ] = None,
    crop: Annotated[
        Literal["mouth", "face"] | None,
        typer.Option(help="What a published network was trained on, if its file does not say; face."),
    ] = None,
) -> None:
    """Turn a checkpoint into a student: three ONNX graphs and the model.json that describes them."""
    from avsync_cli.errors import AvsyncError
    from export.student import export_student
    from export.trained import open_trained

    try:
        trained = open_trained(checkpoint, network=network, pixels=pixels, crop=crop)
        folder = export_student(trained, output, calibration=calibration, name=name)
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    for path in sorted(folder.iterdir()):
        typer.echo(f"{path}  {path.stat().st_size} bytes")


@app.command()
def answers(
    student: Annotated[Path, typer.Argument(help="Folder of a student that has none.")],
) -> None:
    """Give a student the known answers that `avsync doctor` compares with; `onnx` does it by itself."""
    from avsync_cli.errors import AvsyncError
    from export.known_answers import add_known_answers

    try:
        add_known_answers(student)
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    app(prog_name="python -m export")
