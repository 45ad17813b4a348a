"""From looks to the report: who speaks, what the sound's offset is, and how it goes over time."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avsync_cli.answers import Answer
from avsync_cli.confidence import Calibration
from avsync_cli.container import MediaInfo
from avsync_cli.model import Student
from avsync_cli.report import (
    FaceOffset,
    ModelId,
    Report,
    StepReport,
    TimelinePoint,
    TrackReport,
    describe_reason,
    judge_lead,
)
from avsync_cli.scoring import FacePiece, Look, group_faces
from avsync_cli.speakers import AUTO, Speaker, Verdict, choose_verdict, judge_speakers
from avsync_cli.spec import EVERY_S, SAME_OFFSET_FRAMES, VIDEO_FPS, Tolerance
from avsync_cli.timeline import Point, Timeline, make_timeline
from avsync_cli.timing import lead_ms

Floats = NDArray[np.float32]

_NOTHING_HEARD = ("no_speech", "no_visible_speaker", "too_short")


@dataclass(frozen=True)
class Findings:
    """Every face in the order in which they appear, who of them speaks, the verdict, and its timeline.

    The timeline is None where there is nobody to listen to. `cuts` are the first ticks of the shots that
    begin in what was looked at.
    """

    faces: list[list[FacePiece]]
    speakers: list[Speaker]
    verdict: Verdict
    timeline: Timeline | None = None
    cuts: tuple[int, ...] = ()


def judge_looks(looks: list[Look], calibration: Calibration, *, speaker: str | int = AUTO) -> Findings:
    """Answer from the faces that speak; `speaker` as `speakers.choose_verdict`."""
    faces = sorted(group_faces(looks), key=lambda face: (face[0].first_tick, float(face[0].boxes[0, 0])))
    speakers = judge_speakers(faces, calibration)
    verdict = choose_verdict(faces, speakers, calibration, speaker=speaker)
    return Findings(
        faces, speakers, verdict, cuts=tuple(sorted({cut for look in looks for cut in look.cuts}))
    )


def add_timeline(findings: Findings, calibration: Calibration, *, every_s: float = EVERY_S) -> Findings:
    """The same with the timeline of the faces that the verdict rests on.

    A verdict of one face among several that were heard may be right for its shot alone, where the file was
    edited between shots. So all of them are asked first; where they give an edit or a drift that agrees with
    that face, the verdict rests on all. Otherwise the timeline is that of the one face; so it is where faces
    differ, as turns of speech would look like edits.
    """
    verdict = findings.verdict
    if not verdict.heard:
        return findings
    heard = (verdict.used,) if verdict.differing and verdict.used is not None else verdict.heard
    ticks, scores = gather_scores(findings, heard)
    timeline = make_timeline(ticks, scores, calibration, every_s=every_s)
    if verdict.used is None or len(heard) == 1:
        return replace(findings, timeline=timeline)
    ticks, scores = gather_scores(findings, (verdict.used,))
    if timeline.parts and _passes_through(timeline, verdict.answer, ticks):
        return replace(findings, verdict=replace(verdict, used=None), timeline=timeline)
    return replace(findings, timeline=make_timeline(ticks, scores, calibration, every_s=every_s))


def report_findings(
    path: str, info: MediaInfo, limits: Tolerance, findings: Findings, student: Student
) -> Report:
    """Put the findings into the words and fields of the report."""
    verdict, timeline = findings.verdict, findings.timeline
    parts = timeline.parts if timeline is not None and _may_have_parts(verdict.answer) else ()
    differing = () if parts else verdict.differing
    if parts or differing:
        turns = [part.answer for part in parts] or [findings.speakers[place].answer for place in differing]
        chosen: Answer | None = _furthest_out(turns, limits)
    else:
        chosen = _widen(verdict.answer, timeline)
    base = _report_answer(path, info, limits, chosen, student)
    tracks = [_track_report(face, each) for face, each in zip(findings.faces, findings.speakers, strict=True)]
    base = replace(base, tracks=tuple(tracks), used_track=verdict.used, heard_tracks=verdict.heard)
    if differing:
        faces = _face_offsets(findings, differing)
        base = replace(base, differing_faces=faces, agreed=False, message=_describe_faces(faces, limits))
    if verdict.answer is None and findings.faces:
        return replace(
            base, reason="no_such_face", message=f"cannot tell: there is no such face, only {len(tracks)}"
        )
    course = None if timeline is None else timeline.course
    if timeline is None or course is None:
        return base
    base = replace(base, timeline=tuple(_timeline_point(point) for point in timeline.points))
    if base.reason is not None:
        return base
    steps = tuple(
        StepReport(step.at_s, step.uncertainty_s, lead_ms(step.from_frames), lead_ms(step.to_frames))
        for step in course.steps
    )
    drifts = course.kind == "drift"
    return replace(
        base,
        message=_describe_parts(parts, steps, course.drift_ms_per_min, limits) if parts else base.message,
        course=course.kind,
        steps=steps,
        drift_ms_per_min=course.drift_ms_per_min if drifts else None,
        drift_uncertainty_ms_per_min=course.drift_uncertainty if drifts else None,
        drift_start_ms=_lead_at_start_ms(parts[0], course.drift_ms_per_min) if drifts else None,
    )


def is_constant(findings: Findings) -> bool:
    """Whether one offset can be relied on throughout."""
    answer, timeline = findings.verdict.answer, findings.timeline
    constant = timeline is not None and timeline.course is not None and timeline.course.kind == "constant"
    return constant and answer is not None and answer.reason is None


def _lead_at_start_ms(part: Point, drift_ms_per_min: float) -> float:
    """The audio lead at the first picture, from that of the first moment that was answered from."""
    return lead_ms(part.answer.lead_frames or 0.0) - drift_ms_per_min * part.start_s / 60


def gather_scores(findings: Findings, places: tuple[int, ...]) -> tuple[NDArray[np.int64], Floats]:
    """Ticks [V] and scores [V, C] of the windows of these faces."""
    pieces = [piece for place in places for piece in findings.faces[place]]
    ticks = np.concatenate([piece.ticks[: len(piece.scores)] for piece in pieces])
    return ticks, np.concatenate([piece.scores for piece in pieces])


def _passes_through(timeline: Timeline, answer: Answer | None, ticks: NDArray[np.int64]) -> bool:
    """Whether at most of the ticks [V] the course is what this answer says, to a frame."""
    if timeline.course is None or answer is None or answer.lead_frames is None:
        return False
    misses = np.abs(timeline.course.leads_at(ticks / VIDEO_FPS) - answer.lead_frames)
    return float(np.median(misses)) <= SAME_OFFSET_FRAMES


def _may_have_parts(answer: Answer | None) -> bool:
    """Whether the parts of a course may stand for an answer: not where there was nothing to answer from."""
    return answer is not None and answer.reason not in _NOTHING_HEARD


def _widen(answer: Answer | None, timeline: Timeline | None) -> Answer | None:
    """The answer of a constant offset, less certain where its halves disagree (`course.measure_spread`)."""
    course = None if timeline is None else timeline.course
    if answer is None or answer.uncertainty_ms is None or course is None:
        return answer
    return replace(answer, uncertainty_ms=answer.uncertainty_ms + lead_ms(course.spread_frames))


def _furthest_out(answers: list[Answer], limits: Tolerance) -> Answer:
    """The answer that is furthest beyond a limit, or nearest to one."""

    def excess_ms(answer: Answer) -> float:
        audio_lead_ms = lead_ms(answer.lead_frames or 0.0)
        return max(audio_lead_ms - limits.earliest_ms, limits.latest_ms - audio_lead_ms)

    return max(answers, key=excess_ms)


def _face_offsets(findings: Findings, places: tuple[int, ...]) -> tuple[FaceOffset, ...]:
    answers = [findings.speakers[place].answer for place in places]
    return tuple(
        FaceOffset(place + 1, lead_ms(answer.lead_frames or 0.0), answer.uncertainty_ms, answer.confidence)
        for place, answer in zip(places, answers, strict=True)
    )


def _describe_faces(faces: tuple[FaceOffset, ...], limits: Tolerance) -> str:
    """The offset of each of several faces, in words."""
    words = [
        f"face {face.speaker}: {judge_lead(face.audio_lead_ms, limits, face.uncertainty_ms)[2]}"
        for face in faces
    ]
    return f"{len(faces)} faces in view together differ: {'; '.join(words)}"


def _describe_parts(
    parts: tuple[Point, ...], steps: tuple[StepReport, ...], drift_ms_per_min: float, limits: Tolerance
) -> str:
    """How the offset goes over time, in words."""
    words = [
        judge_lead(lead_ms(part.answer.lead_frames or 0.0), limits, part.answer.uncertainty_ms)[2]
        for part in parts
    ]
    if not steps:
        return (
            f"audio drifts by {drift_ms_per_min:+.0f} ms a minute: at {parts[0].start_s:.0f} s {words[0]}, "
            f"at {parts[-1].end_s:.0f} s {words[-1]}"
        )
    changes = [f"from {step.at_s:.0f} s on {word}" for step, word in zip(steps, words[1:], strict=True)]
    return ", ".join([words[0], *changes])


def _report_answer(
    path: str, info: MediaInfo, limits: Tolerance, chosen: Answer | None, student: Student
) -> Report:
    reason = "no_face" if chosen is None else chosen.reason
    base = Report(
        file=path,
        status="undetermined",
        reason=reason,
        message=f"cannot tell: {describe_reason(reason)}" if reason is not None else "",
        limits_ms=(limits.latest_ms, limits.earliest_ms),
        duration_s=info.duration_s,
        fps=info.fps,
        confidence=0.0 if chosen is None else chosen.confidence,
        curve=None if chosen is None else chosen.curve.tolist(),
        range_frames=None if chosen is None else len(chosen.curve) // 2,
        model=ModelId(student.name, student.sha256, student.precision),
    )
    if reason is not None or chosen is None or chosen.lead_frames is None:
        return base if chosen is None else _name_rivals(base, chosen)
    audio_lead_ms = lead_ms(chosen.lead_frames)
    status, direction, words = judge_lead(audio_lead_ms, limits, chosen.uncertainty_ms)
    return replace(
        base,
        status=status,
        message=words,
        audio_lead_ms=audio_lead_ms,
        audio_lead_frames=chosen.lead_frames,
        uncertainty_ms=chosen.uncertainty_ms,
        direction=direction,
    )


def _name_rivals(report: Report, chosen: Answer) -> Report:
    """The report of an answer that cannot be told from another, with both of them."""
    if chosen.reason != "low_confidence" or chosen.lead_frames is None or chosen.rival_frames is None:
        return report
    leads_ms = (lead_ms(chosen.lead_frames), lead_ms(chosen.rival_frames))
    both = " and ".join(f"{each:+.0f} ms" for each in leads_ms)
    words = (
        f"cannot tell: audio leads of {both} fit about as well, as where the voice is heard twice (an echo)"
    )
    return replace(report, message=words, candidate_leads_ms=leads_ms)


def _track_report(face: list[FacePiece], speaker: Speaker) -> TrackReport:
    answer = speaker.answer
    return TrackReport(
        start_s=float(face[0].ticks[0]) / VIDEO_FPS,
        end_s=float(face[-1].ticks[-1] + 1) / VIDEO_FPS,
        box=np.median(np.concatenate([piece.boxes for piece in face]), axis=0).tolist(),
        audio_lead_ms=None if answer.lead_frames is None else lead_ms(answer.lead_frames),
        confidence=answer.confidence,
        speaking=speaker.speaking,
        mouth_motion=speaker.motion,
        curve=answer.curve.tolist(),
        turned_degrees=face[0].turned_degrees,
        yaw_degrees=_median_yaw(face),
    )


def _median_yaw(face: list[FacePiece]) -> float | None:
    known = [piece.yaws_degrees for piece in face if piece.yaws_degrees is not None]
    return float(np.median(np.concatenate(known))) if known else None


def _timeline_point(point: Point) -> TimelinePoint:
    """A point whose answer cannot be relied on has a confidence and no lead."""
    answer = point.answer
    usable = answer.reason is None and answer.lead_frames is not None
    return TimelinePoint(
        point.start_s,
        point.end_s,
        lead_ms(answer.lead_frames) if usable and answer.lead_frames is not None else None,
        answer.confidence,
        answer.uncertainty_ms if usable else None,
    )
