"""Sound that runs at another rate than its pictures, as of film that was made for another frame rate.

Its offset runs by a frame a second and more, out of any range: such a slope is not searched for but taken
from the known ratios of frame rates. Sound that is fast by a speed s is heard at t / s instead of t, so its
lead grows by 1 - 1 / s.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from avsync_cli.confidence import Calibration
from avsync_cli.course import Course
from avsync_cli.findings import Findings, gather_scores, judge_looks
from avsync_cli.offsets import average_curve
from avsync_cli.ranges import widen_looks
from avsync_cli.report import Report
from avsync_cli.scoring import Look
from avsync_cli.speakers import AUTO
from avsync_cli.spec import EVERY_S, VIDEO_FPS
from avsync_cli.timeline import (
    Point,
    Timeline,
    answer_ends,
    answer_every,
    holds_throughout,
    straighten,
)

_NTSC_FILM = Fraction(24_000, 1001)
_STANDS_OUT = 1.3  # times the peak of the curve without the rate: what that with it must reach
_SPAN_S = 20  # between the first and the last window: in less, the rate and an offset are one
_SURE_SLOPE = 15.0  # ms a minute: a drift known less well is given no name


@dataclass(frozen=True)
class Rate:
    """Sound made for `made` frames a second, played as if for `played`."""

    made: Fraction
    played: Fraction

    @property
    def speed(self) -> Fraction:
        return self.played / self.made

    @property
    def ms_per_min(self) -> float:
        return float((1 - 1 / self.speed) * 60_000)

    def __str__(self) -> str:
        change = abs(float(self.speed) - 1) * 100
        played, made = (f"{float(rate):.5g}" for rate in (self.played, self.made))
        way = "fast" if self.speed > 1 else "slow"
        return (
            f"sound runs {change:.2f}".rstrip("0").rstrip(".")
            + f" % {way}: {played} for {made} frames a second"
        )


STEEP = tuple(
    Rate(*pair)
    for film in (_NTSC_FILM, Fraction(24))
    for pair in ((film, Fraction(25)), (Fraction(25), film))
)
SLIGHT = (Rate(_NTSC_FILM, Fraction(24)), Rate(Fraction(24), _NTSC_FILM))


def name_drift(course: Course) -> Rate | None:
    """The ratio of frame rates that a drift is, if it is known well enough to tell."""
    uncertainty = course.drift_uncertainty
    if course.kind != "drift" or uncertainty is None or uncertainty > _SURE_SLOPE:
        return None
    return next(
        (
            rate
            for rate in (*SLIGHT, *STEEP)
            if abs(course.drift_ms_per_min - rate.ms_per_min) <= max(uncertainty, 1e-6)
        ),
        None,
    )


def name_rate(report: Report, findings: Findings) -> Report:
    """The report with the ratio of frame rates that its drift is, if it is one."""
    course = None if findings.timeline is None else findings.timeline.course
    rate = None if course is None or report.course != "drift" else name_drift(course)
    if rate is None:
        return report
    return replace(report, sound_speed=float(rate.speed), message=f"{rate}; {report.message}")


def find_steep_rate(
    looks: list[Look], calibration: Calibration, *, speaker: str | int = AUTO, every_s: float = EVERY_S
) -> Findings | None:
    """The findings with the ratio of frame rates that makes one offset of all; None where none does so."""
    wide = widen_looks(looks)
    found: list[tuple[float, Findings]] = []
    plain = _peak(judge_looks(wide, calibration, speaker=speaker))
    for rate in STEEP:
        tilt = Course("drift", 0.0, drift_ms_per_min=rate.ms_per_min, drift_uncertainty=0.0)
        level = judge_looks([_level(look, tilt) for look in wide], calibration, speaker=speaker)
        height = _peak(level)
        if height >= _STANDS_OUT * plain and _is_borne_out(level, calibration):
            found.append((height, _tilt(level, wide, tilt, calibration, every_s)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _level(look: Look, tilt: Course) -> Look:
    """A look with its scores moved as if there were no slope."""
    pieces = [
        replace(
            piece,
            scores=straighten(piece.ticks[: len(piece.scores)], piece.scores, tilt, reference_frames=0.0),
        )
        for piece in look.pieces
    ]
    return replace(look, pieces=tuple(pieces))


def _peak(findings: Findings) -> float:
    """Height of the curve of those that are heard."""
    if not findings.verdict.heard:
        return 0.0
    curve = average_curve(gather_scores(findings, findings.verdict.heard)[1])
    return float(curve[np.isfinite(curve)].max(initial=0.0))


def _is_borne_out(level: Findings, calibration: Calibration) -> bool:
    """Whether the answer with the slope taken out can be relied on, in both halves of what was heard."""
    answer = level.verdict.answer
    if answer is None or answer.reason is not None or answer.lead_frames is None:
        return False
    ticks, scores = gather_scores(level, level.verdict.heard)
    within = np.isfinite(scores).any(axis=1)  # the range that was scored: later on, the slope has left it
    ticks, scores = ticks[within], scores[within]
    constant = Course("constant", answer.lead_frames)
    return bool(np.ptp(ticks) >= _SPAN_S * VIDEO_FPS) and holds_throughout(
        constant, ticks, scores, calibration
    )


def _tilt(
    level: Findings, wide: list[Look], tilt: Course, calibration: Calibration, every_s: float
) -> Findings:
    """Findings with the slope taken out, as what they are with it."""
    faces = judge_looks(wide, calibration).faces
    answer = level.verdict.answer
    course = replace(tilt, lead_frames=(answer.lead_frames if answer is not None else None) or 0.0)
    ticks, scores = gather_scores(level, level.verdict.heard)
    points = []
    for point in answer_every(ticks, scores, calibration, every_s):
        middle_s = np.array([(point.start_s + point.end_s) / 2])
        lead = point.answer.lead_frames
        moved = None if lead is None else lead + float(tilt.leads_at(middle_s)[0])
        points.append(Point(point.start_s, point.end_s, replace(point.answer, lead_frames=moved)))
    tilted = Findings(faces, level.speakers, level.verdict)
    ends = answer_ends(course, *gather_scores(tilted, level.verdict.heard), calibration)
    return replace(tilted, timeline=Timeline(course, ends, tuple(points)))
