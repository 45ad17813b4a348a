"""What a check found: the JSON promise (schema 3), the words for people, the exit code."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

from avsync_cli.errors import (
    EXIT_BUG,
    EXIT_IN_SYNC,
    EXIT_MEDIA,
    EXIT_MODEL,
    EXIT_OUT_OF_SYNC,
    EXIT_UNDETERMINED,
    MediaError,
)
from avsync_cli.spec import FRAME_MS, REPORT_SCHEMA_VERSION, Precision, Tolerance

Status = Literal["in_sync", "out_of_sync", "undetermined", "error"]
Reason = Literal[
    "no_face",
    "no_such_face",
    "no_speech",
    "no_visible_speaker",
    "too_short",
    "low_confidence",
    "no_match",
    "beyond_range",
    "inconsistent",
    "no_audio",
    "no_video",
    "unreadable",
    "changed",
    "crashed",
    "timeout",
    "memory_limit",
]
LostReason = Literal["crashed", "timeout", "memory_limit"]  # of a file whose process was lost
Direction = Literal["audio_leads", "audio_lags", "in_sync"]
CourseKind = Literal["constant", "steps", "drift"]

_LEVEL_MS = 0.5  # a lead of less is no lead in words

_EXIT_CODES: dict[Status, int] = {
    "in_sync": EXIT_IN_SYNC,
    "out_of_sync": EXIT_OUT_OF_SYNC,
    "undetermined": EXIT_UNDETERMINED,
    "error": EXIT_MEDIA,
}
NOT_WRITTEN = frozenset(("used_track", "heard_tracks", "agreed"))  # fields that are not part of the JSON
MOST_CONFIDENCE = 0.9999  # that is written: nothing is certain
# Of several files the gravest counts, in this order.
_GRAVITY = (EXIT_IN_SYNC, EXIT_UNDETERMINED, EXIT_OUT_OF_SYNC, EXIT_MEDIA, EXIT_MODEL, EXIT_BUG)


@dataclass(frozen=True)
class TrackReport:
    """One face: where it was, and what its mouth says. `box` is the median x0, y0, x1, y1 in pixels.

    curve[i] belongs to an audio lead of i - 15 frames (of i - N with a range of N); None where the sound
    has nothing there. `speaking` is None where it cannot be told, `mouth_motion` as `speakers.Speaker`.
    """

    start_s: float
    end_s: float
    box: list[float]
    audio_lead_ms: float | None
    confidence: float
    speaking: bool | None
    mouth_motion: float
    curve: list[float | None]
    turned_degrees: int = 0  # from upright, clockwise
    yaw_degrees: float | None = None  # its median, as `pose.yaw_degrees`


@dataclass(frozen=True)
class FaceOffset:
    """The offset of one of several faces that speak in one view; `speaker` is its number, from 1."""

    speaker: int
    audio_lead_ms: float
    uncertainty_ms: float | None
    confidence: float


@dataclass(frozen=True)
class TimelinePoint:
    """What was seen and heard in [start_s, end_s) says by itself; no lead where that is not reliable."""

    start_s: float
    end_s: float
    audio_lead_ms: float | None
    confidence: float
    uncertainty_ms: float | None


@dataclass(frozen=True)
class StepReport:
    """A sudden change of the audio lead at `at_s` ± `uncertainty_s`: an edit."""

    at_s: float
    uncertainty_s: float
    from_ms: float
    to_ms: float


@dataclass(frozen=True)
class PassageReport:
    """A stretch of the video that was looked at, in seconds from its first picture."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timings:
    """Seconds spent on each stage."""

    decode: float = 0.0
    faces: float = 0.0
    encode: float = 0.0
    score: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class ModelId:
    name: str
    sha256: str
    precision: Precision = "fp32"


@dataclass(frozen=True, repr=False)
class Report:
    """The answer for one file. `audio_lead_ms` > 0 means the audio is early (ITU-R BT.1359-1).

    Where it changes (`course`), the lead is that of the moment furthest out of the limits; where faces in one
    view differ (`differing_faces`), that of the face furthest out. `used_track`
    is the place in `tracks` of the face that was answered from, None where the answer rests on all of
    `heard_tracks` together; `agreed` is whether nothing that was looked at contradicts the answer. These
    three are not part of the JSON.
    """

    file: str
    status: Status
    message: str
    limits_ms: tuple[float, float]  # latest, earliest
    reason: Reason | None = None
    audio_lead_ms: float | None = None
    audio_lead_frames: float | None = None
    uncertainty_ms: float | None = None
    direction: Direction | None = None
    confidence: float = 0.0
    audio_stream: int | None = None  # number of the file's sound that was checked
    other_voices: tuple[int, ...] = ()  # numbers of others that have a voice, where this one said nothing
    duration_s: float | None = None
    fps: float | None = None
    full: bool = False  # whether all of it was to be looked at
    looked_at_s: float = 0.0
    passages: tuple[PassageReport, ...] = ()
    starts_anew_s: float | None = None  # where the file's clock does, first of all
    coverage: float = 0.0  # share of what was asked for that lies within reach of a look
    unfitted_s: float = 0.0  # of what was looked at: somebody speaks, and no offset fits
    decoded_pictures: int = 0
    range_frames: int | None = None  # tried on both sides
    course: CourseKind | None = None
    steps: tuple[StepReport, ...] = ()
    drift_ms_per_min: float | None = None
    drift_uncertainty_ms_per_min: float | None = None
    sound_speed: float | None = None  # against the pictures, where it is a ratio of frame rates
    drift_start_ms: float | None = None  # the drifting lead at the first picture
    timeline: tuple[TimelinePoint, ...] = ()
    differing_faces: tuple[FaceOffset, ...] = ()
    candidate_leads_ms: tuple[float, ...] = ()  # two that fit about as well, as with an echo
    tracks: tuple[TrackReport, ...] = ()
    curve: list[float | None] | None = None
    timings_s: Timings = Timings()
    model: ModelId | None = None
    used_track: int | None = None
    heard_tracks: tuple[int, ...] = ()
    agreed: bool = True

    @property
    def exit_code(self) -> int:
        return exit_code_of(self.status)

    def __repr__(self) -> str:
        """One line: all of it is in `to_dict`."""
        sure = "" if self.audio_lead_ms is None else f", {describe_confidence(self.confidence)} sure"
        return f"<Report {self.file}: {self.status.replace('_', ' ')}: {verdict_words(self)}{sure}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = {
            "file": self.file,
            "verdict": f"{self.status.replace('_', ' ')}: {verdict_words(self)}",
            "confidence": "" if self.audio_lead_ms is None else describe_confidence(self.confidence),
            "uncertainty": "" if self.uncertainty_ms is None else f"±{self.uncertainty_ms:.0f} ms",
        }
        cells = (f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows.items() if text)
        return f"<table>{''.join(cells)}</table>"

    def to_dict(self) -> dict[str, Any]:
        """The same as `to_json`."""
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        """Schema 3 as plain JSON values, in the order of the documentation."""
        values = asdict(self)
        for name in NOT_WRITTEN:
            values.pop(name)
        message, limits = values.pop("message"), list(values.pop("limits_ms"))
        for name in (
            "other_voices",
            "passages",
            "steps",
            "timeline",
            "differing_faces",
            "candidate_leads_ms",
            "tracks",
        ):
            values[name] = list(values[name])
        head = {name: values.pop(name) for name in ("file", "status", "reason")}
        tail = {name: values.pop(name) for name in ("timings_s", "model")}
        return {
            "schema_version": REPORT_SCHEMA_VERSION,
            **head,
            **round_values(values),
            "limits_ms": limits,
            **round_values(tail),
            "message": message,
        }


def error_report(file: str, error: MediaError, tolerance: Tolerance) -> Report:
    """The report of a file that could not be checked."""
    told: tuple[Reason, ...] = ("no_audio", "no_video", "changed", "crashed", "timeout", "memory_limit")
    reasons: dict[str, Reason] = {reason: reason for reason in told}
    return Report(
        file=file,
        status="error",
        reason=reasons.get(error.reason, "unreadable"),
        message=str(error),
        limits_ms=(tolerance.latest_ms, tolerance.earliest_ms),
    )


def exit_code_of(status: Status) -> int:
    return _EXIT_CODES[status]


def gravest_exit_code(codes: Iterable[int]) -> int:
    """The exit code of several files: the gravest of theirs; 0 for none."""
    return max(codes, key=_GRAVITY.index, default=EXIT_IN_SYNC)


def judge_lead(
    audio_lead_ms: float, tolerance: Tolerance, uncertainty_ms: float | None = None
) -> tuple[Status, Direction, str]:
    """Status, direction and words for a lead: "audio leads video by 80 ms (2.0 frames)".

    The one place that decides between them. Within its uncertainty of a limit a lead is said to be at it.
    """
    within = tolerance.contains(audio_lead_ms)
    leads = audio_lead_ms > 0
    size_ms = abs(audio_lead_ms)
    rounded = f"{size_ms:.0f}" if size_ms >= _LEVEL_MS else f"{size_ms:.1g}"
    words = f"audio {'leads' if leads else 'lags'} video by {rounded} ms ({size_ms / FRAME_MS:.1f} frames)"
    if within and size_ms < _LEVEL_MS:
        words = "audio and video are level"
    limit_ms = find_limit(audio_lead_ms, tolerance, uncertainty_ms)
    if limit_ms is not None:
        words += f", at the limit of {limit_ms:+g} ms"
    if within:
        return "in_sync", "in_sync", words
    return "out_of_sync", "audio_leads" if leads else "audio_lags", words


def find_limit(audio_lead_ms: float, tolerance: Tolerance, uncertainty_ms: float | None) -> float | None:
    """The limit that a lead is at, within its uncertainty, in ms; None for one that is at none."""
    limit_ms = min(tolerance.latest_ms, tolerance.earliest_ms, key=lambda each: abs(each - audio_lead_ms))
    is_there = uncertainty_ms is not None and abs(limit_ms - audio_lead_ms) <= uncertainty_ms
    return limit_ms if is_there else None


def describe_reason(reason: Reason) -> str:
    """Why there is no answer, in words."""
    return {
        "no_face": "no face was found",
        "no_such_face": "there is no face of that number",
        "no_speech": "there is no speech to compare with the mouth",
        "no_visible_speaker": "there is a voice, but no mouth that is seen moves",
        "too_short": "less than one second of a face with sound can be used",
        "low_confidence": "no offset fits clearly better than the others",
        "no_match": "a mouth moves and there is sound, but nothing fits: dubbed, another speaker, or further "
        "off than was looked",
        "beyond_range": "the best offset lies at the edge of the range scanned: a wider --range may find it",
        "inconsistent": "parts of it contradict one another",
        "no_audio": "there is no audio",
        "no_video": "there is no video",
        "unreadable": "the file cannot be read",
        "changed": "it was written to while it was looked at",
        "crashed": "the decoder crashed",
        "timeout": "it took longer than it may",
        "memory_limit": "it needs more memory than it may",
    }[reason]


def describe_confidence(probability: float) -> str:
    """Whole percents, but never a certainty."""
    return "over 99%" if probability > 0.99 else f"{probability:.0%}"


def verdict_words(report: Report) -> str:
    """The message without what the verdict before it says already."""
    return report.message.removeprefix("cannot tell: ")


def round_values(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Numbers to 4 decimals: what is beyond is noise. NaN has no JSON and becomes null."""
    if isinstance(value, dict):
        return {
            key: min(round_values(item), MOST_CONFIDENCE) if key == "confidence" else round_values(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [round_values(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
