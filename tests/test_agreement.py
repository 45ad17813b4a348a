"""An audit beside an earlier table: what changed, and whether new students find the old corrections again."""

import numpy as np
import pytest
from scipy.stats import linregress
from test_audit import entry

from training.agreement import compare_audit, describe_agreement
from training.audit import Audit, Estimate
from training.corpus import Correction

CLIPS = 400


def audit_of(leads, *, before=0.0, anchored_ms=0.0):
    """An audit that takes each clip's own estimate as it is; `leads` in frames beyond `before`."""
    estimates = [
        Estimate(entry(f"wild/{n:04d}", lead=before), float(lead), 26, (), 0) for n, lead in enumerate(leads)
    ]
    corrections = {
        e.clip.file: Correction(0.0 if np.isnan(e.lead_frames) else 40 * (before + e.lead_frames), True, "")
        for e in estimates
    }
    return Audit(corrections, estimates, 0, anchored_ms)


def table(leads):
    return {f"wild/{n:04d}": Correction(40 * float(lead), True, "") for n, lead in enumerate(leads)}


def test_slope_is_one_where_old_corrections_hold_and_falls_with_what_was_chance_in_them():
    rng = np.random.default_rng(0)
    truth = 0.5 * rng.standard_normal(CLIPS)
    new = truth + 0.2 * rng.standard_normal(CLIPS)  # of students that never saw the clips
    (held,) = compare_audit(audit_of(new), table(truth))
    assert held.slope == pytest.approx(1, abs=3 * held.slope_error)
    learned = truth + 0.5 * rng.standard_normal(CLIPS)  # half of the variance is nothing but chance
    (half,) = compare_audit(audit_of(new), table(learned))
    assert half.slope == pytest.approx(0.5, abs=4 * half.slope_error)
    (none,) = compare_audit(audit_of(new), table(rng.standard_normal(CLIPS)))
    assert none.slope == pytest.approx(0, abs=4 * none.slope_error)


def test_slope_and_its_error_equal_scipys():
    rng = np.random.default_rng(1)
    old, new = rng.standard_normal((2, CLIPS)) * 0.3
    (found,) = compare_audit(audit_of(new), table(old))
    expected = linregress(old, new)
    assert (found.slope, found.slope_error) == pytest.approx((expected.slope, expected.stderr))


def test_estimates_count_as_they_were_anchored_and_from_what_the_cache_had_taken_out():
    rng = np.random.default_rng(2)
    truth = 0.5 * rng.standard_normal(CLIPS)
    (found,) = compare_audit(audit_of(truth - 1.0, before=1.0, anchored_ms=30.0), table(truth))
    assert found.slope == pytest.approx(1)
    assert found.deviation_ms == pytest.approx(0, abs=1e-9)


def test_changes_are_told_and_wrong_peaks_are_not_fitted():
    truth = np.linspace(-1, 1, 20)
    leads = truth + 0.25
    leads[3], leads[7] = np.nan, truth[7] + 12  # no peak, and a wrong one
    before = table(truth)
    del before["wild/0019"]
    (found,) = compare_audit(audit_of(leads), before)
    assert (found.group, found.clips) == ("wild, train", 19)
    assert found.median_ms == pytest.approx(10)
    assert found.largest_ms == pytest.approx(480)
    assert found.slope == pytest.approx(1)
    assert "| wild, train | 19 | +10.0 ms |" in describe_agreement([found])


def test_few_clips_or_clips_that_were_corrected_alike_have_no_slope():
    (few,) = compare_audit(audit_of([0.1] * 5), table(range(5)))
    (alike,) = compare_audit(audit_of(np.linspace(0, 1, 30)), table([0.5] * 30))
    assert few.slope is alike.slope is None
    assert describe_agreement([few]).endswith("| - |")
    assert compare_audit(audit_of([0.1] * 5), {}) == []
