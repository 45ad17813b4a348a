"""`avsync fix`: its options, and what is printed."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsync_cli.command_options import Model, Precision, RangeFrames, Speaker, Threads, Tolerance
from avsync_cli.spec import DEFAULT_TOLERANCE, RANGE_FRAMES

if TYPE_CHECKING:
    from avsync_cli.fix import Fix


def fix(
    video: Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; else beside it, as NAME.synced.EXT.")
    ] = None,
    by: Annotated[
        float | None,
        typer.Option(help="Delay the sound by this many ms, without a check; below 0 it comes earlier."),
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="After an edit: move each stretch by its own offset.")
    ] = False,
    resample: Annotated[
        bool, typer.Option("--resample", help="Against a drift: encode the sound again, a little slower.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Move what is in sync, or disagrees with itself, too; keep what its check does not confirm.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file to write.")] = False,
    audio_stream: Annotated[
        int | None, typer.Option(min=0, help="Check and move this sound alone, from 0; else all are moved.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Look at all of a long video.")] = False,
    range_frames: RangeFrames = RANGE_FRAMES,
    speaker: Speaker = "auto",
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    model: Model = None,
    threads: Threads = 0,
    precision: Precision = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print one line.")] = False,
) -> None:
    """Put a video right: write a copy whose sound is where it belongs, without loss.

    All streams are copied as they are, the sound at another time; the video itself is never touched. The
    copy is checked before it gets its name.

    Exit codes: 0 fixed, or in sync already; 1 out of sync and not fixed; 2 usage, also where the copy exists
    already; 3 undetermined; 4 media unreadable; 5 model unusable; 6 the copy cannot be written.
    """
    from avsync_cli.check import check_file, load_engine
    from avsync_cli.fix import FixOptions, fix_file

    options = FixOptions(out, by, audio_stream, segments, resample, force, overwrite)
    check = partial(
        check_file,
        engine=None if by is not None else load_engine(model, threads=threads, precision=precision),
        audio_stream=audio_stream,
        tolerance=tolerance,
        full=full,
        range_frames=range_frames,
        speaker=speaker,
    )
    done = fix_file(video, check, options)
    if as_json:
        typer.echo(json.dumps(done.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _print_fix(done, quiet=quiet)
    raise typer.Exit(done.exit_code)


def _print_fix(done: "Fix", *, quiet: bool) -> None:
    from rich.console import Console

    from avsync_cli.escapes import as_text

    style, verdict = {
        "fixed": ("bold green", "fixed"),
        "nothing_to_fix": ("bold green", "nothing to fix"),
        "refused": ("bold yellow", "not fixed"),
    }[done.status]
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    console.print(as_text(f"{done.file}: ", (verdict, style), f": {done.message}"))
    if quiet:
        return
    for name, report in (("before", done.before), ("after", done.after)):
        if report is not None:
            console.print(as_text("  ", (f"{name:<11}", "dim"), report.message))
    if done.container_note is not None:
        console.print(as_text("  ", (f"{'container':<11}", "dim"), done.container_note))
    if done.left_out_packets:
        text = f"{done.left_out_packets} packets of sound that belong to no picture are left out"
        console.print(as_text("  ", (f"{'left out':<11}", "dim"), text))
