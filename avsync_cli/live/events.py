"""What a monitor says: how sound and picture stand, in the last seconds."""

from dataclasses import asdict, dataclass
from typing import Any

from avsync_cli.findings import Findings
from avsync_cli.report import Reason, Report, Status, TrackReport, round_values
from avsync_cli.scoring import FacePiece
from avsync_cli.spec import VIDEO_FPS


@dataclass(frozen=True)
class MonitorFace:
    """One face: its number, which it keeps while it is followed, and its last place in pixels.

    `speaking` is None where it cannot be told; the lead is None where its mouth tells none.
    """

    face: int
    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    speaking: bool | None
    audio_lead_ms: float | None
    confidence: float


@dataclass(frozen=True)
class MonitorEvent:
    """How sound and picture stood in [start_s, time_s) on the clock of what was pushed.

    `audio_lead_ms` > 0 means the audio is early; None where that cannot be told, for a `reason` as of a
    report. It rests on `heard_s` seconds of faces. Since the beginning, `skipped_pictures` were too many to
    be looked at, and `clock_jumps` happened.
    """

    time_s: float
    start_s: float
    status: Status
    reason: Reason | None
    audio_lead_ms: float | None
    uncertainty_ms: float | None
    confidence: float
    heard_s: float
    faces: tuple[MonitorFace, ...]
    skipped_pictures: int
    clock_jumps: int
    message: str

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        values = asdict(self)
        values["faces"] = list(values["faces"])
        rounded: dict[str, Any] = round_values(values)
        return rounded


def make_event(
    report: Report, findings: Findings, *, start_s: float, time_s: float, skipped: int, jumps: int
) -> MonitorEvent:
    """The event of a report on the last seconds."""
    faces = tuple(map(_describe_face, findings.faces, report.tracks))
    return MonitorEvent(
        time_s=time_s,
        start_s=start_s,
        status=report.status,
        reason=report.reason,
        audio_lead_ms=report.audio_lead_ms if report.reason is None else None,
        uncertainty_ms=report.uncertainty_ms if report.reason is None else None,
        confidence=report.confidence,
        heard_s=_measure_heard_s(findings),
        faces=faces,
        skipped_pictures=skipped,
        clock_jumps=jumps,
        message=report.message,
    )


def _describe_face(pieces: list[FacePiece], track: TrackReport) -> MonitorFace:
    x0, y0, x1, y1 = (float(edge) for edge in pieces[-1].boxes[-1])
    box = (x0, y0, x1, y1)
    return MonitorFace(pieces[0].face + 1, box, track.speaking, track.audio_lead_ms, track.confidence)


def _measure_heard_s(findings: Findings) -> float:
    verdict = findings.verdict
    places = verdict.heard if verdict.used is None else (verdict.used,)
    return sum(len(piece.scores) for place in places for piece in findings.faces[place]) / VIDEO_FPS
