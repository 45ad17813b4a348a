"""Which places of a long file to look at, how many there must be, and what their looks say of one another.

A change of the offset shows only where somebody is looked at. So looks are spread over the whole file, as
many as its length asks for; where one of them contradicts the others, or fits nothing, more are taken beside
it and halfway to those that agree, until the course is known or `MAX_MORE_LOOKS` are spent.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from avsync_cli.answers import Answer, agree, is_enough
from avsync_cli.confidence import Calibration
from avsync_cli.course import MIN_STEP_FRAMES, Course
from avsync_cli.findings import Findings, add_timeline, judge_looks
from avsync_cli.fit import NOTHING_FITS, Blocks, find_blocks, fit_alone, fit_together
from avsync_cli.ranges import choose_range
from avsync_cli.scoring import Look
from avsync_cli.spec import MIN_PASSAGES, VIDEO_FPS

LOOKS_PER_ROOT_MINUTE = 2.3  # looks with a voice: 3 in a minute, 18 in an hour, 31 in three
SURE_ALONE = 0.95  # of a look: another's voice names an offset as surely in one of 200 looks
MAX_SPARE_LOOKS = 7  # more than that, where the first ones tell too little
MAX_MORE_LOOKS = 20  # towards changes, after those that are spread
START_TICKS = 90 * VIDEO_FPS  # until then sound that is 4.27 % fast is less than `MAX_RANGE_FRAMES` off
_START_STRETCH_TICKS = 15 * VIDEO_FPS
_NEAR_TICKS = 12 * VIDEO_FPS  # looks no further apart are judged together before they contradict others
_BESIDE_TICKS = 5 * VIDEO_FPS  # beside a look that fits nothing, to see whether that goes on
_AROUND_TICKS = (0, 5 * VIDEO_FPS, 20 * VIDEO_FPS, 60 * VIDEO_FPS)  # around one that contradicts
_EDGE_TICKS = 8 * VIDEO_FPS  # between two looks with different offsets: close enough
_WIDEST_GAP = 1.75  # times the mean distance of the looks
_SILENT = ("no_speech", "no_visible_speaker")

LookBetween = Callable[[int, int], Look | None]  # ticks -> a look somewhere there, None where nobody speaks


@dataclass(frozen=True)
class Told:
    """A look, and what it says by itself: None without anybody who speaks."""

    look: Look
    answer: Answer | None

    @property
    def middle_s(self) -> float:
        return (self.look.first_tick + self.look.end_tick) / 2 / VIDEO_FPS


def least_looks(ticks: int) -> int:
    """How many looks with a voice a file of so many ticks needs."""
    return max(MIN_PASSAGES, round(LOOKS_PER_ROOT_MINUTE * math.sqrt(ticks / VIDEO_FPS / 60)))


def take_looks(
    spread: Iterable[tuple[Look, bool]],
    look_between: LookBetween,
    first_tick: int,
    end_tick: int,
    calibration: Calibration,
) -> list[Look]:
    """Looks at a file of the ticks [first_tick, end_tick), until its course is known.

    `spread` gives looks at places spread over the file, and whether a face and a voice were to be expected
    there. Further ones are asked of `look_between`.
    """
    told = _take_spread(spread, least_looks(end_tick - first_tick), calibration)
    barren: set[tuple[int, int]] = set()
    for _ in range(MAX_MORE_LOOKS):
        wanted = _choose_stretch(told, barren, first_tick, end_tick, calibration)
        if wanted is None:
            break
        look = look_between(*wanted)
        if look is None or look.end_tick == 0:
            barren.add(wanted)
        else:
            told.append(_hear_out(look, calibration))
    return [*(each.look for each in told), *_look_at_start(told, look_between, first_tick, calibration)]


def _look_at_start(
    told: list[Told], look_between: LookBetween, first_tick: int, calibration: Calibration
) -> list[Look]:
    """Looks at the beginning of a file in which nothing fits.

    Sound that runs 4 % fast or slow is within any range of offsets there alone (`rates.find_steep_rate`).
    """
    answer = _judge([each.look for each in told], calibration).verdict.answer if told else None
    if answer is None or answer.reason not in NOTHING_FITS:
        return []
    stretches = range(first_tick, START_TICKS, _START_STRETCH_TICKS)
    found = (look_between(first, first + _START_STRETCH_TICKS) for first in stretches)
    return [look for look in found if look is not None and look.end_tick > 0]


def _take_spread(spread: Iterable[tuple[Look, bool]], least: int, calibration: Calibration) -> list[Told]:
    """As many looks as the file needs; more, up to a bound, where these are not enough for an answer."""
    told: list[Told] = []
    for look, hopeful in spread:
        if not hopeful and _answers(told, MIN_PASSAGES, calibration):
            break
        told.append(_hear_out(look, calibration))
        if len(told) == least + MAX_SPARE_LOOKS or _answers(told, least, calibration):
            break
    return told


def _hear_out(look: Look, calibration: Calibration) -> Told:
    answer = _judge([look], calibration).verdict.answer
    return Told(look, None if answer is None or answer.reason in _SILENT else answer)


def _judge(looks: list[Look], calibration: Calibration) -> Findings:
    return judge_looks(choose_range(looks, calibration), calibration)


def _answers(told: list[Told], least: int, calibration: Calibration) -> bool:
    """Whether the looks so far answer the question; those without a face or speech do not count."""
    speaking = [each.answer for each in told if each.answer is not None]
    if len(speaking) < least:
        return False
    chosen = _judge([each.look for each in told], calibration).verdict.answer
    return is_enough(chosen, speaking)


def find_contrary(told: list[Told], course: Course, calibration: Calibration) -> list[Told]:
    """The looks that name another offset than the course has there, and that those beside them bear out."""
    return [
        each
        for each in told
        if _disagrees(each, course) and not _is_dissolved(each, _near(each, told), calibration)
    ]


def find_contrary_looks(looks: list[Look], findings: Findings, calibration: Calibration) -> list[Told]:
    """The same of looks that nothing is known of yet; none where there is no course or only one look."""
    course = None if findings.timeline is None else findings.timeline.course
    if course is None or len(looks) < 2:
        return []
    return find_contrary([_hear_out(look, calibration) for look in looks], course, calibration)


def find_strangers(looks: list[Look], findings: Findings, calibration: Calibration) -> list[Look]:
    """The looks in which a mouth moves with a voice that does not fit it, nor fits those beside it.

    None where there is no offset to fit.
    """
    told = [_hear_out(look, calibration) for look in looks]
    blocks = find_blocks(findings)
    return [
        each.look
        for each in _find_unfitted(told, findings, blocks)
        if fit_together([each.look, *(other.look for other in _near(each, told))], blocks) is False
    ]


def _find_unfitted(told: list[Told], findings: Findings, blocks: Blocks) -> list[Told]:
    """The looks that fit nothing by themselves, nor with those beside them."""
    answer = findings.verdict.answer
    if answer is None or answer.reason is not None:
        return []
    return [
        each
        for each in told
        if fit_alone(each.look, blocks) is False
        and fit_together([each.look, *(other.look for other in _near(each, told))], blocks) is not True
    ]


def _disagrees(each: Told, course: Course) -> bool:
    """Whether what a look says by itself can be relied on, and is not what the course has anywhere in it."""
    answer = each.answer
    if answer is None or answer.reason is not None or answer.lead_frames is None:
        return False
    low, high = course.range_within(each.look.first_tick / VIDEO_FPS, each.look.end_tick / VIDEO_FPS)
    return not low - MIN_STEP_FRAMES <= answer.lead_frames <= high + MIN_STEP_FRAMES


def _near(each: Told, told: list[Told]) -> list[Told]:
    """The other looks with a voice that are taken beside one."""
    return [
        other
        for other in told
        if other is not each
        and other.answer is not None
        and abs(other.look.first_tick - each.look.first_tick) <= _NEAR_TICKS
    ]


def _is_dissolved(each: Told, near: list[Told], calibration: Calibration) -> bool:
    """Whether those beside a look do not bear it out, and with it say something else, or nothing."""
    if not near or each.answer is None or each.answer.confidence >= SURE_ALONE:
        return False
    if any(
        other.answer.reason is None and agree(other.answer, each.answer) for other in near if other.answer
    ):
        return False
    together = _judge([each.look, *(other.look for other in near)], calibration).verdict.answer
    return together is None or together.reason is not None or not agree(together, each.answer)


def _choose_stretch(
    told: list[Told], barren: set[tuple[int, int]], first_tick: int, end_tick: int, calibration: Calibration
) -> tuple[int, int] | None:
    """The ticks among which to look next: beside a look that contradicts, at a change, in a wide gap, beside
    a look that fits nothing."""
    findings = add_timeline(_judge([each.look for each in told], calibration), calibration)
    course = findings.timeline.course if findings.timeline is not None else None
    if course is None:
        return None
    contrary = find_contrary(told, course, calibration)
    unfitted = _find_unfitted(told, findings, find_blocks(findings))
    telling = [each for each in told if each.answer is not None and each not in unfitted]
    wanted = [
        *_stretches_around(contrary, told),
        *_stretches_at_changes(told, course, contrary),
        *_wide_gaps(telling, first_tick, end_tick),
        *_stretches_beside(unfitted, told),
    ]
    return next((stretch for stretch in wanted if stretch not in barren), None)


def _stretches_around(contrary: list[Told], told: list[Told]) -> Iterator[tuple[int, int]]:
    """Beside each look that contradicts the course, then further away, until another one bears it out."""
    alone = [each for each in contrary if not _is_borne_out(each, told)]
    for near, far in pairwise(_AROUND_TICKS):
        for look in (each.look for each in alone):
            for first, end in (
                (look.end_tick + near, look.end_tick + far),
                (look.first_tick - far, look.first_tick - near),
            ):
                if not any(first <= other.look.first_tick < end for other in told):
                    yield first, end


def _is_borne_out(each: Told, told: list[Told]) -> bool:
    """Whether another look not far away names the same offset."""
    return any(
        other is not each
        and other.answer is not None
        and each.answer is not None
        and other.answer.reason is None
        and agree(other.answer, each.answer)
        and abs(other.look.first_tick - each.look.first_tick) <= _AROUND_TICKS[-1]
        for other in told
    )


def _stretches_beside(alone: list[Told], told: list[Told]) -> Iterator[tuple[int, int]]:
    """After and before each of these looks that has no other beside it."""
    for each in alone:
        if not _near(each, told):
            yield each.look.end_tick, each.look.end_tick + _BESIDE_TICKS
            yield each.look.first_tick - _BESIDE_TICKS, each.look.first_tick


def _stretches_at_changes(told: list[Told], course: Course, contrary: list[Told]) -> list[tuple[int, int]]:
    """Between neighbouring looks that name different offsets, the widest first."""
    sure = [
        (each.look, each.answer.lead_frames or 0.0)
        for each in sorted(told, key=lambda each: each.look.first_tick)
        if each.answer is not None
        and each.answer.reason is None
        and (each in contrary or not _disagrees(each, course))
    ]
    changes = [
        (one.end_tick, other.first_tick)
        for (one, lead), (other, other_lead) in pairwise(sure)
        if abs(lead - other_lead) > MIN_STEP_FRAMES and other.first_tick - one.end_tick > _EDGE_TICKS
    ]
    return sorted(changes, key=lambda stretch: stretch[0] - stretch[1])


def _wide_gaps(told: list[Told], first_tick: int, end_tick: int) -> list[tuple[int, int]]:
    """Stretches without a look that are wider than the number of looks promises, the widest first."""
    widest = _WIDEST_GAP * (end_tick - first_tick) / least_looks(end_tick - first_tick)
    edges = sorted((each.look.first_tick, each.look.end_tick) for each in told if each.answer is not None)
    edges = [(first_tick, first_tick), *edges, (end_tick, end_tick)]
    gaps = [(one[1], other[0]) for one, other in pairwise(edges) if other[0] - one[1] > widest]
    return sorted(gaps, key=lambda gap: gap[0] - gap[1])
