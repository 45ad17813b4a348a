"""The command line: parse, call, print. Answers go to stdout, everything else to stderr."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsync_cli import __version__
from avsync_cli.batch.command import scan
from avsync_cli.device import bench, doctor
from avsync_cli.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    AvsyncError,
    ConfigError,
    MediaError,
    complain,
)
from avsync_cli.spec import (
    DEFAULT_TOLERANCE,
    EVERY_S,
    MAX_RANGE_FRAMES,
    RANGE_FRAMES,
    TOLERANCES,
    Wanted,
    parse_tolerance,
)

if TYPE_CHECKING:
    from avsync_cli.check import Progress
    from avsync_cli.report import Report
    from avsync_cli.spec import Tolerance

app = typer.Typer(
    name="avsync",
    help="Does the mouth move with the voice? By how many milliseconds not, how sure is that, how to fix it.",
    add_completion=False,
    rich_markup_mode=None,  # plain help starts in half the time
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avsync {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def check(
    videos: Annotated[list[Path], typer.Argument(help="Video files.", metavar="VIDEO")],
    audio: Annotated[
        Path | None, typer.Option(help="Check against this sound file instead of the video's own sound.")
    ] = None,
    audio_stream: Annotated[
        int | None, typer.Option(min=0, help="Which of several sounds of a video, from 0.")
    ] = None,
    start: Annotated[float, typer.Option(help="Seconds at which to begin.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Seconds at which to end.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look at all of a long video, not at passages.")
    ] = False,
    range_frames: Annotated[
        int, typer.Option("--range", help=f"Frames of 40 ms to try on both sides, up to {MAX_RANGE_FRAMES}.")
    ] = RANGE_FRAMES,
    speaker: Annotated[
        str, typer.Option(help="Whom to listen to: auto, all, or the number of a face, from 1.")
    ] = "auto",
    every: Annotated[
        float, typer.Option(help="Seconds from one point of the timeline to the next, 1 or more.")
    ] = EVERY_S,
    tolerance: Annotated[
        str,
        typer.Option(help=f"What counts as in sync: {', '.join(TOLERANCES)}, or LATEST,EARLIEST in ms."),
    ] = DEFAULT_TOLERANCE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Folder of another student than the bundled one.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 uses every core.")] = 0,
    precision: Annotated[
        Wanted,
        typer.Option(
            help="Arithmetic of the student; auto: int8 where it has that and the CPU is fast at it."
        ),
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the verdict.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every face and the timings.")
    ] = False,
) -> None:
    """Say whether audio and video are in sync, and by how many milliseconds they are not.

    Exit codes: 0 in sync, 1 out of sync, 2 usage, 3 undetermined, 4 media unreadable, 5 model unusable.
    """
    from avsync_cli.check import check_file, load_engine
    from avsync_cli.display import print_report
    from avsync_cli.report import gravest_exit_code

    if audio is not None and len(videos) > 1:
        raise ConfigError("--audio goes with one video, not with several")
    limits = parse_tolerance(tolerance)
    engine = load_engine(model, threads=threads, precision=precision)
    check_one = partial(
        check_file,
        audio=audio,
        audio_stream=audio_stream,
        tolerance=limits,
        engine=engine,
        start_s=start,
        end_s=end,
        full=full,
        range_frames=range_frames,
        speaker=speaker,
        every_s=every,
    )
    codes = []
    for video in videos:
        with _progress_bar(video, shown=not (quiet or as_json)) as progress:
            report = _check_or_report(video, partial(check_one, progress=progress), limits)
        if as_json:
            typer.echo(json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False))
        elif report.status != "error":
            print_report(
                report,
                audio=None if audio is None else str(audio),
                audio_stream=audio_stream,
                quiet=quiet,
                verbose=verbose,
            )
        codes.append(report.exit_code)
    raise typer.Exit(gravest_exit_code(codes))


app.command()(scan)
app.command()(doctor)
app.command()(bench)


def _check_or_report(video: Path, check_one: "Callable[[Path], Report]", limits: "Tolerance") -> "Report":
    """Check one file; one that cannot be read becomes a report too, and a line on stderr."""
    from avsync_cli.report import error_report

    try:
        return check_one(video)
    except MediaError as error:
        complain(str(error))
        return error_report(str(video), error, limits)


@contextmanager
def _progress_bar(video: Path, *, shown: bool) -> "Iterator[Progress | None]":
    """A progress bar on stderr, and only where a person sees it."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    with RichProgress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(video.name, total=None)
        yield lambda done_s, total_s: bar.update(task, completed=done_s, total=total_s)


def main() -> None:
    """Run the command line; every way to end has its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "±" still gets its verdict
    try:
        code = app(prog_name="avsync", standalone_mode=False)
    except AvsyncError as error:
        complain(str(error))
        code = error.exit_code
    except typer.TyperException as error:  # what Typer says of options and arguments
        complain(error.format_message())
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_INTERRUPTED
    except Exception as error:
        # Python would exit with 1, which means out of sync.
        complain(f"bug: {type(error).__name__}: {error} (set AVSYNC_TRACEBACK=1 for the details)")
        if os.environ.get("AVSYNC_TRACEBACK"):
            raise SystemExit(EXIT_BUG) from error
        code = EXIT_BUG
    sys.exit(code)


if __name__ == "__main__":
    main()
