"""A report in words for people, on a terminal or in a pipe."""

from rich.console import Console

from avsync_cli.container import AUTO_STREAM
from avsync_cli.escapes import as_text
from avsync_cli.fix_lines import avsync_command, fix_command
from avsync_cli.report import (
    Report,
    Status,
    StepReport,
    TrackReport,
    describe_confidence,
    exit_code_of,
    verdict_words,
)
from avsync_cli.spec import FRAME_MS

STATUS_STYLES: dict[Status, tuple[str, str]] = {
    "in_sync": ("bold green", "in sync"),
    "out_of_sync": ("bold red", "out of sync"),
    "undetermined": ("bold yellow", "undetermined"),
    "error": ("bold red", "error"),
}


def print_report(
    report: Report,
    *,
    audio: str | None = None,
    audio_stream: str | int | None = None,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Print the verdict; unless quiet what it rests on and how to fix it; every face if verbose.

    `audio` is the separate sound file that was checked, if any, `audio_stream` the number of the sound that
    was asked for, or "auto".
    """
    console = Console(soft_wrap=True, highlight=False, emoji=False)  # ":a:" is no emoji in a command
    style, verdict = STATUS_STYLES[report.status]
    console.print(as_text(f"{report.file}: ", (verdict, style), f": {verdict_words(report)}"))
    if quiet:
        return
    for name, text in _details(report, audio, audio_stream):
        console.print(as_text("  ", (f"{name:<11}", "dim"), text))
    if verbose:
        for track in report.tracks:
            console.print(as_text("  ", (f"{'face':<11}", "dim"), _describe_track(track)))
        timings = report.timings_s
        stages = f"decode {timings.decode:.2f}, faces {timings.faces:.2f}, encode {timings.encode:.2f}"
        console.print(
            f"  [dim]{'seconds':<11}[/]{stages}, score {timings.score:.2f}, total {timings.total:.2f}"
        )
        if report.model is not None:
            identity = f"{report.model.name} {report.model.sha256[:12]}, {report.model.precision}"
            console.print(as_text("  ", (f"{'model':<11}", "dim"), identity))


def count_verdicts(codes: list[int]) -> str:
    """How many of several files have which verdict: "3 files: 2 in sync, 1 error"."""
    counts = {verdict: codes.count(exit_code_of(status)) for status, (_, verdict) in STATUS_STYLES.items()}
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"{len(codes)} files: {words}"


def _details(report: Report, audio: str | None, audio_stream: str | int | None) -> list[tuple[str, str]]:
    latest, earliest = report.limits_ms
    details = []
    if report.audio_lead_ms is not None and report.uncertainty_ms is not None:
        sure = f"{describe_confidence(report.confidence)} that this is right to one frame ({FRAME_MS} ms)"
        details.append(("confidence", f"{sure}, ±{report.uncertainty_ms:.0f} ms"))
        details.append(("limits", f"audio may lag by {-latest:g} ms and lead by {earliest:g} ms"))
    if audio_stream == AUTO_STREAM and report.audio_stream is not None:
        details.append(("heard", f"audio stream {report.audio_stream}"))
    if report.tracks:
        details.append(("looked at", _describe_used(report)))
    elif report.passages:
        details.append(("looked at", _describe_search(report)))
    turned = sorted({track.turned_degrees for track in report.tracks} - {0})
    if turned:
        degrees = ", ".join(f"{each}" for each in turned)
        details.append(("turned", f"a face stands turned from upright by {degrees} degrees"))
    details += [("edit", _describe_step(step)) for step in report.steps]
    if report.drift_ms_per_min is not None:
        details.append(("drift", _describe_drift(report)))
    if report.status == "out_of_sync" and report.audio_lead_ms is not None and report.agreed:
        moved = None if audio_stream is None else report.audio_stream
        details += _describe_fixes(report, audio, moved)
    return details


def _describe_fixes(report: Report, audio: str | None, audio_stream: int | None) -> list[tuple[str, str]]:
    """The commands that put the file right."""
    commands = [] if audio is not None else [avsync_command(report, audio_stream=audio_stream)]
    # A single delay mends only what is early or late throughout.
    if report.course in (None, "constant"):
        command = fix_command(
            report.file, report.audio_lead_ms or 0.0, audio=audio, audio_stream=audio_stream
        )
        commands += [] if command is None else [command]
    return [("or" if place else "to fix", command) for place, command in enumerate(commands)]


def _describe_used(report: Report) -> str:
    """The face that the answer rests on, or that it rests on all of them."""
    count = len(report.tracks)
    places = report.heard_tracks if report.used_track is None else (report.used_track,)
    used = [report.tracks[place] for place in places] or list(report.tracks)
    first_s, last_s = min(track.start_s for track in used), max(track.end_s for track in used)
    who = "the only face" if count == 1 else f"{len(used)} of {count} faces"
    if len(used) == count > 1 and not report.differing_faces:
        who = f"all {count} faces together"
    if len(report.passages) < 2:
        return f"{who}, {first_s:.1f} s to {last_s:.1f} s"
    # A person is another face in every passage: how many faces there are tells nothing.
    seen = sum(
        any(passage.start_s <= track.start_s < passage.end_s for track in used) for passage in report.passages
    )
    who = f"who is seen in {seen} of them"
    return f"{_describe_places(report)}: {who}, {first_s:.1f} s to {last_s:.1f} s"


def _describe_search(report: Report) -> str:
    """How much was looked at without finding anybody, and how to look at more."""
    if len(report.passages) < 2:
        return f"{report.looked_at_s:.0f} s"
    return f"{_describe_places(report)}; --full looks at everything"


def _describe_places(report: Report) -> str:
    """How much was looked at, of how much: "24 s of 59 min in 10 places"."""
    whole = ""
    if report.duration_s is not None:
        minutes = report.duration_s / 60
        whole = f" of {minutes:.0f} min" if minutes >= 2 else f" of {report.duration_s:.0f} s"
    return f"{report.looked_at_s:.0f} s{whole} in {len(report.passages)} places"


def _describe_step(step: StepReport) -> str:
    change = f"from an audio lead of {step.from_ms:+.0f} ms to {step.to_ms:+.0f} ms"
    return f"at {step.at_s:.1f} s ± {step.uncertainty_s:.1f} s {change}"


def _describe_drift(report: Report) -> str:
    uncertainty = report.drift_uncertainty_ms_per_min or 0.0
    slope = report.drift_ms_per_min or 0.0
    return (
        f"audio lead {'grows' if slope > 0 else 'falls'} by {abs(slope):.1f} ± {uncertainty:.1f} ms a minute"
    )


def _describe_track(track: TrackReport) -> str:
    x0, y0, x1, y1 = (round(edge) for edge in track.box)
    lead = "no offset" if track.audio_lead_ms is None else f"audio lead {track.audio_lead_ms:+.0f} ms"
    where = f"{track.start_s:.1f} s to {track.end_s:.1f} s at {x0},{y0} to {x1},{y1}"
    speaking = {True: "speaking, ", False: "not speaking, ", None: ""}[track.speaking]
    return f"{where}: {speaking}{lead}, confidence {describe_confidence(track.confidence)}"
