"""An audit beside an earlier table: what changed, and whether new students find the old corrections again."""

import numpy as np
import pytest
from scipy.stats import linregress
from test_audit import RATE, entry

from training.data.corpus import Correction
from training.evaluation.audit import Audit, Estimate
from training.evaluation.audit_agreement import compare_audit, describe_agreement

CLIPS = 400


def names(count, source):
    return [f"wild/{source}{n:04d}" for n in range(count)]


def compare(leads, old, *, source="one", taken_out=0.0, unseen=None):
    """Of clips whose new estimates are `leads` and whose old corrections were `old`, all in frames."""
    files = names(len(leads), source)
    estimates = [
        Estimate(entry(file, source=source, lead=taken_out), float(lead - taken_out), 26, (), 0)
        for file, lead in zip(files, leads, strict=True)
    ]
    corrections = {
        file: Correction(0.0 if np.isnan(lead) else 40 * float(lead), True, "")
        for file, lead in zip(files, leads, strict=True)
    }
    found = Audit(corrections, estimates, frozenset(files if unseen is None else unseen), 0.0)
    before = {file: Correction(40 * float(lead), True, "") for file, lead in zip(files, old, strict=False)}
    return compare_audit(found, before, rates=dict.fromkeys(files, RATE))


def test_slope_is_one_where_old_corrections_hold_and_falls_with_what_was_chance_in_them():
    rng = np.random.default_rng(0)
    truth = 0.5 * rng.standard_normal(CLIPS)
    new = truth + 0.2 * rng.standard_normal(CLIPS)  # of students that never saw the clips
    (held,) = compare(new, truth)
    assert held.slope == pytest.approx(1, abs=3 * held.slope_error)
    (half,) = compare(new, truth + 0.5 * rng.standard_normal(CLIPS))  # half of the variance is chance
    assert half.slope == pytest.approx(0.5, abs=4 * half.slope_error)
    (none,) = compare(new, rng.standard_normal(CLIPS))
    assert none.slope == pytest.approx(0, abs=4 * none.slope_error)


def test_students_that_guess_bear_nothing_out():
    """However they are chosen: peaks that are anywhere must not look like corrections found again."""
    rng = np.random.default_rng(1)
    (found,) = compare(rng.uniform(-15, 15, 4 * CLIPS), rng.standard_normal(4 * CLIPS))
    assert found.fitted < CLIPS
    assert found.slope == pytest.approx(0, abs=4 * found.slope_error)
    assert found.slope_error < 0.2


def test_slope_and_its_error_equal_scipys():
    rng = np.random.default_rng(2)
    old, new = rng.standard_normal((2, CLIPS)) * 0.3
    (found,) = compare(new, old)
    expected = linregress(old, new)
    assert (found.slope, found.slope_error) == pytest.approx((expected.slope, expected.stderr))


def test_estimates_count_from_what_the_cache_had_taken_out():
    truth = 0.5 * np.random.default_rng(3).standard_normal(CLIPS)
    (found,) = compare(truth, truth, taken_out=1.0)
    assert found.slope == pytest.approx(1)
    assert found.deviation_ms == pytest.approx(0, abs=1e-9)


def test_what_a_group_shares_says_nothing_of_its_clips():
    """Two sources a frame apart, which both tables know; what single clips have beyond that is chance."""
    rng = np.random.default_rng(4)
    shared = np.repeat([0.0, 1.0], CLIPS)
    noise = 0.2 * rng.standard_normal((2, 2 * CLIPS))
    files = names(CLIPS, "a") + names(CLIPS, "b")
    estimates = [
        Estimate(entry(file, source=file[5]), float(lead), 26, (), 0)
        for file, lead in zip(files, shared + noise[0], strict=True)
    ]
    old = {f: Correction(40 * float(v), True, "") for f, v in zip(files, shared + noise[1], strict=True)}
    found = Audit(old, estimates, frozenset(files), 0.0)
    (agreement,) = compare_audit(found, old, rates=dict.fromkeys(files, RATE))
    assert agreement.slope == pytest.approx(0, abs=4 * agreement.slope_error)


def test_a_clip_alone_in_its_group_says_nothing_and_groups_cost_their_means():
    rng = np.random.default_rng(6)
    files = names(60, "x")
    own, old = rng.standard_normal((2, 60)) * 0.3
    source = {file: f"alone{n}" if n < 20 else f"pair{n // 2}" for n, file in enumerate(files)}
    leads = dict(zip(files, own, strict=True))
    estimates = [Estimate(entry(f, source=source[f]), float(leads[f]), 26, (), 0) for f in files]
    before = {f: Correction(40 * float(v), True, "") for f, v in zip(files, old, strict=True)}
    found = Audit(before, estimates, frozenset(files), 0.0)
    (agreement,) = compare_audit(found, before, rates=dict.fromkeys(files, RATE))
    assert agreement.fitted == 40
    # Of a pair only the difference is left: 20 numbers through the origin.
    x, y = np.diff(old[20:].reshape(-1, 2)).ravel(), np.diff(own[20:].reshape(-1, 2)).ravel()
    slope = x @ y / (x @ x)
    assert agreement.slope == pytest.approx(slope)
    assert agreement.slope_error == pytest.approx(np.sqrt(((y - slope * x) ** 2).sum() / 19 / (x @ x)))


def test_only_clips_that_were_judged_unseen_are_fitted():
    rng = np.random.default_rng(5)
    truth = 0.5 * rng.standard_normal(CLIPS)
    leads = np.where(np.arange(CLIPS) < 100, truth, rng.standard_normal(CLIPS))
    (found,) = compare(leads, truth, unseen=names(100, "one"))
    assert (found.clips, found.fitted) == (CLIPS, 100)
    assert found.slope == pytest.approx(1)


def test_changes_are_told_and_wrong_peaks_are_not_fitted():
    truth = np.linspace(-1, 1, 20)
    leads = truth + 0.25
    leads[3], leads[7] = np.nan, truth[7] + 12  # no peak, and a wrong one
    (found,) = compare(leads, truth[:19])
    assert (found.group, found.clips, found.fitted) == ("wild, train", 19, 17)
    assert found.median_ms == pytest.approx(10)
    assert found.largest_ms == pytest.approx(480)
    assert found.slope == pytest.approx(1)
    assert "| wild, train | 19 | +10.0 ms |" in describe_agreement([found])


def test_few_clips_or_clips_that_were_corrected_alike_have_no_slope():
    (few,) = compare([0.1] * 5, range(5))
    (alike,) = compare(np.linspace(0, 1, 30), [0.5] * 30)
    assert few.slope is alike.slope is None
    assert describe_agreement([few]).endswith("| - |")
    assert compare([0.1] * 5, []) == []
