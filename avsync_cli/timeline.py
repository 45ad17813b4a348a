"""The offset over time: an answer for every so many seconds, and the course that all of them follow.

V windows, C offsets. What a course claims is checked before it is believed: every level between two
steps, and both halves of a drift, must name their offset by themselves.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avsync_cli.answers import Answer, answer_scores
from avsync_cli.confidence import Calibration
from avsync_cli.course import (
    Course,
    Evidence,
    Step,
    fit_constant,
    fit_courses,
    is_clear_drift,
    measure_evidence,
    measure_spread,
)
from avsync_cli.offsets import WINDOWS_AT_ONCE
from avsync_cli.spec import EVERY_S, VIDEO_FPS, WINDOW_FRAMES

Floats = NDArray[np.float32]
Ticks = NDArray[np.int64]
Mask = NDArray[np.bool_]

LEVEL_CONFIDENCE = 0.8  # least of every level and of both halves of a drift, by themselves


@dataclass(frozen=True)
class Point:
    """What the windows of [start_s, end_s) say by themselves."""

    start_s: float
    end_s: float
    answer: Answer


@dataclass(frozen=True)
class Timeline:
    """The course of the offset and the answers of its parts.

    `parts` are the levels between the steps; of a drift its two ends, with the lead there. A constant
    has none: it is answered from everything.
    """

    course: Course | None
    parts: tuple[Point, ...]
    points: tuple[Point, ...]


def make_timeline(
    ticks: Ticks, scores: Floats, calibration: Calibration, *, every_s: float = EVERY_S
) -> Timeline:
    """The timeline of scores [V, C] of the windows at `ticks` [V], in any order."""
    course, kept = trace_course(ticks, scores, calibration)
    parts: tuple[Point, ...] = ()
    if course is not None and course.kind != "constant":
        answer_parts = _answer_levels if course.kind == "steps" else answer_ends
        rests_on = (ticks, scores) if kept.all() else (ticks[kept], scores[kept])
        parts = answer_parts(course, *rests_on, calibration)
    if course is not None and course.kind == "steps":
        course = _refine_steps(course, parts)
    return Timeline(course, parts, tuple(answer_every(ticks, scores, calibration, every_s)))


def trace_course(ticks: Ticks, scores: Floats, calibration: Calibration) -> tuple[Course | None, Mask]:
    """The course of the offset, and which windows [V] it rests on. None where there is no score at all.

    A level whose scores alone cannot be relied on, as those of a face whose voice is not the one heard,
    is no level but a stretch that says nothing: the course is sought without it.
    """
    evidence = measure_evidence(ticks, scores)
    seconds = ticks // VIDEO_FPS
    while len(evidence.seconds):
        fits = fit_courses(evidence)
        holding = [
            (value, course)
            for value, course in fits
            if course.kind != "drift"
            or (is_clear_drift(course, evidence) and holds_throughout(course, ticks, scores, calibration))
        ]
        course = max(holding, key=lambda fit: fit[0])[1]
        doubted = _find_doubted(evidence, course, seconds, scores, calibration)
        if doubted.all():
            course, doubted = fit_constant(evidence)[1], ~doubted
        if not doubted.any():
            if course.kind == "constant":
                course = replace(course, spread_frames=measure_spread(evidence, fits))
            return course, np.isin(seconds, evidence.seconds)
        evidence = Evidence(evidence.seconds[~doubted], evidence.leads_frames, evidence.logs[~doubted])
    return None, np.zeros(len(ticks), bool)


def straighten(ticks: Ticks, scores: Floats, course: Course, *, reference_frames: float) -> Floats:
    """Move every window's scores [V, C] by whole frames, as if its lead were `reference_frames`.

    What is moved in from beyond the offsets scored is NaN.
    """
    shifts = np.rint(course.leads_at(ticks / VIDEO_FPS) - reference_frames).astype(np.int64)
    straight = np.full(scores.shape, np.nan, np.float32)
    for first in range(0, len(scores), WINDOWS_AT_ONCE):
        part = slice(first, first + WINDOWS_AT_ONCE)
        columns = np.arange(scores.shape[1]) + shifts[part, None]
        inside = (columns >= 0) & (columns < scores.shape[1])
        moved = np.take_along_axis(scores[part], columns.clip(0, scores.shape[1] - 1), axis=1)
        straight[part] = np.where(inside, moved, np.nan)
    return straight


def answer_every(ticks: Ticks, scores: Floats, calibration: Calibration, every_s: float) -> list[Point]:
    """A point for every stretch with windows; the first begins and the last ends with what was seen."""
    numbers = (ticks / VIDEO_FPS // every_s).astype(np.int64)
    first_s, end_s = _first_s(ticks), float(ticks.max() + WINDOW_FRAMES) / VIDEO_FPS
    return [
        Point(
            max(number * every_s, first_s),
            min((number + 1) * every_s, end_s),
            answer_scores(scores[numbers == number], calibration),
        )
        for number in np.unique(numbers).tolist()
    ]


def _answer_levels(
    course: Course, ticks: Ticks, scores: Floats, calibration: Calibration
) -> tuple[Point, ...]:
    edges_s = [step.at_s for step in course.steps]
    level = np.searchsorted(edges_s, (ticks // VIDEO_FPS) + 0.5, side="right")
    starts_s, ends_s = [_first_s(ticks), *edges_s], [*edges_s, _end_s(ticks)]
    return tuple(
        Point(start_s, end_s, answer_scores(scores[level == number], calibration))
        for number, (start_s, end_s) in enumerate(zip(starts_s, ends_s, strict=True))
    )


def answer_ends(course: Course, ticks: Ticks, scores: Floats, calibration: Calibration) -> tuple[Point, ...]:
    """The whole drift's answer, moved to where it begins and to where it ends.

    The further from the middle, the more the slope's uncertainty adds to that of the lead.
    """
    straight = straighten(ticks, scores, course, reference_frames=course.lead_frames)
    answer = answer_scores(straight, calibration)
    if answer.lead_frames is None or answer.uncertainty_ms is None:
        return ()
    times_s = np.array([_first_s(ticks), _end_s(ticks)])
    moves = course.leads_at(times_s) - course.lead_frames
    wider_ms = (course.drift_uncertainty or 0.0) * np.abs(times_s - course.origin_s) / 60
    return tuple(
        Point(
            time_s,
            time_s,
            replace(
                answer, lead_frames=answer.lead_frames + move, uncertainty_ms=answer.uncertainty_ms + wider
            ),
        )
        for time_s, move, wider in zip(times_s.tolist(), moves.tolist(), wider_ms.tolist(), strict=True)
    )


def _refine_steps(course: Course, parts: tuple[Point, ...]) -> Course:
    """The steps between the answers of their levels, which are finer than the grid they were found on."""
    leads = [part.answer.lead_frames or 0.0 for part in parts]
    steps = tuple(
        Step(step.at_s, step.uncertainty_s, before, after)
        for step, before, after in zip(course.steps, leads[:-1], leads[1:], strict=True)
    )
    return replace(course, lead_frames=leads[0], steps=steps)


def holds_throughout(course: Course, ticks: Ticks, scores: Floats, calibration: Calibration) -> bool:
    """Whether a drift can be relied on in both halves of the windows, each by itself."""
    straight = straighten(ticks, scores, course, reference_frames=course.lead_frames)
    late = ticks >= np.median(ticks)
    return all(_is_reliable(straight[half], calibration) for half in (late, ~late))


def _find_doubted(
    evidence: Evidence, course: Course, seconds: Ticks, scores: Floats, calibration: Calibration
) -> Mask:
    """Which seconds [B] lie in levels between steps that cannot be relied on by themselves."""
    edges_s = [step.at_s for step in course.steps]
    level = np.searchsorted(edges_s, evidence.seconds + 0.5, side="right")
    doubted = np.zeros(len(evidence.seconds), bool)
    for number in range(len(edges_s) + 1) if edges_s else ():
        windows = np.isin(seconds, evidence.seconds[level == number])
        if not _is_reliable(scores[windows], calibration):
            doubted |= level == number
    return doubted


def _is_reliable(scores: Floats, calibration: Calibration) -> bool:
    answer = answer_scores(scores, calibration)
    return answer.reason is None and answer.confidence >= LEVEL_CONFIDENCE


def _first_s(ticks: Ticks) -> float:
    return float(ticks.min()) / VIDEO_FPS


def _end_s(ticks: Ticks) -> float:
    return float(ticks.max() + 1) / VIDEO_FPS
