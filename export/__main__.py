"""Command line of the exporters; each command imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated

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
def student(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of `python -m training match`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the student.")],
    calibration: Annotated[
        Path | None, typer.Option(help="JSON with weights, min_confidence and spread_ms.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name in reports; the folder's by default.")] = None,
) -> None:
    """Turn a checkpoint into a student: three ONNX graphs and the model.json that describes them."""
    from avsync_cli.errors import AvsyncError
    from export.student import export_student

    try:
        folder = export_student(checkpoint, output, calibration=calibration, name=name)
    except AvsyncError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    for path in sorted(folder.iterdir()):
        typer.echo(f"{path}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    app(prog_name="python -m export")
