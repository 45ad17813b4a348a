"""How far each clip's sound is off: the corrections that training takes out of the corpus.

A student says the audio lead of every clip; clips of a group (a source; of television, the clips of one
sample rate) are taken to scatter around the group's own zero, and each estimate is drawn towards it as far
as its error asks (empirical Bayes). So a short clip with a doubtful peak gets its group's correction, and a
long one its own.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsync_cli.scan import average_curve, find_peak
from avsync_cli.spec import FRAME_MS, WINDOW_FRAMES
from training.corpus import CORRECTION_COLUMNS, Clip, Correction
from training.validate import Floats

MIN_GROUP_CLIPS = 8  # smaller groups are judged with their domain's other small ones
FAR_FRAMES = 2.5  # from the group's median: a wrong peak, unless the clip's parts agree on it
AGREE_FRAMES = 1.0  # parts of a clip this close to each other name the same peak
MIN_PART_WINDOWS = 50  # of a half whose word counts against its whole group
_PARTS = 2

Leads = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A clip's lead in frames, relative to its present correction; NaN where the student sees no peak.

    `parts` are the leads of its halves, which share no pictures; `windows` are those of one half.
    """

    clip: Clip
    lead_frames: float
    parts: tuple[float, ...]
    windows: int


def estimate_lead(clip: Clip, scores: Floats) -> Estimate:
    """From the scores [V, 31] of a clip as it was corrected before."""
    middle, apart = len(scores) // 2, WINDOW_FRAMES // 2
    halves = scores[: max(0, middle - apart)], scores[middle + apart :]
    return Estimate(clip, _lead(scores), tuple(_lead(half) for half in halves), len(halves[1]))


def correct_clips(estimates: Iterable[Estimate], rates: dict[str, str]) -> dict[str, Correction]:
    """A correction for every clip; `rates` are the files' sample rates, as the corpus lists them."""
    groups: dict[str, list[Estimate]] = defaultdict(list)
    for estimate in estimates:
        groups[_group(estimate.clip, rates)].append(estimate)
    small = [name for name, members in groups.items() if len(members) < MIN_GROUP_CLIPS]
    for name in small:
        members = groups.pop(name)
        groups[f"{members[0].clip.domain}: small sources"] += members
    found: dict[str, Correction] = {}
    for members in groups.values():
        found.update(_correct_group(members))
    return dict(sorted(found.items()))


def anchor(
    corrections: dict[str, Correction], domains: tuple[str, ...], before: dict[str, float]
) -> tuple[dict[str, Correction], float]:
    """Corrections moved so that on average over the given domains none moves by its median.

    `before` are the leads in frames that the clips had. Absolute zero so stays where the corpus put it, and a
    student that follows its own corrections cannot drift. Returns also by how many ms they were moved.
    """
    medians = [
        np.median(
            [
                c.advance_ms - before[f] * FRAME_MS
                for f, c in corrections.items()
                if f.startswith(f"{domain}/")
            ]
        )
        for domain in domains
    ]
    moved = float(np.mean(medians))
    return {f: replace(c, advance_ms=round(c.advance_ms - moved, 1)) for f, c in corrections.items()}, moved


def write_corrections(path: Path, corrections: dict[str, Correction]) -> None:
    """Write a table that `corpus.read_corrections` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CORRECTION_COLUMNS)
        for name, found in corrections.items():
            keep = "yes" if found.keep else "no"
            table.writerow([name, f"{found.advance_ms:.1f}", keep, f"{found.confidence:.2f}", found.reason])


def _group(clip: Clip, rates: dict[str, str]) -> str:
    return f"{clip.source} {rates[clip.file]}" if clip.domain == "broadcast" else clip.source


def _correct_group(members: list[Estimate]) -> dict[str, Correction]:
    leads = np.array([member.lead_frames for member in members])
    centre = float(np.nanmedian(leads)) if np.isfinite(leads).any() else 0.0
    usable = np.array([_agrees(member, centre) for member in members])
    near = usable & (np.abs(leads - centre) <= FAR_FRAMES)
    error = _part_error(members, near)  # of one window's share of a lead, in frames
    variances = np.array([error**2 / max(1, _PARTS * member.windows) for member in members])
    if near.any():
        centre = float(np.median(leads[near]))
    own = max(0.0, float(np.var(leads[near])) - float(variances[near].mean())) if near.sum() > 2 else 0.0
    return {
        member.clip.file: _correct_one(member, centre, own, variance, bool(good))
        for member, variance, good in zip(members, variances, usable, strict=True)
    }


def _correct_one(member: Estimate, centre: float, own: float, variance: float, usable: bool) -> Correction:
    """The group's lead, and as much of the clip's distance from it as is not its error."""
    far = usable and abs(member.lead_frames - centre) > FAR_FRAMES
    weight = 0.0 if not usable else 1.0 if far else own / max(own + variance, 1e-9)
    lead = centre + weight * ((member.lead_frames - centre) if usable else 0.0)
    reason = "its own" if far else "its own and its group's" if usable else "its group's"
    total = member.clip.lead_frames + lead
    return Correction(round(total * FRAME_MS, 1), keep=True, reason=reason, confidence=weight)


def _agrees(member: Estimate, centre: float) -> bool:
    """Whether a clip's peak can be believed: near its group's, or named by both of its long halves."""
    if not np.isfinite(member.lead_frames):
        return False
    if abs(member.lead_frames - centre) <= FAR_FRAMES:
        return True
    together = np.ptp((member.lead_frames, *member.parts)) <= AGREE_FRAMES
    return bool(together) and member.windows >= MIN_PART_WINDOWS


def _part_error(members: list[Estimate], near: NDArray[np.bool_]) -> float:
    """Standard error of a lead from one window, from how far the halves of clips lie apart.

    A median, so that the halves with a wrong peak do not count.
    """
    apart = [
        abs(member.parts[0] - member.parts[1]) * np.sqrt(member.windows / 2)
        for member, good in zip(members, near, strict=True)
        if good and np.isfinite(member.parts).all()
    ]
    return float(np.median(apart)) / 0.6745 if apart else float("inf")


def _lead(scores: Floats) -> float:
    """Audio lead in frames; NaN where there is no peak, or one at the edge."""
    peak = find_peak(average_curve(scores)) if len(scores) else None
    return float("nan") if peak is None or peak.at_edge else peak.lead_frames
