"""`avsync scan`: its options, and what is printed and written after it."""

from pathlib import Path
from typing import Annotated

import typer

from avsync_cli.batch.limits import DEFAULT_COPY_MB, DEFAULT_MEMORY_MB
from avsync_cli.command_options import FollowPlaylists, Model, Precision, RangeFrames, Speaker, Tolerance
from avsync_cli.errors import EXIT_IN_SYNC, EXIT_INTERRUPTED, EXIT_MEDIA, ConfigError, complain
from avsync_cli.spec import DEFAULT_TOLERANCE, EVERY_S, RANGE_FRAMES


def scan(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Folders, videos, patterns, addresses such as s3://BUCKET/FOLDER; a list of any of these in "
            "a .txt file, or - for one on standard input.",
        ),
    ],
    results: Annotated[Path, typer.Option("--output", "-o", help="File of results, one JSON line a video.")],
    include: Annotated[
        list[str], typer.Option(help="Take these files of a folder instead of all videos, such as '*.mp4'.")
    ] = [],  # noqa: B006 - Typer copies it
    exclude: Annotated[list[str], typer.Option(help="Leave these files and folders out.")] = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the results that are there.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Go on, and check again what ended in an error.")
    ] = False,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    full: Annotated[
        bool, typer.Option("--full", help="Look at all of long videos, not at passages.")
    ] = False,
    range_frames: RangeFrames = RANGE_FRAMES,
    speaker: Speaker = "auto",
    every: Annotated[
        float, typer.Option(help="Seconds from one point of the timeline to the next.")
    ] = EVERY_S,
    audio_stream: Annotated[
        int | None, typer.Option(min=0, help="Which of several sounds of each video, from 0.")
    ] = None,
    model: Model = None,
    precision: Precision = "auto",
    jobs: Annotated[
        str, typer.Option(help="Videos checked at once, one core each; auto: what cores and memory allow.")
    ] = "auto",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for one video; without it they grow with its duration.")
    ] = None,
    cpu_time: Annotated[
        float | None, typer.Option(help="CPU seconds for one video; without it as the timeout.")
    ] = None,
    memory: Annotated[int, typer.Option(help="MB for one video.")] = DEFAULT_MEMORY_MB,
    copy_limit: Annotated[
        int, typer.Option(help="MB up to which a video at an address is copied here.")
    ] = DEFAULT_COPY_MB,
    scheduler: Annotated[
        str | None, typer.Option(help="Check on the Dask cluster at this address, such as tcp://HOST:8786.")
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Write a copy in sync, NAME.synced.EXT, beside each that is out of sync."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the results as CSV too.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the results as Parquet too.")] = None,
    faces: Annotated[
        Path | None, typer.Option(help="Write a row for each face of each passage, as .csv or .parquet.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page over all videos, and one of each, to this folder."),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the final table as JSON too.")] = None,
    follow_playlists: FollowPlaylists = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="End with 0 whatever the answers are.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print neither progress nor the table.")
    ] = False,
) -> None:
    """Check whole folders of videos, each in a process of its own, and go on where a scan was ended.

    Exit codes: the gravest of all answers, as for check; 6 the results cannot be written or the cluster is
    gone, 130 interrupted.
    """
    from avsync_cli.batch.journal import read_answers
    from avsync_cli.batch.options import ScanOptions
    from avsync_cli.batch.overview import write_overview
    from avsync_cli.batch.run import scan_files
    from avsync_cli.batch.tables import check_outputs
    from avsync_cli.escapes import printable
    from avsync_cli.options import CheckOptions

    outputs = [path for path in (csv, parquet, faces, summary) if path is not None]
    is_parquet = parquet is not None or (faces is not None and faces.suffix == ".parquet")
    check_outputs(results, outputs, parquet=is_parquet)
    scanned = scan_files(
        sources,
        results,
        scan=ScanOptions(
            include=include,
            exclude=exclude,
            outputs=outputs,
            resume=resume,
            retry_errors=retry_errors,
            jobs=_parse_jobs(jobs),
            timeout_s=timeout,
            cpu_s=cpu_time,
            memory_mb=memory,
            copy_mb=copy_limit,
            scheduler=scheduler,
            fix=fix,
            pages=None if report is None else report.resolve(),
            follow_playlists=follow_playlists,
        ),
        options=CheckOptions(
            tolerance=tolerance,
            full=full,
            range_frames=range_frames,
            speaker=speaker,
            every_s=every,
            audio_stream=audio_stream,
        ),
        model=model,
        precision=precision,
        show_progress=not quiet,
    )
    for line in (*scanned.unread, *scanned.not_fixed):
        complain(printable(line))
    code = _sum_up(results, csv=csv, parquet=parquet, faces=faces, summary=summary, quiet=quiet)
    if report is not None:
        write_overview(read_answers(results), report)
    if fix and not quiet:
        typer.echo(f"{scanned.fixed} fixed, {len(scanned.not_fixed)} not fixed")
    if scanned.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    from avsync_cli.report import gravest_exit_code

    codes = [code, EXIT_MEDIA] if scanned.unread else [code]
    raise typer.Exit(EXIT_IN_SYNC if exit_zero else gravest_exit_code(codes))


def _sum_up(
    results: Path,
    *,
    csv: Path | None,
    parquet: Path | None,
    faces: Path | None,
    summary: Path | None,
    quiet: bool,
) -> int:
    """Write and print what the results file says as a whole, and return its gravest exit code."""
    from avsync_cli.batch import tables
    from avsync_cli.batch.journal import read_answers
    from avsync_cli.batch.summary import print_summary, summarise

    total = summarise(read_answers(results))
    if csv is not None:
        tables.write_csv(read_answers(results), csv)
    if parquet is not None:
        tables.write_parquet(read_answers(results), parquet)
    if faces is not None:
        tables.write_faces(read_answers(results), faces)
    if summary is not None:
        tables.write_summary(total, summary)
    if not quiet:  # last, because whoever reads it may be gone
        print_summary(total)
    return total.exit_code


def _parse_jobs(value: str) -> int:
    """A number of workers, 0 for "auto". Raises ConfigError."""
    if value == "auto":
        return 0
    if not (value.isdecimal() and int(value) > 0):
        raise ConfigError(f"--jobs {value}: neither auto nor a number above 0")
    return int(value)
