"""A report in words for people, on a terminal or in a pipe."""

from rich.console import Console
from rich.markup import escape

from avsync_cli.report import Report, Status, StepReport, TrackReport, fix_command
from avsync_cli.spec import FRAME_MS

_STYLES: dict[Status, tuple[str, str]] = {
    "in_sync": ("bold green", "in sync"),
    "out_of_sync": ("bold red", "out of sync"),
    "undetermined": ("bold yellow", "undetermined"),
    "error": ("bold red", "error"),
}


def print_report(
    report: Report,
    *,
    audio: str | None = None,
    audio_stream: int | None = None,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Print the verdict; unless quiet what it rests on and how to fix it; every face if verbose.

    `audio` is the separate sound file that was checked, if any, `audio_stream` the number of the sound that
    was asked for.
    """
    console = Console(soft_wrap=True, highlight=False, emoji=False)  # ":a:" is no emoji in a command
    style, verdict = _STYLES[report.status]
    console.print(f"{escape(report.file)}: [{style}]{verdict}[/]: {escape(report.message)}")
    if quiet:
        return
    for name, text in _details(report, audio, audio_stream):
        console.print(f"  [dim]{name:<11}[/]{escape(text)}")
    if verbose:
        for track in report.tracks:
            console.print(f"  [dim]{'face':<11}[/]{escape(_describe_track(track))}")
        timings = report.timings_s
        stages = f"decode {timings.decode:.2f}, faces {timings.faces:.2f}, encode {timings.encode:.2f}"
        console.print(
            f"  [dim]{'seconds':<11}[/]{stages}, score {timings.score:.2f}, total {timings.total:.2f}"
        )
        if report.model is not None:
            identity = f"{report.model.name} {report.model.sha256[:12]}, {report.model.precision}"
            console.print(f"  [dim]{'model':<11}[/]{escape(identity)}")


def _details(report: Report, audio: str | None, audio_stream: int | None) -> list[tuple[str, str]]:
    latest, earliest = report.limits_ms
    details = []
    if report.audio_lead_ms is not None and report.uncertainty_ms is not None:
        sure = f"{_percent(report.confidence)} that this is right to one frame ({FRAME_MS} ms)"
        details.append(("confidence", f"{sure}, ±{report.uncertainty_ms:.0f} ms"))
        details.append(("limits", f"audio may lag by {-latest:g} ms and lead by {earliest:g} ms"))
    if report.tracks:
        details.append(("looked at", _describe_used(report)))
    elif report.passages:
        details.append(("looked at", _describe_search(report)))
    details += [("edit", _describe_step(step)) for step in report.steps]
    if report.drift_ms_per_min is not None:
        details.append(("drift", _describe_drift(report)))
    # A single delay mends only what is early or late throughout.
    is_constant = report.course in (None, "constant")
    if report.status == "out_of_sync" and report.audio_lead_ms is not None and is_constant:
        command = fix_command(report.file, report.audio_lead_ms, audio=audio, audio_stream=audio_stream)
        details.append(("to fix", command))
    return details


def _describe_used(report: Report) -> str:
    """The face that the answer rests on, or that it rests on all of them."""
    count = len(report.tracks)
    places = report.heard_tracks if report.used_track is None else (report.used_track,)
    used = [report.tracks[place] for place in places] or list(report.tracks)
    first_s, last_s = min(track.start_s for track in used), max(track.end_s for track in used)
    who = "the only face" if count == 1 else f"{len(used)} of {count} faces"
    if len(used) == count > 1:
        who = f"all {count} faces together"
    if len(report.passages) < 2:
        return f"{who}, {first_s:.1f} s to {last_s:.1f} s"
    # A person is another face in every passage: how many faces there are tells nothing.
    seen = sum(
        any(passage.start_s <= track.start_s < passage.end_s for track in used) for passage in report.passages
    )
    who = f"who is seen in {seen} of them"
    looked_at = f"{report.looked_at_s:.0f} s in {len(report.passages)} passages"
    return f"{looked_at}: {who}, {first_s:.1f} s to {last_s:.1f} s"


def _describe_search(report: Report) -> str:
    """How much was looked at without finding anybody, and how to look at more."""
    seconds = f"{report.looked_at_s:.0f} s"
    if len(report.passages) < 2:
        return seconds
    return f"{seconds} in {len(report.passages)} passages; --full looks at everything"


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
    return f"{where}: {speaking}{lead}, confidence {_percent(track.confidence)}"


def _percent(probability: float) -> str:
    """Whole percents, but never a certainty."""
    return "over 99%" if probability > 0.99 else f"{probability:.0%}"
