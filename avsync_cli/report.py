"""What a check found: the JSON promise (schema 1), the words for people, the exit code."""

import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
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
    "beyond_range",
    "no_audio",
    "no_video",
    "unreadable",
]
Direction = Literal["audio_leads", "audio_lags", "in_sync"]
CourseKind = Literal["constant", "steps", "drift"]

_EXIT_CODES: dict[Status, int] = {
    "in_sync": EXIT_IN_SYNC,
    "out_of_sync": EXIT_OUT_OF_SYNC,
    "undetermined": EXIT_UNDETERMINED,
    "error": EXIT_MEDIA,
}
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


@dataclass(frozen=True)
class Report:
    """The answer for one file. `audio_lead_ms` > 0 means the audio is early (ITU-R BT.1359-1).

    Where it changes (`course`), the lead is that of the moment furthest out of the limits. `used_track`
    is the place in `tracks` of the face that was answered from, None where the answer rests on all of
    `heard_tracks` together; these two are not part of the JSON.
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
    duration_s: float | None = None
    fps: float | None = None
    full: bool = False  # whether all of it was to be looked at
    looked_at_s: float = 0.0
    passages: tuple[PassageReport, ...] = ()
    decoded_pictures: int = 0
    course: CourseKind | None = None
    steps: tuple[StepReport, ...] = ()
    drift_ms_per_min: float | None = None
    drift_uncertainty_ms_per_min: float | None = None
    timeline: tuple[TimelinePoint, ...] = ()
    tracks: tuple[TrackReport, ...] = ()
    curve: list[float | None] | None = None
    timings_s: Timings = Timings()
    model: ModelId | None = None
    used_track: int | None = None
    heard_tracks: tuple[int, ...] = ()

    @property
    def exit_code(self) -> int:
        return exit_code_of(self.status)

    def to_json(self) -> dict[str, Any]:
        """Schema 1 as plain JSON values, in the order of the documentation."""
        values = asdict(self)
        for name in ("used_track", "heard_tracks"):
            values.pop(name)
        message, limits = values.pop("message"), list(values.pop("limits_ms"))
        for name in ("passages", "steps", "timeline", "tracks"):
            values[name] = list(values[name])
        head = {name: values.pop(name) for name in ("file", "status", "reason")}
        tail = {name: values.pop(name) for name in ("timings_s", "model")}
        return {
            "schema_version": REPORT_SCHEMA_VERSION,
            **head,
            **_rounded(values),
            "limits_ms": limits,
            **_rounded(tail),
            "message": message,
        }


def error_report(file: str, error: MediaError, tolerance: Tolerance) -> Report:
    """The report of a file that could not be checked."""
    reasons: dict[str, Reason] = {"no_audio": "no_audio", "no_video": "no_video"}
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


def describe_lead(audio_lead_ms: float, tolerance: Tolerance) -> tuple[Direction, str]:
    """Direction and words for a lead: "audio leads video by 80 ms (2.0 frames)"."""
    size = f"{abs(audio_lead_ms):.0f} ms ({abs(audio_lead_ms) / FRAME_MS:.1f} frames)"
    if abs(audio_lead_ms) < 0.5:
        return "in_sync", "audio and video are level"
    leads = audio_lead_ms > 0
    words = f"audio {'leads' if leads else 'lags'} video by {size}"
    if tolerance.contains(audio_lead_ms):
        return "in_sync", words
    return ("audio_leads" if leads else "audio_lags"), words


def describe_reason(reason: Reason) -> str:
    """Why there is no answer, in words."""
    return {
        "no_face": "no face was found",
        "no_such_face": "there is no face of that number",
        "no_speech": "there is no speech to compare with the mouth",
        "no_visible_speaker": "there is a voice, but no mouth that is seen moves",
        "too_short": "less than one second of a face with sound can be used",
        "low_confidence": "no offset fits clearly better than the others",
        "beyond_range": "the best offset lies at the edge of the range scanned: a wider --range may find it",
        "no_audio": "there is no audio",
        "no_video": "there is no video",
        "unreadable": "the file cannot be read",
    }[reason]


def fix_command(
    file: str, audio_lead_ms: float, *, audio: str | None = None, audio_stream: int | None = None
) -> str:
    """An ffmpeg command that puts the file right without re-encoding: early audio is delayed.

    `audio` is the separate sound file that was checked, if any. Of several sounds only the one of number
    `audio_stream` is moved, where that is given; the others stay as they are, before it.
    """
    stem, dot, suffix = file.rpartition(".")
    fixed = f"{stem}.synced{dot}{suffix}" if dot and "/" not in suffix else f"{file}.synced.mkv"
    # A name that begins with a dash would be taken for an option.
    source, sound, target = (
        shlex.quote(f"./{name}" if name.startswith("-") else name) for name in (file, audio or file, fixed)
    )
    delay_s = audio_lead_ms / 1000
    moved = "-map 1:a"
    if audio_stream is not None:
        moved = f"-map 0:a -map -0:a:{audio_stream} -map 1:a:{audio_stream}"
    return f"ffmpeg -i {source} -itsoffset {delay_s:.3f} -i {sound} -map 0:v {moved} -c copy {target}"


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Numbers to 4 decimals: what is beyond is noise. NaN has no JSON and becomes null."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
