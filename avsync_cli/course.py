"""How the offset goes over time: constant, in steps where something was edited, or drifting.

V windows, C offsets, B bins of a second that hold windows, G places of a finer grid of offsets.

Every second's scores become a likelihood over the offsets, with a floor beneath it: a second whose peak
is wrong then costs every course the same, whatever it says. A course is the path through those
likelihoods that explains them best, and one with steps or a slope must do so by more than its further
numbers would win by chance, as the Bayesian information criterion asks (Schwarz 1978).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avsync_cli.offsets import WINDOWS_AT_ONCE, leads_of, take_relative
from avsync_cli.spec import CANDIDATES, VIDEO_FPS
from avsync_cli.timing import lead_ms

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ticks = NDArray[np.int64]
Kind = Literal["constant", "steps", "drift"]

PLACES_PER_FRAME = 4  # of the finer grid: 10 ms
SHARPNESS = 0.3  # of a second's likelihood, per standard deviation of the scores; see `measure_evidence`
WRONG_SHARE = 0.05  # of the seconds say nothing of the offset: another voice, a turned head
STEP_COST = 3.0  # times half the logarithm of the number of seconds, for each of a step's two numbers
DRIFT_COST = 3.0  # the same, for the slope
MIN_LEVEL_S = 4  # seconds with a voice between two steps: fewer may agree by chance
MIN_STEP_FRAMES = 1.75  # shots of one recording scatter by half a frame each: what is smaller is no edit
MIN_DRIFT_S = 10  # seconds with a voice that a slope needs
MIN_DRIFT_SPAN_S = 45  # from the first to the last of them: an edit bends a shorter stretch as a slope does
CLEAR_DRIFT = 2.0  # times its uncertainty: what a slope must exceed
MAX_DRIFT_MS_PER_MIN = 300.0  # a clock that is off by half a percent; what is steeper is an edit
# Drop of the logarithm of the likelihood up to which a slope or a place is stated to be possible. 1.35, half
# the chi-square of one number at 90 %, would do if the errors of the seconds were independent; those of a
# scene are not.
COVERED_DROP = 3.4
_DRIFT_BINS = 240  # are enough for a slope: it crosses less than a place in each


@dataclass(frozen=True)
class Evidence:
    """Logarithms of the likelihoods [B, G] of the offsets `leads_frames` [G] in the seconds `seconds` [B]."""

    seconds: Ticks
    leads_frames: Doubles
    logs: Doubles


@dataclass(frozen=True)
class Step:
    """A sudden change at `at_s` ± `uncertainty_s`, between two audio leads in frames."""

    at_s: float
    uncertainty_s: float
    from_frames: float
    to_frames: float


@dataclass(frozen=True)
class Course:
    """The lead in frames is `lead_frames` up to the first step; with a drift it is that at `origin_s`.

    `drift_uncertainty` (ms a minute) is to cover the true slope in 90 of 100 files. `spread_frames` is half
    of what the two halves of a constant disagree by, where another course is about as likely.
    """

    kind: Kind
    lead_frames: float
    origin_s: float = 0.0
    drift_ms_per_min: float = 0.0
    drift_uncertainty: float | None = None
    steps: tuple[Step, ...] = ()
    spread_frames: float = 0.0

    def leads_at(self, times_s: Doubles) -> Doubles:
        """Audio leads in frames at times [N] in s: [N]."""
        slope = self.drift_ms_per_min / 60 / lead_ms(1.0)  # frames a second
        leads = self.lead_frames + slope * (np.asarray(times_s, float) - self.origin_s)
        for step in self.steps:
            leads = np.where(times_s >= step.at_s, step.to_frames, leads)
        return leads

    def range_within(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The least and the greatest audio lead in frames from one time to another."""
        edges_s = [step.at_s for step in self.steps if start_s < step.at_s <= end_s]
        times_s = np.array([start_s, end_s, *edges_s, *(np.nextafter(edges_s, -np.inf) if edges_s else ())])
        leads = self.leads_at(times_s)
        return float(leads.min()), float(leads.max())


def fit_courses(evidence: Evidence) -> list[tuple[float, Course]]:
    """The best course of each kind that there is enough evidence for, with its criterion: more is better."""
    free = _best_levels(evidence.logs, _step_price(evidence))
    fits = [fit_constant(evidence), _make_steps(evidence, *_join_near(evidence, *free))]
    if len(evidence.seconds) < MIN_DRIFT_S:
        return fits
    drift = _fit_drift(evidence)
    # Shots that differ by less than an edit does are no drift either.
    return [*fits, drift] if drift[0] > _value_levels(evidence, *free) else fits


def measure_evidence(ticks: Ticks, scores: Floats) -> Evidence:
    """What each second says of the offset.

    Scores are taken relative to their window's mean, as in `scan.average_curve`, summed over a second,
    and their exponential is the likelihood. Windows overlap and a voice goes on, so a sum of 25 tells
    less than 25 independent scores: `SHARPNESS` is what makes true offsets of the validation clips most
    likely, at 1, 2 and 5 s alike.
    """
    heard = np.asarray(np.isfinite(scores).any(axis=1))
    bins, place = np.unique(ticks[heard] // VIDEO_FPS, return_inverse=True)
    places_of = np.zeros(len(ticks), np.int64)
    places_of[heard] = place
    sums, squares, count = np.zeros((len(bins), scores.shape[1])), 0.0, 0
    for first in range(0, len(ticks), WINDOWS_AT_ONCE):
        part = slice(first, first + WINDOWS_AT_ONCE)
        relative, present = take_relative(scores[part])
        np.add.at(sums, places_of[part][heard[part]], relative[heard[part]])
        squares, count = squares + float((relative**2).sum()), count + int(present.sum())
    fine = _refine(sums)
    spread = float(np.sqrt(squares / max(1, count)))  # each window's mean is 0
    logs = fine * (SHARPNESS / max(spread, 1e-9))
    logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
    places = fine.shape[1]
    logs = np.logaddexp(logs + np.log(1 - WRONG_SHARE), np.log(WRONG_SHARE / places))
    leads = leads_of(scores.shape[1])[0] + np.arange(places) / PLACES_PER_FRAME
    return Evidence(bins, leads, logs)


def _refine(curves: Doubles) -> Doubles:
    """Curves [B, C] at `PLACES_PER_FRAME` places a frame, by cubic convolution: [B, G].

    Straight lines between the frames would put every peak on a whole frame.
    """
    last = curves.shape[1] - 1
    whole, part = np.divmod(np.arange(last * PLACES_PER_FRAME + 1), PLACES_PER_FRAME)
    f = part / PLACES_PER_FRAME
    weights = ((2 - f) * f - 1) * f, (3 * f - 5) * f * f + 2, ((4 - 3 * f) * f + 1) * f, (f - 1) * f * f
    taps = zip(weights, range(-1, 3), strict=True)
    return sum(0.5 * w * curves[:, (whole + tap).clip(0, last)] for w, tap in taps)  # type: ignore[return-value]


def fit_constant(evidence: Evidence) -> tuple[float, Course]:
    """The likelihood and the course of the best constant."""
    total = evidence.logs.sum(axis=0)
    best = int(total.argmax())
    return float(total[best]), Course("constant", float(evidence.leads_frames[best]))


def is_clear_drift(course: Course, evidence: Evidence) -> bool:
    """Whether a drift is long, steep and sure enough to be told from an edit."""
    span_s = int(evidence.seconds[-1] - evidence.seconds[0]) + 1
    slope = abs(course.drift_ms_per_min)
    sure = slope >= CLEAR_DRIFT * (course.drift_uncertainty or 0.0)
    return sure and span_s >= MIN_DRIFT_SPAN_S and slope <= MAX_DRIFT_MS_PER_MIN


def measure_spread(evidence: Evidence, fits: list[tuple[float, Course]]) -> float:
    """Half of what the best constants of the two halves of the evidence differ by, in frames.

    0 where no edit and no slope, among `fits` or refused before, comes near to the best constant.
    """
    constant = fit_constant(evidence)[0]
    rivals = [value for value, course in fits if course.kind != "constant"]
    if max([*rivals, _best_edit(evidence.logs)]) <= constant - COVERED_DROP:
        return 0.0
    halves = np.array_split(evidence.logs, 2)
    leads = [evidence.leads_frames[half.sum(axis=0).argmax()] for half in halves]
    return float(abs(leads[0] - leads[1])) / 2


def _best_edit(logs: Doubles) -> float:
    """The criterion of the best single step, whether or not a constant is better."""
    sums = np.cumsum(logs, axis=0)
    before = sums[MIN_LEVEL_S - 1 : len(sums) - MIN_LEVEL_S]
    both = before.max(axis=1) + (sums[-1] - before).max(axis=1)
    return float(both.max(initial=-np.inf)) - STEP_COST * float(np.log(len(logs)))


def _step_price(evidence: Evidence) -> float:
    return STEP_COST * float(np.log(len(evidence.seconds)))


def _value_levels(evidence: Evidence, firsts: list[int], levels: list[int]) -> float:
    """The criterion of a path of levels."""
    ends = [*firsts[1:], len(evidence.logs)]
    fit = sum(
        float(evidence.logs[first:end, level].sum())
        for first, end, level in zip(firsts, ends, levels, strict=True)
    )
    return fit - _step_price(evidence) * (len(levels) - 1)


def _make_steps(evidence: Evidence, firsts: list[int], levels: list[int]) -> tuple[float, Course]:
    """A path of levels as a course, with its criterion."""
    steps = [
        _locate(evidence, first, levels[i], levels[i + 1], begin=firsts[i], end=[*firsts, None][i + 2])
        for i, first in enumerate(firsts[1:])
    ]
    lead = float(evidence.leads_frames[levels[0]])
    course = Course("steps" if steps else "constant", lead, steps=tuple(steps))
    return _value_levels(evidence, firsts, levels), course


def _join_near(evidence: Evidence, firsts: list[int], levels: list[int]) -> tuple[list[int], list[int]]:
    """Levels without those that differ from a neighbour's by less than `MIN_STEP_FRAMES`, nearest first."""
    least = round(MIN_STEP_FRAMES * PLACES_PER_FRAME)
    while len(levels) > 1:
        apart = np.abs(np.diff(levels))
        nearest = int(apart.argmin())
        if apart[nearest] >= least:
            break
        end = [*firsts, None][nearest + 2]
        together = int(evidence.logs[firsts[nearest] : end].sum(axis=0).argmax())
        levels = [*levels[:nearest], together, *levels[nearest + 2 :]]
        firsts = [*firsts[: nearest + 1], *firsts[nearest + 2 :]]
    return firsts, levels


def _best_levels(logs: Doubles, price: float) -> tuple[list[int], list[int]]:
    """First bins and places of the levels whose likelihood, less `price` a step, is greatest: exact.

    A level holds at least `MIN_LEVEL_S` bins. best[b] is the value of the best path that ends before
    bin b, staying[g] that of the best one that is at place g now.
    """
    bins, places = logs.shape
    sums = np.vstack([np.zeros(places), np.cumsum(logs, axis=0)])  # [B + 1, G]
    best = np.full(bins + 1, -np.inf)
    best[0] = price  # the first level costs nothing
    entered = np.full(places, -np.inf)  # of each place: the best entry so far, its sums taken out
    entry = np.zeros(places, np.int64)
    origin: list[tuple[int, int]] = [(0, 0)] * (bins + 1)  # of each end: its level's first bin and place
    for end in range(min(MIN_LEVEL_S, bins), bins + 1):
        first = end - MIN_LEVEL_S if bins >= MIN_LEVEL_S else 0
        candidate = best[first] - price - sums[first]
        better = candidate > entered
        entered[better], entry[better] = candidate[better], first
        value = entered + sums[end]
        place = int(value.argmax())
        best[end], origin[end] = value[place], (int(entry[place]), place)
    firsts, levels, end = [], [], bins
    while end > 0:
        first, place = origin[end]
        firsts.append(first)
        levels.append(place)
        end = first
    return firsts[::-1], levels[::-1]


def _locate(evidence: Evidence, at: int, before: int, after: int, *, begin: int, end: int | None) -> Step:
    """A step at bin `at` from place `before` to place `after`, and how far it may lie elsewhere.

    Between the seconds with a voice on its two sides it may be anywhere.
    """
    gains = np.cumsum(evidence.logs[begin:end, before] - evidence.logs[begin:end, after])
    near = begin + 1 + np.flatnonzero(gains[:-1] >= gains[at - begin - 1] - COVERED_DROP)
    # From the middle of the last second before it to the middle of the first one after it.
    earliest_s, latest_s = evidence.seconds[near[0] - 1] + 0.5, evidence.seconds[near[-1]] + 0.5
    at_s = float(evidence.seconds[at - 1] + evidence.seconds[at] + 1) / 2
    uncertainty_s = float(max(at_s - earliest_s, latest_s - at_s))
    return Step(
        at_s, uncertainty_s, float(evidence.leads_frames[before]), float(evidence.leads_frames[after])
    )


def _fit_drift(evidence: Evidence) -> tuple[float, Course]:
    """The best straight line through the likelihoods, with the slopes that are about as likely."""
    times_s, logs = _gather(evidence)
    middle_s = float((times_s[0] + times_s[-1]) / 2)
    places = logs.shape[1]
    # One place more or less from end to end, up to the whole usual range.
    most = min(places, (CANDIDATES - 1) * PLACES_PER_FRAME)
    slopes = np.arange(-most, most + 1) / max(times_s[-1] - times_s[0], 1.0)  # places a second
    values, starts = np.zeros(len(slopes)), np.zeros(len(slopes), np.int64)
    outside = np.log(WRONG_SHARE / places) * len(evidence.seconds) / len(logs)
    padded = np.pad(logs, ((0, 0), (places, places)), constant_values=outside)
    rows = np.arange(len(logs))[:, None]
    for number, slope in enumerate(slopes):
        shifts = np.rint(slope * (times_s - middle_s)).astype(np.int64)
        total = padded[rows, places + np.arange(places) + shifts[:, None]].sum(axis=0)
        starts[number] = total.argmax()
        values[number] = total[starts[number]]
    best = int(values.argmax())
    likely = slopes[values >= values[best] - COVERED_DROP]
    to_ms_per_min = lead_ms(1.0) / PLACES_PER_FRAME * 60
    half_step = (slopes[1] - slopes[0]) / 2
    low, high = likely[0] - half_step, likely[-1] + half_step
    course = Course(
        "drift",
        float(evidence.leads_frames[starts[best]]),
        origin_s=middle_s,
        drift_ms_per_min=float(low + high) / 2 * to_ms_per_min,
        drift_uncertainty=float(high - low) / 2 * to_ms_per_min,
    )
    return float(values[best]) - DRIFT_COST / 2 * np.log(len(evidence.seconds)), course


def _gather(evidence: Evidence) -> tuple[Doubles, Doubles]:
    """Mid times [D] and likelihoods [D, G] of at most `_DRIFT_BINS` stretches of the evidence."""
    span = int(evidence.seconds[-1] - evidence.seconds[0]) + 1
    long_s = -(-span // _DRIFT_BINS)
    bins, place = np.unique(evidence.seconds // long_s, return_inverse=True)
    logs = np.zeros((len(bins), evidence.logs.shape[1]))
    np.add.at(logs, place, evidence.logs)
    return np.asarray((bins + 0.5) * long_s, np.float64), logs
