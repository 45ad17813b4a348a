"""Footage that came without a table: what was assumed of it, and what the bundled student makes of its
offsets."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avsync_cli.contract import DEFAULT_STUDENT
from avsync_cli.spec import FRAME_MS, SAME_OFFSET_FRAMES
from training.data.cache import CachedClip
from training.data.clips import load_clip
from training.data.footage import speaker_of
from training.evaluation.audit import Auditor, audit, write_corrections
from training.evaluation.candidates import open_judged

CORRECTIONS = "corrections.csv"  # in the cache's folder
_MAX_FRAMES = 250
_ASSUMED_RATE_HZ = 48_000


def describe_assumed(entries: Sequence[CachedClip]) -> str:
    """What is taken for granted of clips without a table."""
    by_split: dict[str, set[str]] = {}
    for entry in entries:
        by_split.setdefault(entry.split, set()).add(speaker_of(entry.file))
    shares = ", ".join(f"{len(speakers)} to {split}" for split, speakers in sorted(by_split.items()))
    text = (
        f"no manifest.csv: {len(entries)} videos, taken to be real, in sync, and of one speaker a folder "
        f"({shares}, by a hash of the folder's name; --val-share sets how many)"
    )
    lacking = [split for split in ("train", "val") if split not in by_split]
    return text + "".join(f"; there is no {split} clip, and training needs some" for split in lacking)


def audit_footage(cache: Path, entries: Sequence[CachedClip]) -> str:
    """Estimate the offsets of prepared clips by the bundled student, into a table beside them; returns a
    summary."""
    usable = [entry for entry in entries if entry.reason is None]
    if not usable:
        return "no clip to audit"
    judged = open_judged(DEFAULT_STUDENT, network=None, threads=os.cpu_count() or 1)
    rates = {entry.file: _ASSUMED_RATE_HZ for entry in usable}
    clips = (load_clip(cache, entry) for entry in usable)
    auditors = [Auditor(judged.encoders)]
    # Whatever its folders are called, none of them is known to be in sync.
    found = audit(clips, auditors, rates=rates, max_frames=_MAX_FRAMES, anchors=())
    path = cache / CORRECTIONS
    write_corrections(path, found.corrections)
    leads = np.array([estimate.lead_frames * FRAME_MS for estimate in found.estimates])
    heard = leads[np.isfinite(leads)]
    off = int((np.abs(heard) > SAME_OFFSET_FRAMES * FRAME_MS).sum())
    middle = f", in the middle {np.median(heard):+.0f} ms" if len(heard) else ""
    unfit = sum(not correction.keep for correction in found.corrections.values())
    return (
        f"audit by the bundled student: {len(heard)} of {len(usable)} clips have an offset to measure"
        f"{middle}; {off} are more than a frame off, {unfit} better left out. To take this out, prepare "
        f"again with --corrections {path}"
    )
