"""`avsync watch`: its options, and what is printed."""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from avsync_cli.command_options import Model, Precision, RangeFrames, Threads
from avsync_cli.command_options import Tolerance as ToleranceOption
from avsync_cli.errors import ConfigError
from avsync_cli.spec import DEFAULT_TOLERANCE, RANGE_FRAMES, parse_tolerance
from avsync_cli.stops import hearing_stops

if TYPE_CHECKING:
    from avsync_cli.live.source import Source
    from avsync_cli.live.watch import Happening
    from avsync_cli.spec import Tolerance

EVERY_S, WINDOW_S = 2.0, 8.0


def watch(
    source: Annotated[
        str,
        typer.Argument(
            help="A file that grows, - for standard input, an address (rtsp, rtp, udp, tcp, http, https, "
            "rtmp, srt), or with --format a camera.",
            metavar="SOURCE",
        ),
    ],
    form: Annotated[
        str | None, typer.Option("--format", help="SOURCE is a camera: v4l2, avfoundation or dshow.")
    ] = None,
    sound: Annotated[str | None, typer.Option(help="The camera's microphone, such as hw:0.")] = None,
    sound_form: Annotated[
        str | None,
        typer.Option("--sound-format", help="Its format: alsa, pulse, avfoundation or dshow."),
    ] = None,
    tolerance: ToleranceOption = DEFAULT_TOLERANCE,
    delay: Annotated[
        float, typer.Option(help="The sound will be heard so many ms later than it comes: judge it as then.")
    ] = 0.0,
    range_frames: RangeFrames = RANGE_FRAMES,
    window: Annotated[float, typer.Option(help="Seconds that a verdict rests on.")] = WINDOW_S,
    every: Annotated[float, typer.Option(help="Seconds from one verdict to the next.")] = EVERY_S,
    command: Annotated[
        str | None,
        typer.Option("--exec", help="Program to run when the verdict changes; AVSYNC_STATUS tells it."),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="Address to post each change of the verdict to, as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")] = False,
    reconnect: Annotated[bool, typer.Option(help="Open a lost connection or camera again.")] = True,
    retries: Annotated[
        int | None, typer.Option(min=0, help="How many times in a row; else for ever.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds without anything, after which a connection is lost.")
    ] = 10.0,
    wait: Annotated[
        float, typer.Option(help="Seconds in which nothing is added to a file, after which it is at its end.")
    ] = 10.0,
    for_s: Annotated[float | None, typer.Option("--for", help="End after so many seconds.")] = None,
    model: Model = None,
    threads: Threads = 1,
    precision: Precision = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only changes of the verdict.")] = False,
) -> None:
    """Watch a stream, a camera or a file that grows: every 2 s, whether audio and video are in sync.

    Exit codes at the end: 0 in sync throughout, 1 out of sync for some time, 2 usage, 3 undetermined, 4 media
    unreadable, 5 model unusable, 130 interrupted.
    """
    from avsync_cli.check import load_engine
    from avsync_cli.live.hooks import Hooks
    from avsync_cli.live.hysteresis import Change
    from avsync_cli.live.monitor import Monitor
    from avsync_cli.live.source import Source
    from avsync_cli.live.watch import told_of, watch_source

    if for_s is not None and not 0 < for_s < float("inf"):
        raise ConfigError(f"--for {for_s:g}: must be above 0")
    watched = Source(source, form, sound, sound_form, wait_s=wait, timeout_s=timeout)
    limits, hooks = parse_tolerance(tolerance), Hooks(command, webhook)
    with ExitStack() as stack:
        stack.enter_context(hearing_stops(signal.default_int_handler))  # a service is ended by SIGTERM
        stack.callback(hooks.close)  # also after Ctrl-C: what was told last is heard
        show = _choose_display(watched, limits, stack, as_json=as_json, quiet=quiet, delay_ms=delay)

        def tell(happening: "Happening") -> None:
            show(happening)
            if isinstance(happening, Change):
                hooks.tell(told_of(happening, watched))

        engine = load_engine(model, threads=threads, precision=precision)
        monitor = stack.enter_context(
            Monitor(
                engine,
                tolerance=limits,
                range_frames=range_frames,
                window_s=window,
                every_s=every,
                delay_ms=delay,
            )
        )
        done = watch_source(
            watched,
            monitor,
            limits,
            tell,
            threads=engine.threads,
            retries=retries if reconnect else 0,
            for_s=for_s,
        )
    raise typer.Exit(done.exit_code)


def _choose_display(
    source: "Source",
    limits: "Tolerance",
    stack: ExitStack,
    *,
    as_json: bool,
    quiet: bool,
    delay_ms: float,
) -> "Callable[[Happening], None]":
    from avsync_cli.live.display import Board, Lines
    from avsync_cli.live.watch import told_of

    if as_json:
        return lambda happening: print(
            json.dumps(told_of(happening, source), ensure_ascii=True, allow_nan=False), flush=True
        )
    if sys.stdout.isatty() and not quiet:
        return stack.enter_context(Board(source.name, limits, delay_ms=delay_ms)).tell
    return Lines(source.name, quiet=quiet).tell
