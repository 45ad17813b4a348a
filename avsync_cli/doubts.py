"""What counts against a verdict: looks that name another offset, and mouths that move where nothing fits."""

from dataclasses import dataclass, replace

from avsync_cli.answers import agree
from avsync_cli.confidence import Calibration
from avsync_cli.course import MIN_STEP_FRAMES, Course
from avsync_cli.findings import Findings
from avsync_cli.fit import Fit, measure_fit
from avsync_cli.report import Report, judge_lead
from avsync_cli.scoring import Look
from avsync_cli.spec import VIDEO_FPS, Tolerance
from avsync_cli.survey import SURE_ALONE, find_contrary_looks, find_strangers
from avsync_cli.timeline import Point
from avsync_cli.timing import lead_ms

MOST_UNFITTED = 1 / 3  # of what speaks in one go, beside which a file may still be called in sync
MOST_UNFITTED_S = 12.0  # in one stretch of that
MOST_UNFITTED_SAMPLED = 0.15  # of what speaks in passages, which stand for a hundred times as much
LEAST_UNFITTED_S = 5.0  # that two passages alone do not reach: one in fifty fits nothing by chance
MOST_UNFITTED_MENDED = 0.1  # beside which one delay may still be offered
REACH_S = 30.0  # to either side of a look, for which it speaks
_TOLD_UNFITTED_S = 2.0  # less is not worth a word
_MOST_TOLD = 3  # places, in words


@dataclass(frozen=True)
class Contrary:
    """A moment that names another offset by itself than the verdict has there."""

    at_s: float
    lead_frames: float


@dataclass(frozen=True)
class Doubts:
    """What was found against a verdict: `contrary` moments name another offset than it has there.

    `strangers` are looks that fit nothing, nor together with those beside them; of `looks` in all.
    """

    fit: Fit
    contrary: tuple[Contrary, ...]
    strangers: tuple[Look, ...] = ()
    looks: int = 1

    @property
    def forbid_in_sync(self) -> bool:
        fit = self.fit
        if self.looks == 1:
            too_much = fit.unfitted_s > MOST_UNFITTED * fit.heard_s or fit.longest_s > MOST_UNFITTED_S
        else:
            too_much = fit.unfitted_s > max(MOST_UNFITTED_SAMPLED * fit.heard_s, LEAST_UNFITTED_S)
        return bool(self.contrary or self.strangers) or too_much

    @property
    def forbid_a_mend(self) -> bool:
        too_much = self.fit.unfitted_s > MOST_UNFITTED_MENDED * self.fit.heard_s
        return bool(self.contrary or self.strangers) or too_much


def find_doubts(looks: list[Look], findings: Findings, calibration: Calibration) -> Doubts:
    """What looks, as they were judged, have against the findings."""
    fit = measure_fit(findings)
    if len(looks) == 1:
        return Doubts(fit, tuple(find_contrary_points(findings)))
    contrary = [
        Contrary(told.middle_s, told.answer.lead_frames)
        for told in find_contrary_looks(looks, findings, calibration)
        if told.answer is not None and told.answer.lead_frames is not None
    ]
    strangers = find_strangers(looks, findings, calibration)
    return Doubts(fit, tuple(contrary), tuple(strangers), len(looks))


def find_contrary_points(findings: Findings) -> list[Contrary]:
    """Moments of the timeline that are sure of another offset than the course has anywhere in them.

    Where one beside it can be relied on, and none of these agrees with it, it is taken for chance.
    """
    timeline = findings.timeline
    course = None if timeline is None else timeline.course
    if timeline is None or course is None or findings.verdict.differing:
        return []
    points = timeline.points
    found = []
    for number, point in enumerate(points):
        beside = [*points[max(0, number - 1) : number], *points[number + 1 : number + 2]]
        told = [other for other in beside if other.answer.reason is None]
        if _is_off(point, course) and (not told or any(agree(each.answer, point.answer) for each in told)):
            found.append(Contrary((point.start_s + point.end_s) / 2, point.answer.lead_frames or 0.0))
    return found


def _is_off(point: Point, course: Course) -> bool:
    answer = point.answer
    if answer.reason is not None or answer.lead_frames is None or answer.confidence < SURE_ALONE:
        return False
    low, high = course.range_within(point.start_s, point.end_s)
    return not low - MIN_STEP_FRAMES <= answer.lead_frames <= high + MIN_STEP_FRAMES


def measure_coverage(looks: list[Look], first_s: float, end_s: float) -> float:
    """Share of [first_s, end_s) that lies within `REACH_S` of a look with a face."""
    reached, until_s = 0.0, first_s
    for look in sorted(looks, key=lambda look: look.first_tick):
        if look.pieces:
            begin_s = max(until_s, look.first_tick / VIDEO_FPS - REACH_S)
            until_s = max(until_s, min(end_s, look.end_tick / VIDEO_FPS + REACH_S))
            reached += max(0.0, until_s - begin_s)
    return min(1.0, reached / (end_s - first_s)) if end_s > first_s else 0.0


def doubt_report(report: Report, doubts: Doubts, limits: Tolerance) -> Report:
    """The report with what counts against it; in sync is only what nothing contradicts."""
    fit = doubts.fit
    report = replace(report, unfitted_s=fit.unfitted_s, agreed=report.agreed and not doubts.forbid_a_mend)
    words = [_describe_contrary(each, limits) for each in doubts.contrary[:_MOST_TOLD]]
    if len(doubts.contrary) > _MOST_TOLD:
        words.append(f"and elsewhere in {len(doubts.contrary) - _MOST_TOLD} places")
    told_unfitted = doubts.forbid_in_sync or fit.unfitted_s >= _TOLD_UNFITTED_S
    if told_unfitted and fit.unfitted_s > 0 and report.audio_lead_ms is not None:
        words.append(f"for {fit.unfitted_s:.0f} s of {fit.heard_s:.0f} s nothing fits{_name_places(doubts)}")
    if not words:
        return report
    told = "; ".join([report.message, *words])
    if report.status != "in_sync" or not doubts.forbid_in_sync:
        return replace(report, message=told)
    return replace(
        report,
        status="undetermined",
        reason="inconsistent",
        message=f"cannot tell: {told}",
        audio_lead_ms=None,
        audio_lead_frames=None,
        uncertainty_ms=None,
        direction=None,
        course=None,
        steps=(),
        drift_ms_per_min=None,
        drift_uncertainty_ms_per_min=None,
        drift_start_ms=None,
        sound_speed=None,
        agreed=False,
    )


def _describe_contrary(each: Contrary, limits: Tolerance) -> str:
    return f"but at {each.at_s:.0f} s {judge_lead(lead_ms(each.lead_frames), limits)[2]}"


def _name_places(doubts: Doubts) -> str:
    """Where the looks are that fit nothing, in words; no more than three of them."""
    places = [f"{look.first_tick / VIDEO_FPS:.0f} s" for look in doubts.strangers]
    if not places:
        return ""
    return f", as at {', '.join(places[:_MOST_TOLD])}" + (
        " and elsewhere" if len(places) > _MOST_TOLD else ""
    )
