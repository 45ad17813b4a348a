"""`avsync web`: its options."""

from pathlib import Path
from typing import Annotated

import typer

from avsync_cli.batch.limits import DEFAULT_MEMORY_MB
from avsync_cli.command_options import Model, Precision, Tolerance
from avsync_cli.spec import DEFAULT_TOLERANCE
from avsync_cli.web.options import DEFAULT_UPLOAD_MB, WebOptions


def web(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0: any that is free.")] = 0,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also show this folder's videos, to be checked where they are."),
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(help="MB up to which a video is taken.")] = DEFAULT_UPLOAD_MB,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    model: Model = None,
    precision: Precision = "auto",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for one video; without it they grow with its duration.")
    ] = None,
    memory: Annotated[int, typer.Option(help="MB for one video.")] = DEFAULT_MEMORY_MB,
) -> None:
    """Show a page on this machine to drop videos on: verdicts, reports, mended copies.

    It serves 127.0.0.1 alone. The printed address lets in one browser, with all of its tabs. Videos are
    erased when they are removed, when the page is closed, and when this ends, as it does with Ctrl-C.
    """
    from avsync_cli.options import CheckOptions
    from avsync_cli.web.server import serve_page

    options = WebOptions(port, root, max_upload_mb, timeout, memory, browse=browser)
    serve_page(options, CheckOptions(tolerance=tolerance), model=model, precision=precision, tell=_tell)


def _tell(address: str) -> None:
    typer.echo(f"avsync is at {address}\nCtrl-C ends it and erases what it holds.")
