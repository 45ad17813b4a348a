"""Where a long file is looked at, on programmes whose offset is known at every moment."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scored import CALIBRATION, make_scores

from avsync_cli.course import Course
from avsync_cli.doubts import Doubts, doubt_report, find_contrary_points, find_doubts, measure_coverage
from avsync_cli.findings import Findings, add_timeline, judge_looks
from avsync_cli.fit import Fit, measure_fit
from avsync_cli.ranges import choose_range
from avsync_cli.rates import STEEP, find_steep_rate
from avsync_cli.report import Report
from avsync_cli.scoring import FacePiece, Look
from avsync_cli.spec import PASSAGE_TICKS, TOLERANCES
from avsync_cli.survey import START_TICKS, find_contrary_looks, least_looks, take_looks

HOUR = 90_000  # ticks
HALF = (HOUR - PASSAGE_TICKS) // 2  # where the first look is
LIMITS = TOLERANCES["itu-detect"]
IN_SYNC = Report("a", "in_sync", "in sync", (-125, 45), audio_lead_ms=0.0, course="constant")


class Talk:
    """One who talks for an hour; `lead_at` gives the lead in frames at a tick, None where nothing fits."""

    def __init__(self, lead_at, *, silent=lambda _: False, quiet=lambda _: False, fit_at=lambda _: 0.6):
        self.lead_at, self.silent, self.quiet, self.fit_at = lead_at, silent, quiet, fit_at
        self.motion_at = lambda _: 0.2
        self.asked = []

    def look(self, tick: int) -> Look:
        lead = None if self.silent(tick) else self.lead_at(tick)
        _, scores = make_scores(
            PASSAGE_TICKS / 25,
            lambda _: lead or 0.0,
            seed=tick,
            fit=0.0 if lead is None else self.fit_at(tick),
        )
        scores = scores[: PASSAGE_TICKS - 4]
        opening = self.motion_at(tick) * np.random.default_rng(tick).standard_normal(PASSAGE_TICKS).astype(
            np.float32
        )
        below_db = 110 if self.silent(tick) else 70 if self.quiet(tick) else 40
        loud_db = 20 * np.abs(np.sin(np.arange(PASSAGE_TICKS))) - below_db
        boxes = np.tile(np.array([0, 0, 80, 90], np.float32), (PASSAGE_TICKS, 1))
        piece = FacePiece(0, tick, scores, boxes, opening.astype(np.float32), loud_db.astype(np.float32))
        return Look(tick, tick + PASSAGE_TICKS, (piece,))

    def spread(self, count: int = 40) -> Iterator[tuple[Look, bool]]:
        for number in range(count):
            yield self.look(int((0.5 + number * 0.618) % 1 * (HOUR - PASSAGE_TICKS))), True

    def look_between(self, first_tick: int, end_tick: int) -> Look | None:
        self.asked.append((first_tick, end_tick))
        tick = (first_tick + end_tick - PASSAGE_TICKS) // 2
        return None if tick < first_tick else self.look(tick)

    def take(self) -> list[Look]:
        return take_looks(self.spread(), self.look_between, 0, HOUR, CALIBRATION)


def judge(looks):
    return add_timeline(judge_looks(looks, CALIBRATION), CALIBRATION)


def test_the_number_of_looks_grows_with_the_length():
    assert [least_looks(minutes * 1500) for minutes in (1, 10, 60, 180)] == [3, 7, 18, 31]


def test_an_hour_in_sync_has_as_many_looks_as_it_needs_and_no_more():
    talk = Talk(lambda _: 0.0)
    looks = talk.take()
    assert len(looks) == least_looks(HOUR)
    assert talk.asked == []
    starts = np.sort([look.first_tick for look in looks])
    assert np.diff([0, *starts, HOUR]).max() < 0.15 * HOUR


def test_silent_looks_do_not_count():
    looks = Talk(lambda _: 0.0, silent=lambda tick: tick % 3 == 0).take()
    assert len(looks) > least_looks(HOUR)


class FastTalk(Talk):
    """One whose sound runs at a rate of `lead_at` frames a tick: after a minute nothing fits."""

    def look(self, tick: int) -> Look:
        per_tick = self.lead_at(tick)
        fits = abs(tick * per_tick) < 55
        _, scores = make_scores(
            PASSAGE_TICKS / 25,
            lambda times_s: (tick + 25 * times_s) * per_tick if fits else 0.0,
            seed=tick,
            fit=0.6 if fits else 0.0,
            range_frames=100,
        )
        scores = scores[: PASSAGE_TICKS - 4]
        look = super().look(tick)
        piece = replace(look.pieces[0], scores=scores[:, 85:116], far_scores=scores.astype(np.float16))
        return replace(look, pieces=(piece,))


@pytest.mark.parametrize("rate", STEEP[:1], ids=str)
def test_an_hour_at_another_rate_is_looked_at_from_its_beginning_and_named(rate):
    talk = FastTalk(lambda _: rate.ms_per_min / 40 / 60 / 25)
    looks = choose_range(talk.take(), CALIBRATION)
    assert sum(look.first_tick < START_TICKS for look in looks) >= 4
    found = find_steep_rate(looks, CALIBRATION)
    assert found.timeline.course.drift_ms_per_min == pytest.approx(rate.ms_per_min, abs=1)
    assert found.timeline.course.lead_frames == pytest.approx(0, abs=1)


def test_the_beginning_is_not_looked_at_where_there_is_an_answer():
    talk = Talk(lambda _: 4.0)
    talk.take()
    assert not any(end <= START_TICKS for _, end in talk.asked)


@pytest.mark.parametrize("first", [20_000, 41_300, 72_000])
def test_a_stretch_of_a_fifth_is_found_with_both_its_edges(first):
    end = first + HOUR // 5
    looks = Talk(lambda tick: -5.0 if first <= tick < end else 0.0).take()
    course = judge(looks).timeline.course
    edges_s = [at / 25 for at in (first, end) if at < HOUR]
    assert [step.at_s for step in course.steps] == pytest.approx(edges_s, abs=15)
    assert [step.uncertainty_s < 20 for step in course.steps] == [True] * len(edges_s)
    assert course.leads_at(np.array([(first + 500) / 25])) == pytest.approx(-5.0, abs=0.5)


def test_one_contrary_look_leads_to_more_beside_it():
    """A late minute that one look happens to lie in."""
    talk = Talk(lambda tick: -5.0 if abs(tick - HALF) < 1500 else 0.0)
    looks = talk.take()
    assert any(HALF < first < HALF + 1500 or HALF - 1500 < end < HALF for first, end in talk.asked)
    assert len(judge(looks).timeline.course.steps) == 2


def test_against_a_sure_passage_of_its_own_no_file_is_in_sync():
    """Two seconds, too short for a step, that nothing beside them bears out or overrules."""
    looks = Talk(lambda tick: 7.0 if tick == HALF else 0.0).take()
    found = judge(looks)
    assert found.timeline.course.kind == "constant"
    doubts = find_doubts(looks, found, CALIBRATION)
    (contrary,) = doubts.contrary
    assert contrary.at_s == pytest.approx((HALF + 30) / 25, abs=0.1)
    assert contrary.lead_frames == pytest.approx(7.0, abs=0.5)
    doubted = doubt_report(IN_SYNC, doubts, LIMITS)
    assert (doubted.status, doubted.reason) == ("undetermined", "inconsistent")
    assert doubted.audio_lead_ms is None
    assert f"but at {contrary.at_s:.0f} s audio leads video by 28" in doubted.message
    late = replace(IN_SYNC, status="out_of_sync", audio_lead_ms=-200.0)
    assert not doubt_report(late, doubts, LIMITS).agreed


def test_a_chance_peak_is_overruled_by_the_looks_beside_it():
    weak = Talk(lambda tick: 7.0 if tick == HALF else 0.0, fit_at=lambda tick: 0.25 if tick == HALF else 0.6)
    looks = weak.take()
    found = judge(looks)
    assert weak.asked, "they were asked"
    assert found.timeline.course.kind == "constant"
    assert find_contrary_looks(looks, found, CALIBRATION) == []


@pytest.mark.parametrize(("share", "doubted"), [(0.0, False), (0.5, True)])
def test_what_fits_nothing_is_counted_and_a_sampled_file_with_much_of_it_is_not_in_sync(share, doubted):
    foreign = np.random.default_rng(0).random(20) < share
    talk = Talk(lambda tick: None if foreign[tick // 4000] else 0.0)
    looks = [talk.look(number * 4000) for number in range(20)]
    doubts = find_doubts(looks, judge(looks), CALIBRATION)
    assert doubts.fit.heard_s == pytest.approx(20 * 56 / 25)
    assert (doubts.fit.unfitted_s > 0.3 * share * doubts.fit.heard_s) == (share > 0)
    assert doubts.forbid_in_sync == doubted
    assert (doubt_report(IN_SYNC, doubts, LIMITS).status == "in_sync") == (not doubted)


def test_a_stretch_with_another_voice_is_looked_at_again_and_is_not_in_sync():
    """Six minutes of an hour are dubbed."""
    first = HALF - 4000
    talk = Talk(lambda tick: None if first <= tick < first + 9000 else 0.0)
    looks = talk.take()
    assert any(first <= asked[0] < first + 9000 for asked in talk.asked)
    doubts = find_doubts(looks, judge(looks), CALIBRATION)
    assert doubts.strangers
    assert all(first <= look.first_tick < first + 9000 for look in doubts.strangers)
    doubted = doubt_report(IN_SYNC, doubts, LIMITS)
    assert (doubted.status, doubted.reason) == ("undetermined", "inconsistent")
    assert f"as at {doubts.strangers[0].first_tick / 25:.0f} s" in doubted.message


def test_a_look_that_fits_nothing_is_overruled_by_those_beside_it():
    place = int((0.5 + 4 * 0.618) % 1 * (HOUR - PASSAGE_TICKS))  # where chance does not make it fit
    talk = Talk(lambda tick: None if tick == place else 0.0)
    looks = talk.take()
    assert talk.asked, "they were asked"
    doubts = find_doubts(looks, judge(looks), CALIBRATION)
    assert not doubts.strangers
    assert doubt_report(IN_SYNC, doubts, LIMITS).status == "in_sync"


@pytest.mark.parametrize("minutes", [1, 3, 5])
def test_in_a_short_file_too_one_passage_may_fit_nothing_by_chance(minutes):
    end = 1500 * minutes
    talk = Talk(lambda _: 0.0)
    looks = [talk.look(k * end // 6) for k in range(6)]
    odd = Talk(lambda _: None)
    looks[2] = odd.look(2 * end // 6 + 11)
    doubts = find_doubts(looks, judge(looks), CALIBRATION)
    assert not doubts.contrary
    assert doubt_report(IN_SYNC, doubts, LIMITS).status == "in_sync"


def test_what_forbids_in_sync_does_so_however_little_it_is():
    look = Look(0, 60, ())
    for doubts in (Doubts(Fit(40, 1.8), (), (look,), 18), Doubts(Fit(3.5, 1.9), ())):
        assert doubts.forbid_in_sync
        assert doubt_report(IN_SYNC, doubts, LIMITS).reason == "inconsistent"


@pytest.mark.parametrize(("foreign", "in_one"), [((0, 4, 8), False), ((0, 1, 2), True)])
def test_the_longest_stretch_that_fits_nothing_is_one_without_breaks(foreign, in_one):
    """Of ten scenes of 6 s in one look, three have another voice."""
    pieces = []
    for number in range(10):
        scores = make_scores(6, lambda _: 0.0, seed=number, fit=0.0 if number in foreign else 0.6)[1][:146]
        levels_db = (20 * np.abs(np.sin(np.arange(150))) - 40).astype(np.float32)
        opening = 0.2 * np.random.default_rng(number).standard_normal(150).astype(np.float32)
        boxes = np.tile(np.array([0, 0, 80, 90], np.float32), (150, 1))
        pieces.append(FacePiece(number, 150 * number, scores, boxes, opening, levels_db))
    fit = measure_fit(judge([Look(0, 1500, tuple(pieces))]))
    assert fit.unfitted_s >= 2 * 146 / 25  # one of the three may fit by chance
    assert (fit.longest_s > 146 / 25) == in_one


def test_a_pause_is_not_taken_for_a_stranger():
    """A voice 30 dB below that of the rest is noise or somebody far away: it proves nothing."""
    looks = [
        Talk(lambda tick: None if tick % 8000 else 0.0, quiet=lambda tick: tick % 8000 > 0).look(k * 4000)
        for k in range(20)
    ]
    fit = measure_fit(judge(looks))
    assert fit.heard_s == pytest.approx(10 * 56 / 25)
    assert fit.unfitted_s == 0


def test_who_only_smiles_while_another_speaks_is_not_taken_for_a_stranger():
    talk = Talk(lambda tick: None if tick % 16_000 == 4000 else 0.0)
    fits = {}
    for motion in (0.2, 0.08):
        talk.motion_at = lambda tick, motion=motion: motion if tick % 16_000 == 4000 else 0.2
        fits[motion] = measure_fit(judge([talk.look(k * 4000) for k in range(16)]))
    assert fits[0.2].unfitted_s > 0.15 * fits[0.2].heard_s
    assert fits[0.08].unfitted_s == 0
    assert fits[0.08].heard_s == pytest.approx(12 * 56 / 25)


def test_a_third_that_fits_nothing_is_told_and_offers_no_mend():
    report = Report("a", "out_of_sync", "late", (-125, 45), audio_lead_ms=-200.0, course="constant")
    looks = [Talk(lambda tick: None if tick % 8000 else -5.0).look(k * 4000) for k in range(20)]
    doubted = doubt_report(report, find_doubts(looks, judge(looks), CALIBRATION), LIMITS)
    assert not doubted.agreed
    assert doubted.status == "out_of_sync"
    assert "nothing fits" in doubted.message


def test_of_one_look_a_third_and_twelve_seconds_in_one_stretch_are_the_most():
    for fit, forbidden in ((Fit(30, 9, 9), False), (Fit(30, 11, 9), True), (Fit(600, 13, 13), True)):
        assert Doubts(fit, ()).forbid_in_sync == forbidden
        assert Doubts(fit, ()).forbid_a_mend == (fit.unfitted_s > 0.1 * fit.heard_s)


@pytest.mark.parametrize(("lead", "contrary"), [(0.0, 0), (1.0, 0), (6.0, 1)])
def test_a_moment_of_the_timeline_that_is_sure_of_another_offset_is_contrary(lead, contrary):
    """Those beside it are music."""

    def find(music: float) -> Findings:
        parts = [
            make_scores(10, lambda _, lead=each: lead, seed=seed, fit=fit)[1]
            for seed, (each, fit) in enumerate([(0, 0.6), (0, music), (lead, 0.6), (0, music), (0, 0.6)])
        ]
        scores = np.concatenate(parts)
        ticks = np.arange(len(scores) + 4)
        boxes = np.tile(np.array([0, 0, 80, 90], np.float32), (len(ticks), 1))
        levels_db = (20 * np.abs(np.sin(ticks)) - 40).astype(np.float32)
        piece = FacePiece(0, 0, scores, boxes, np.sin(ticks).astype(np.float32), levels_db)
        findings = judge([Look(0, len(ticks), (piece,))])
        constant = Course("constant", 0.0)  # whatever the file was found to be
        return replace(findings, timeline=replace(findings.timeline, course=constant))

    found = find_contrary_points(find(0.0))
    assert [each.at_s for each in found] == pytest.approx([25] * contrary, abs=0.2)
    assert [each.lead_frames for each in found] == pytest.approx([lead] * contrary, abs=0.4)
    assert find_contrary_points(find(0.6)) == []  # those beside it speak and are sure of the course


def test_coverage_is_what_lies_within_half_a_minute_of_a_look():
    look = Talk(lambda _: 0.0).look
    assert measure_coverage([look(2500), look(2600), look(50_000)], 0, 3600) == pytest.approx(
        (60 + 6.4 + 62.4) / 3600, abs=1e-3
    )
    assert measure_coverage([look(0)], 0, 3600) == pytest.approx(32.4 / 3600)
    assert measure_coverage([Look(0, 60, ())], 0, 3600) == 0
