"""The audit of clips whose offsets are known: what it believes, what it leaves to the group, what zero is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_cache import make_cache

from avsync_cli.offsets import LEADS_FRAMES
from training.data.cache import CachedClip
from training.data.clips import load_clips
from training.data.corpus import Correction, read_corrections
from training.evaluation.audit import Auditor, anchor, audit, correct_clips, estimate_lead, write_corrections
from training.evaluation.score_clips import Encoders

RATE = 48_000


def entry(file, *, source="one", lead=0.0):
    return CachedClip(file, "train", source, file.split("/")[0], False, lead, 30)


def parabolas(lead, windows, *, noise, rng):
    """Scores [V, 31] of windows that are each mistaken in their own way."""
    leads = lead + noise * rng.standard_normal((windows, 1))
    return (-((LEADS_FRAMES - leads) ** 2)).astype(np.float32)


def corrected(leads, lengths, *, noise=2.0, seed=0, domain="wild", before=0.0):
    rng = np.random.default_rng(seed)
    estimates = [
        estimate_lead(entry(f"{domain}/{n:04d}", lead=before), parabolas(lead, length, noise=noise, rng=rng))
        for n, (lead, length) in enumerate(zip(leads, lengths, strict=True))
    ]
    found = correct_clips(estimates, {e.clip.file: RATE for e in estimates})
    raw = np.array([e.lead_frames for e in estimates])
    return raw + before, np.array([c.advance_ms / 40 for c in found.values()]), list(found.values())


@settings(derandomize=True, max_examples=15)
@given(st.floats(0.05, 0.5), st.floats(-1.5, 1.5), st.integers(0, 99))
def test_corrections_are_nearer_to_the_truth_than_estimates_and_than_the_group(own, centre, seed):
    rng = np.random.default_rng(seed)
    leads = centre + own * rng.standard_normal(400)
    raw, found, _ = corrected(leads, [26] * 400, seed=seed)

    def miss(values):
        return np.sqrt(np.mean((values - leads) ** 2))

    assert miss(found) < miss(raw) + 0.01
    assert miss(found) < miss(np.full(400, np.median(raw))) + 0.06


def test_long_clips_are_believed_more_than_short_ones():
    rng = np.random.default_rng(1)
    leads = 0.4 * rng.standard_normal(120)
    _, found, corrections = corrected(leads, [14] * 60 + [400] * 60)
    weights = [c.confidence for c in corrections]
    assert max(weights[:60]) < min(weights[60:])
    assert np.abs(found[60:] - leads[60:]).mean() < 0.12


def test_what_was_corrected_before_is_kept():
    _, found, _ = corrected([0.0] * 20, [200] * 20, noise=0.5, before=2.5)
    assert found == pytest.approx([2.5] * 20, abs=0.1)


def test_a_clip_far_from_its_group_needs_parts_that_agree():
    far = [0.0] * 20 + [6.0, 6.0]
    _, found, corrections = corrected(far, [200] * 20 + [200, 26], noise=0.5)
    assert found[20] == pytest.approx(6.0, abs=0.1)
    assert (corrections[20].reason, corrections[20].confidence) == ("its own", 1.0)
    assert found[21] == pytest.approx(0.0, abs=0.1)
    assert corrections[21].reason == "its group's"


def test_a_clip_without_a_peak_gets_its_groups_correction():
    rng = np.random.default_rng(0)
    estimates = [estimate_lead(entry(f"wild/{n}"), parabolas(1.0, 100, noise=0.5, rng=rng)) for n in range(9)]
    estimates.append(estimate_lead(entry("wild/mute"), np.full((100, 31), np.nan, np.float32)))
    estimates.append(estimate_lead(entry("wild/music"), np.full((120, 31), np.nan, np.float32)))
    found = correct_clips(estimates, {e.clip.file: RATE for e in estimates})
    assert found["wild/mute"].advance_ms == pytest.approx(40, abs=4)
    assert found["wild/mute"].keep
    assert not found["wild/music"].keep  # long enough to tell
    assert sum(c.keep for c in found.values()) == 10


def test_television_of_each_sample_rate_has_its_own_zero():
    rng = np.random.default_rng(0)
    rates = {f"broadcast/{n:02d}": (44_100, 48_000)[n % 2] for n in range(40)}
    estimates = [
        estimate_lead(entry(file), parabolas(rate == 48_000, 26, noise=3.0, rng=rng))
        for file, rate in rates.items()
    ]
    found = correct_clips(estimates, rates)
    for rate, zero in ((44_100, 0), (48_000, 40)):
        leads = [c.advance_ms for file, c in found.items() if rates[file] == rate]
        assert np.mean(leads) == pytest.approx(zero, abs=12)


def test_zero_stays_where_the_anchors_put_it():
    before = {"lab/a": 1.0, "broadcast/a": 0.0, "wild/a": 0.0}
    moved = {
        file: Correction(40 * lead + change, keep=True, reason="")
        for (file, lead), change in zip(before.items(), (10.0, 30.0, 70.0), strict=True)
    }
    found, by_ms = anchor(moved, before)
    assert by_ms == 20
    assert [c.advance_ms for c in found.values()] == [30, 10, 50]
    assert anchor(moved, before, ()) == (moved, 0.0)


def test_two_clips_are_not_drawn_together():
    _, found, _ = corrected([0.0, 4.0], [200, 200], noise=0.5)
    assert found == pytest.approx([0.0, 4.0], abs=0.3)


def loudness_encoders():
    """How open the mouth is and how loud the sound: the made clips' one is the other."""

    def encode_video(crops, _, windows):
        opening = np.log((crops[:, :, 48] < 100).sum(axis=1))
        return alike(np.stack([opening[n : n + 5] for n in range(windows)]))

    def encode_audio(mel, ticks):
        steps = mel.starts(ticks)[:, None] + 1 + np.round(3.2 * np.arange(5)).astype(int)
        return alike(mel.mel.astype(np.float32).mean(axis=1)[steps])

    return Encoders(encode_video, encode_audio, lambda v, a: (v * a).sum(axis=1))


def alike(rows):
    return (rows - rows.mean(axis=1, keepdims=True)).astype(np.float32)


def no_encoders():
    """Of a student that sees nothing."""
    seeing = loudness_encoders()
    return replace(seeing, score=lambda v, a: 0 * seeing.score(v, a))


def test_audit_of_a_cache_writes_a_table_that_prepare_reads(tmp_path):
    clips = load_clips(make_cache(tmp_path / "cache", clips=9, frames=200), split="train")
    made = [replace(c, entry=replace(c.entry, lead_frames=1.0)) for c in clips]
    rates = {clip.entry.file: RATE for clip in made}
    auditors = [Auditor(no_encoders()), Auditor(loudness_encoders(), frozenset({"made"}))]
    found = audit(made, auditors, rates=rates, max_frames=150)
    assert found.unseen == rates.keys()
    write_corrections(tmp_path / "corrections.csv", found.corrections)
    read = read_corrections(tmp_path / "corrections.csv")
    assert read.keys() == rates.keys()
    assert [c.advance_ms for c in read.values()] == pytest.approx([40.0] * len(made), abs=15)
    assert all(c.keep for c in read.values())
