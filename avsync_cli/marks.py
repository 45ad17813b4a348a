"""What was found as marks for editors: stretches and their offset, cuts, steps, and what was not looked at.

CSV is written here; EDL (CMX 3600), FCPXML and OTIO by OpenTimelineIO. Positions are whole pictures of the
file, counted in its timecode.
"""

import csv
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from avsync_cli.errors import ConfigError
from avsync_cli.escapes import as_cell, printable
from avsync_cli.findings import Findings
from avsync_cli.outputs import written_whole
from avsync_cli.report import Report, describe_confidence
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.timecode import Clock

if TYPE_CHECKING:
    import opentimelineio as otio

MarkKind = Literal["offset", "no_offset", "cut", "step", "not_looked_at"]

_ADAPTERS = {".edl": "cmx_3600", ".fcpxml": "fcpx_xml", ".otio": "otio_json"}
MARK_SUFFIXES = (".csv", *_ADAPTERS)
_COLUMNS = (
    *("timecode_in", "timecode_out", "start_s", "end_s", "kind", "audio_lead_ms", "confidence", "text"),
)
_COLOURS: dict[MarkKind, str] = {
    "offset": "GREEN",  # red where it is out of the limits
    "no_offset": "YELLOW",
    "cut": "WHITE",
    "step": "MAGENTA",
    "not_looked_at": "BLUE",
}
_MOMENT_S = 1e-6  # a gap of less is none


@dataclass(frozen=True)
class Mark:
    """Something to see at [start_s, end_s), in seconds from the first picture; a moment ends as it starts."""

    kind: MarkKind
    start_s: float
    end_s: float
    text: str
    audio_lead_ms: float | None = None
    confidence: float | None = None


def refuse_marks(path: Path) -> None:
    """Raises ConfigError where no such file can be written, or the extra is missing that writes it."""
    if path.suffix.lower() not in MARK_SUFFIXES:
        raise ConfigError(f"{path}: marks are written as {', '.join(MARK_SUFFIXES)}")
    if path.suffix.lower() == ".csv":
        return
    need = "needs the extra `markers`: pip install 'avsync-cli[markers]'"
    try:
        import opentimelineio as otio
    except ImportError as error:
        raise ConfigError(f"{path}: {need}") from error
    if _ADAPTERS[path.suffix.lower()] not in otio.adapters.available_adapter_names():
        raise ConfigError(f"{path}: {need}")


def gather_marks(report: Report, findings: Findings) -> list[Mark]:
    """All marks of a check, in the order of their beginnings."""
    marks = [
        Mark("no_offset", point.start_s, point.end_s, "no offset found here", None, point.confidence)
        if point.audio_lead_ms is None
        else Mark(
            "offset",
            point.start_s,
            point.end_s,
            f"audio lead {point.audio_lead_ms:+.0f} ms, {describe_confidence(point.confidence)} sure",
            point.audio_lead_ms,
            point.confidence,
        )
        for point in report.timeline
    ]
    for step in report.steps:
        text = f"audio lead changes from {step.from_ms:+.0f} to {step.to_ms:+.0f} ms"
        text += f" ± {step.uncertainty_s:.1f} s"
        marks.append(Mark("step", step.at_s, step.at_s, text, step.to_ms))
    cuts_s = [tick / VIDEO_FPS for tick in findings.cuts]
    marks += [Mark("cut", cut_s, cut_s, "cut") for cut_s in cuts_s]
    marks += [Mark("not_looked_at", *gap, "not looked at") for gap in _gaps(report)]
    return sorted(marks, key=lambda mark: (mark.start_s, get_args(MarkKind).index(mark.kind)))


def write_marks(
    marks: list[Mark],
    report: Report,
    path: Path,
    *,
    media: Path | None,
    clock: Clock,
    overwrite: bool = False,
) -> None:
    """Write marks as the suffix of `path` says. `media` is the file that they belong to, where it has a name.

    Raises WriteError, and ConfigError where an EDL has no timecode for so many pictures a second.
    """
    if path.suffix.lower() == ".csv":
        with (
            written_whole(path, overwrite=overwrite) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(_row_of(mark, clock) for mark in marks)
        return
    text = _describe_timeline(marks, report, path, media, clock)
    with written_whole(path, overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")


def _gaps(report: Report) -> list[tuple[float, float]]:
    """What lies before, between and after the passages."""
    if report.duration_s is None:
        return []
    edges = [(0.0, 0.0), *sorted((each.start_s, each.end_s) for each in report.passages)]
    edges.append((report.duration_s, report.duration_s))
    least_s = 1 / (report.fps or VIDEO_FPS)  # the last picture may be shown for a moment less or more
    gaps = [(one[1], other[0]) for one, other in pairwise(edges)]
    return [gap for gap in gaps if gap[1] - gap[0] > least_s + _MOMENT_S]


def _row_of(mark: Mark, clock: Clock) -> list[str]:
    timecode = clock.counted
    lead = "" if mark.audio_lead_ms is None else f"{mark.audio_lead_ms:.1f}"
    confidence = "" if mark.confidence is None else f"{mark.confidence:.4f}"
    moments = (timecode.at(mark.start_s), timecode.at(mark.end_s), f"{mark.start_s:.3f}", f"{mark.end_s:.3f}")
    return [*moments, mark.kind, lead, confidence, as_cell(mark.text)]


def _describe_timeline(
    marks: list[Mark], report: Report, path: Path, media: Path | None, clock: Clock
) -> str:
    """The text of a file for editors: the video as one clip that has the marks."""
    import opentimelineio as otio

    adapter = _ADAPTERS[path.suffix.lower()]
    rate = _rate_of(clock, adapter)
    first = otio.opentime.RationalTime(clock.counted.first, rate)
    length_s = max([report.duration_s or 0.0, *(mark.end_s for mark in marks)])
    whole = otio.opentime.TimeRange(first, otio.opentime.RationalTime(_picture_at(length_s, clock), rate))
    name = printable(Path(report.file).name)
    reference: otio.core.MediaReference = otio.schema.MissingReference()
    if media is not None:
        reference = otio.schema.ExternalReference(_name_media(media, adapter), whole)
    clip = otio.schema.Clip(name, reference, whole, metadata={"cmx_3600": {"reel": "AX"}})
    clip.markers.extend(_marker(mark, report, clock, rate) for mark in marks)
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    if adapter == "cmx_3600" and clock.counted.first:
        # So that an event is recorded at the timecode that its marks are written with.
        track.append(otio.schema.Gap(duration=first))
    track.append(clip)
    timeline = otio.schema.Timeline(name, global_start_time=first)
    timeline.tracks.append(track)
    try:
        text = str(otio.adapters.write_to_string(timeline, adapter))
    except ValueError as error:
        rate_words = f"{float(clock.rate):g} pictures a second"
        raise ConfigError(f"{path}: {error} ({rate_words}); name a .csv or .otio file") from error
    # The FCPXML adapter leaves this empty unless pictures a second are whole.
    duration = f'frameDuration="{clock.rate.denominator}/{clock.rate.numerator}s"'
    return text.replace('frameDuration=""', duration)


def _name_media(media: Path, adapter: str) -> str:
    """The file's address; for FCPXML with its host, or the adapter would have ffprobe read the file."""
    address = media.resolve().as_uri()
    return address.replace("file:///", "file://localhost/") if adapter == "fcpx_xml" else address


def _rate_of(clock: Clock, adapter: str) -> float:
    """Pictures a second; of an EDL without drop frame the whole number that its timecode counts to."""
    if adapter == "cmx_3600" and not clock.counted.is_drop:
        return float(round(clock.rate))
    return float(clock.rate)


def _marker(mark: Mark, report: Report, clock: Clock, rate: float) -> "otio.schema.Marker":
    import opentimelineio as otio

    latest, earliest = report.limits_ms
    is_out = mark.kind == "offset" and not latest <= (mark.audio_lead_ms or 0.0) <= earliest
    start, end = (_picture_at(time_s, clock) for time_s in (mark.start_s, mark.end_s))
    return otio.schema.Marker(
        mark.text,
        otio.opentime.TimeRange(
            otio.opentime.RationalTime(clock.counted.first + start, rate),
            otio.opentime.RationalTime(max(1, end - start), rate),
        ),
        color="RED" if is_out else _COLOURS[mark.kind],
        metadata={
            "avsync": {
                "kind": mark.kind,
                "start_s": mark.start_s,
                "end_s": mark.end_s,
                "audio_lead_ms": mark.audio_lead_ms,
                "confidence": mark.confidence,
            }
        },
    )


def _picture_at(time_s: float, clock: Clock) -> int:
    return round(Fraction(time_s) * clock.rate)
