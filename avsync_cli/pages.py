"""A check as one HTML page that needs nothing else: no network, no other file."""

import base64
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsync_cli import __version__
from avsync_cli.fix_lines import avsync_command, fix_command
from avsync_cli.outputs import written_whole
from avsync_cli.plots import draw_curve, draw_heat, draw_strip, draw_timeline
from avsync_cli.report import Report, describe_confidence, verdict_words
from avsync_cli.sights import Sights
from avsync_cli.spec import FRAME_MS

if TYPE_CHECKING:
    from jinja2 import Template

VERDICTS = {
    "in_sync": "In sync",
    "out_of_sync": "Out of sync",
    "undetermined": "Undetermined",
    "error": "Could not be checked",
}


def write_page(report: Report, sights: Sights, path: Path, *, home: str | None = None) -> None:
    """Raises WriteError."""
    page = render_page(report, sights, home=home)
    with written_whole(path) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")


def render_page(report: Report, sights: Sights, *, home: str | None = None, is_drawn: bool = True) -> str:
    """The page as text; everything that comes from the file is escaped.

    `home` is the address of a page over several files. Unless `is_drawn`, there are no figures.
    """
    return render(
        "report.html",
        report=report,
        verdict=VERDICTS[report.status],
        sentence=describe_for_clients(report),
        facts=_facts(report, sights),
        commands=_commands(report),
        figures=_figures(report, sights) if is_drawn else [],
        is_drawn=is_drawn,
        home=home,
        rows=[_row(point, sights) for point in report.timeline],
        faces=_faces(report, sights),
        coverage=_describe_coverage(report),
        passages=[
            f"{_moment(passage.start_s, sights)} to {_moment(passage.end_s, sights)}"
            for passage in report.passages
        ],
        json=json.dumps(report.to_json(), ensure_ascii=False, indent=1),
    )


def render(name: str, **values: Any) -> str:  # noqa: ANN401 - what a template shows
    template, style = _load(name)
    return template.render(style=style, version=__version__, **values)


@cache
def _load(name: str) -> "tuple[Template, str]":
    """A template and the style of all pages."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    assets = files("avsync_cli").joinpath("assets/pages")
    template = environment.from_string(assets.joinpath(name).read_text(encoding="utf-8"))
    return template, assets.joinpath("style.css").read_text(encoding="utf-8")


def describe_for_clients(report: Report) -> str:
    """The verdict in a sentence for somebody who does not know the field."""
    if report.audio_lead_ms is None:
        return f"{verdict_words(report)[:1].upper()}{verdict_words(report)[1:]}."
    if report.course in ("steps", "drift"):
        return f"The offset changes: {report.message}."
    size_ms = abs(report.audio_lead_ms)
    heard = "before" if report.audio_lead_ms > 0 else "after"
    if size_ms < FRAME_MS / 2:
        return "Voices are heard when lips move."
    words = f"Voices are heard {size_ms:.0f} ms {heard} lips move ({size_ms / FRAME_MS:.1f} frames)"
    return f"{words}, which few people notice." if report.status == "in_sync" else f"{words}."


def _facts(report: Report, sights: Sights) -> list[tuple[str, str]]:
    latest, earliest = report.limits_ms
    facts = []
    if report.audio_lead_ms is not None and report.uncertainty_ms is not None:
        sure = f"{report.audio_lead_ms:+.0f} ms ± {report.uncertainty_ms:.0f} ms"
        facts.append(("Audio lead", sure))
        facts.append(
            ("Confidence", f"{describe_confidence(report.confidence)} that this is right to a frame")
        )
    facts.append(("Limits", f"audio may lag by {-latest:g} ms and lead by {earliest:g} ms"))
    for step in report.steps:
        change = f"{step.from_ms:+.0f} ms to {step.to_ms:+.0f} ms"
        facts.append(("Edit", f"at {_moment(step.at_s, sights)}: {change}"))
    if report.drift_ms_per_min is not None:
        facts.append(("Drift", f"{report.drift_ms_per_min:+.1f} ms a minute"))
    if report.duration_s is not None:
        facts.append(("Duration", _moment(report.duration_s, sights)))
    return facts


def _commands(report: Report) -> list[str]:
    if report.status != "out_of_sync" or report.audio_lead_ms is None or not report.agreed:
        return []
    one = fix_command(report.file, report.audio_lead_ms) if report.course in (None, "constant") else None
    return [avsync_command(report), *([one] if one else [])]


def _figures(report: Report, sights: Sights) -> list[dict[str, str]]:
    lead = "no offset" if report.audio_lead_ms is None else f"an audio lead of {report.audio_lead_ms:+.0f} ms"
    drawn = [
        (
            draw_strip(report, sights),
            f"mouths of one speaker above the sound, moved by {lead} and as it is in the file",
            "Open mouths belong above loud sound: compare the sound as found with that in the file.",
        ),
        (
            draw_curve(report),
            f"score of each offset, with {lead} marked and the limits shaded",
            "How well each offset fits. The shaded offsets are in sync.",
        ),
        (
            draw_heat(report, sights),
            f"how well each offset fits over time; found: {lead}",
            "Bright is where the sound fits the mouth, over time.",
        ),
        (
            draw_timeline(report),
            "the offset of each stretch of time with its uncertainty; the table below has the numbers",
            "What each stretch says by itself. The dark line shows what was looked at.",
        ),
    ]
    return [
        {"svg": svg, "alternative": alternative, "caption": caption}
        for svg, alternative, caption in drawn
        if svg is not None
    ]


def _row(point: Any, sights: Sights) -> dict[str, str]:  # noqa: ANN401 - a TimelinePoint
    lead = "not known" if point.audio_lead_ms is None else f"{point.audio_lead_ms:+.0f} ms"
    return {
        "start": _moment(point.start_s, sights),
        "end": _moment(point.end_s, sights),
        "lead": lead,
        "confidence": describe_confidence(point.confidence),
    }


def _faces(report: Report, sights: Sights) -> list[dict[str, Any]]:
    speaking = {True: "speaking", False: "not speaking", None: "not known whether speaking"}
    faces = []
    for place, track in enumerate(report.tracks):
        lead = "" if track.audio_lead_ms is None else f", {track.audio_lead_ms:+.0f} ms"
        jpeg = sights.faces.get(place)
        faces.append(
            {
                "number": place + 1,
                "image": jpeg and f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}",
                "when": f"{_moment(track.start_s, sights)} to {_moment(track.end_s, sights)}",
                "words": f"{speaking[track.speaking]}{lead}, {describe_confidence(track.confidence)} sure",
            }
        )
    return faces


def _describe_coverage(report: Report) -> str:
    if report.status == "error":
        return "Nothing."
    seconds = f"{report.looked_at_s:.1f} s"
    whole = "" if report.duration_s is None else f" of {report.duration_s:.1f} s"
    passages = f" in {len(report.passages)} passages" if len(report.passages) > 1 else ""
    rest = (
        ""
        if len(report.passages) < 2
        else " What lies between them was not looked at; --full looks at everything."
    )
    return f"{seconds}{whole}{passages}.{rest}"


def _moment(time_s: float, sights: Sights) -> str:
    """A time for people, with its timecode where there is one."""
    minutes, seconds = divmod(time_s, 60)
    text = f"{int(minutes)}:{seconds:04.1f}"
    return text if sights.timecode is None else f"{text} ({sights.timecode.at(time_s)})"
