"""The command line: parse, call, print. Answers go to stdout, everything else to stderr."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsync_cli import __version__
from avsync_cli.batch.command import scan
from avsync_cli.batch.limits import OPENING_S, file_time_s
from avsync_cli.command_options import FollowPlaylists, Model, Threads
from avsync_cli.device_commands import bench, doctor
from avsync_cli.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    AvsyncError,
    ConfigError,
    MediaError,
    complain,
)
from avsync_cli.escapes import printable
from avsync_cli.fix_commands import fix
from avsync_cli.given import given_file, given_sound
from avsync_cli.live.command import watch
from avsync_cli.sandbox import (
    AUDIO_MEMORY_MB,
    CHECK_MEMORY_MB,
    Bounds,
    allow,
    answer_file,
    first_file,
    is_child,
    limit_child,
    run_apart,
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
from avsync_cli.timing import parse_time
from avsync_cli.web.command import web

if TYPE_CHECKING:
    from avsync_cli.check import Progress
    from avsync_cli.options import CheckOptions
    from avsync_cli.report import Report
    from avsync_cli.spec import Tolerance

app = typer.Typer(
    name="avsync",
    help="Does the mouth move with the voice? How many ms they differ, how sure that is, how to fix it.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # plain help starts in half the time
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avsync {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(short_help="Say whether sound and picture are in sync.")
def check(
    videos: Annotated[
        list[str],
        typer.Argument(help="Video files; addresses, as for scan; - for standard input.", metavar="VIDEO"),
    ],
    audio: Annotated[
        str | None, typer.Option(help="Check against this sound file instead of the video's own sound.")
    ] = None,
    audio_stream: Annotated[
        str | None,
        typer.Option(help="Which of several sounds of a video, from 0; auto: one that has a voice."),
    ] = None,
    start: Annotated[
        float, typer.Option(parser=parse_time, metavar="TIME", help="Where to begin: seconds, or HH:MM:SS.")
    ] = 0.0,
    end: Annotated[
        float | None, typer.Option(parser=parse_time, metavar="TIME", help="Where to end, likewise.")
    ] = None,
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
        typer.Option(help=f"What counts as in sync: {', '.join(TOLERANCES)}, or LAG,LEAD in ms."),
    ] = DEFAULT_TOLERANCE,
    page: Annotated[
        Path | None, typer.Option("--report", help="Write a page (HTML) that shows what was found.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write what was found as a figure: .png, .svg or .pdf.")
    ] = None,
    visualize: Annotated[
        Path | None, typer.Option(help="Write a copy with faces and offsets drawn on it: .mp4, .mov or .mkv.")
    ] = None,
    markers: Annotated[
        Path | None, typer.Option(help="Write marks for editors: .edl, .fcpxml, .otio or .csv.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of --visualize and --markers.")
    ] = False,
    timecode: Annotated[
        str | None, typer.Option(help="Timecode of the first picture in all of these; else the file's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")] = False,
    model: Model = None,
    threads: Threads = 0,
    precision: Annotated[
        Wanted,
        typer.Option(help="Arithmetic of the model; auto: int8 where it has that and the CPU is fast at it."),
    ] = "auto",
    follow_playlists: FollowPlaylists = False,
    sandbox: Annotated[
        bool, typer.Option(help="Check in a process apart, so that a file that crashes it harms no other.")
    ] = True,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds for one video, with --sandbox; 60 and 10 for each second of it."),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            help=f"MB for one video, with --sandbox; {CHECK_MEMORY_MB}, with --audio {AUDIO_MEMORY_MB}."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the verdict.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every face and the timings.")
    ] = False,
) -> None:
    """Say whether audio and video are in sync, and by how many milliseconds they are not.

    Exit codes: 0 in sync, 1 out of sync, 2 usage, 3 undetermined, 4 media unreadable, 5 model unusable.
    """
    if audio is not None and len(videos) > 1:
        raise ConfigError("--audio goes with one video, not with several")
    bounds = Bounds(timeout, memory or (CHECK_MEMORY_MB if audio is None else AUDIO_MEMORY_MB))
    if sandbox and not is_child() and sys.platform != "win32":
        raise typer.Exit(
            _check_apart(videos, bounds, parse_tolerance(tolerance), as_json=as_json, quiet=quiet)
        )
    from avsync_cli.check import check_file, load_engine
    from avsync_cli.display import print_report
    from avsync_cli.options import CheckOptions
    from avsync_cli.report import gravest_exit_code
    from avsync_cli.showing import Showing, check_and_show

    options = CheckOptions(
        audio=audio,
        audio_stream=audio_stream,
        tolerance=tolerance,
        start_s=start,
        end_s=end,
        full=full,
        range_frames=range_frames,
        speaker=speaker,
        every_s=every,
    )
    showing = Showing(page, plot, visualize, markers, timecode, overwrite)
    if showing.is_wanted:
        showing.refuse(videos, options)
    engine = load_engine(model, threads=threads, precision=precision)
    check_one = partial(check_file, engine=engine)
    if showing.is_wanted:
        check_one = partial(check_and_show, engine=engine, showing=showing, name=videos[0])
    codes: list[int] = []
    limit_child(bounds)
    begin = first_file()
    for place, video in enumerate(videos[begin:], begin + 1):
        title = f"{place} of {len(videos)} {video}" if len(videos) > 1 else video
        with answer_file() as code:
            with _progress_bar(title, shown=not (quiet or as_json)) as progress:
                check_this = partial(check_one, progress=progress)
                report = _check_or_report(video, check_this, options, follow_playlists=follow_playlists)
            if as_json:
                _print_json(report)
            elif report.status != "error":
                print_report(
                    report,
                    audio=audio,
                    audio_stream=audio_stream,
                    quiet=quiet,
                    verbose=verbose,
                )
            code.append(report.exit_code)
        codes += code
    _print_count(codes, shown=not (quiet or as_json or is_child()))
    raise typer.Exit(gravest_exit_code(codes))


app.command(short_help="Write a copy whose sound lies where it belongs.")(fix)
app.command(short_help="Check whole folders of videos, and go on where it was ended.")(scan)
app.command(short_help="Show a page on this machine to drop videos on.")(web)
app.command(short_help="Watch a stream, a camera or a file that grows.")(watch)
app.command(short_help="Say whether all models compute right on this device.")(doctor)
app.command(short_help="Time every stage of a check on this device.")(bench)


def _print_count(codes: list[int], *, shown: bool) -> None:
    """After several files, how many have which verdict."""
    if shown and len(codes) > 1:
        from avsync_cli.display import count_verdicts

        typer.echo(count_verdicts(codes))


def _print_json(report: "Report") -> None:
    typer.echo(json.dumps(report.to_json(), ensure_ascii=True, allow_nan=False))


def _check_apart(
    videos: list[str], bounds: Bounds, limits: "Tolerance", *, as_json: bool, quiet: bool
) -> int:
    """Check the files in processes apart and answer for those that are lost; the exit code of all."""
    from avsync_cli.report import LostReason, error_report, gravest_exit_code

    def lost(place: int, reason: LostReason, words: str) -> None:
        error = MediaError(f"{videos[place]}: {words}", reason)
        complain(str(error))
        if as_json:
            _print_json(error_report(videos[place], error, limits))
        lost_codes.append(error.exit_code)

    lost_codes: list[int] = []
    codes, ended_by = run_apart(len(videos), sys.argv[1:], bounds, lost)
    _print_count(codes + lost_codes, shown=ended_by is None and not (quiet or as_json))
    return gravest_exit_code(codes + lost_codes) if ended_by is None else ended_by


def _check_or_report(
    video: str, check_one: "Callable[..., Report]", options: "CheckOptions", *, follow_playlists: bool
) -> "Report":
    """Check one file; one that cannot be read becomes a report too, and a line on stderr."""
    from avsync_cli.report import error_report

    try:
        given = given_file(video, follow_playlists=follow_playlists)
        with given as path, given_sound(options.audio) as sound:
            if is_child():
                allow(OPENING_S)
                allow(file_time_s(path))
            report = check_one(path, options=replace(options, audio=sound))
            return replace(report, file=video, message=report.message.replace(str(path), video))
    except MediaError as error:
        if isinstance(error.__cause__, MemoryError):
            error = MediaError(f"{video}: needs more memory than it may (--memory)", "memory_limit")
        complain(str(error))
        return error_report(video, error, options.limits)


@contextmanager
def _progress_bar(title: str, *, shown: bool) -> "Iterator[Progress | None]":
    """A progress bar on stderr, and only where a person sees it."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(file=sys.__stderr__), transient=True) as bar:
        task = bar.add_task(printable(title), total=None)
        yield lambda done_s, total_s: bar.update(task, completed=done_s, total=total_s)


def main() -> None:
    """Run the command line; every way to end has its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "±" still gets its verdict
    try:
        code = app(prog_name="avsync", standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # which Typer makes of an interrupt, or a command by itself
            raise KeyboardInterrupt
    except AvsyncError as error:
        complain(str(error))
        code = error.exit_code
    except typer.TyperException as error:  # what Typer says of options and arguments
        complain(error.format_message())
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):  # the latter where standard input ended
        if not is_child():  # whose parent says it
            complain("interrupted")
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
    if code == EXIT_INTERRUPTED:
        # Python ends itself by a signal, and not with a code, where an interrupt came while it read a class.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
