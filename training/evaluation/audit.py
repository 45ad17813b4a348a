"""How far each clip's sound is off: the corrections that training takes out of the corpus.

A student says the audio lead of every clip; clips of a group (a source; of television, the clips of one
sample rate) are taken to scatter around the group's own zero, and each estimate is drawn towards it as far
as its error asks (empirical Bayes). So a short clip with a doubtful peak gets its group's correction, and a
long one its own.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsync_cli.offsets import average_curve, find_peak
from avsync_cli.spec import FRAME_MS, WINDOW_FRAMES
from training.data.cache import CachedClip
from training.data.clips import LoadedClip
from training.data.corpus import CORRECTION_COLUMNS, Correction
from training.evaluation.score_clips import Encoders, Floats, score_clip
from training.whole_file import whole_file

MIN_GROUP_CLIPS = 8  # smaller groups are judged with their domain's other small ones
FAR_FRAMES = 2.5  # from the group's median: a wrong peak, unless the clip's parts agree on it
AGREE_FRAMES = 1.0  # parts of a clip this close to each other name the same peak
MIN_PART_WINDOWS = 50  # of a half whose word counts against its whole group
NO_OFFSET = "no offset that its halves agree on: another's voice, music, or a still mouth"
ANCHORS = ("lab", "broadcast")  # their recording is the most careful
_PARTS = 2  # that a clip is judged in
_MIN_TO_SCATTER = 3  # clips that tell how far their group scatters
_FEW_SCATTER = 1.0  # frames: how far two clips, which do not tell it, are taken to

Leads = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A clip's lead in frames, relative to its present correction; NaN where the student sees no peak.

    `windows` is how many it has; `parts` are the leads of its halves, which share no pictures, and so have
    `part_windows` each.
    """

    clip: CachedClip
    lead_frames: float
    windows: int
    parts: tuple[float, ...]
    part_windows: int


@dataclass(frozen=True)
class Auditor:
    """A student, and the sources that it was not trained on."""

    encoders: Encoders
    unseen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Audit:
    """`corrections` of every clip; the `estimates` they come from; the files that were judged by students
    which had not trained on their source; and how many ms were taken from all to keep the corpus's zero."""

    corrections: dict[str, Correction]
    estimates: list[Estimate]
    unseen: frozenset[str]
    anchored_ms: float


def audit(
    clips: Iterable[LoadedClip],
    auditors: list[Auditor],
    *,
    rates: dict[str, int],
    max_frames: int,
    anchors: Sequence[str] = ANCHORS,
) -> Audit:
    """Judge every train clip by auditors that did not train on its source, where there are any, and every
    validation clip by all.

    `rates` are the files' sample rates in Hz. The first `max_frames` frames of a clip count. `anchors` are
    the domains that define zero.
    """
    estimates, unseen = [], set()
    for clip in clips:
        fair = [a for a in auditors if clip.entry.split == "val" or clip.entry.source in a.unseen]
        if fair:
            unseen.add(clip.entry.file)
        scores = [score_clip(clip, a.encoders, max_frames=max_frames) for a in fair or auditors]
        estimates.append(estimate_lead(clip.entry, np.mean(scores, axis=0)))
    before = {estimate.clip.file: estimate.clip.lead_frames for estimate in estimates}
    corrections, moved = anchor(correct_clips(estimates, rates), before, anchors)
    return Audit(corrections, estimates, frozenset(unseen), moved)


def estimate_lead(clip: CachedClip, scores: Floats) -> Estimate:
    """From the scores [V, 31] of a clip as it was corrected before."""
    middle, apart = len(scores) // 2, WINDOW_FRAMES // 2
    halves = scores[: max(0, middle - apart)], scores[middle + apart :]
    parts = tuple(_lead(half) for half in halves)
    return Estimate(clip, _lead(scores), len(scores), parts, len(halves[0]))


def correct_clips(estimates: Iterable[Estimate], rates: dict[str, int]) -> dict[str, Correction]:
    """A correction for every clip; `rates` are the files' sample rates, as the corpus lists them."""
    groups: dict[str, list[Estimate]] = defaultdict(list)
    for estimate in estimates:
        groups[zero_group_of(estimate.clip, rates)].append(estimate)
    small = [name for name, members in groups.items() if len(members) < MIN_GROUP_CLIPS]
    for name in small:
        members = groups.pop(name)
        groups[f"{members[0].clip.domain}: small sources"] += members
    found: dict[str, Correction] = {}
    for members in groups.values():
        found.update(_correct_group(members))
    return dict(sorted(found.items()))


def anchor(
    corrections: dict[str, Correction], before: dict[str, float], anchors: Sequence[str] = ANCHORS
) -> tuple[dict[str, Correction], float]:
    """Corrections moved so that the domains which define zero do not move: their medians do not, on average.

    `before` are the leads in frames that the clips had. A student that is trained on its own corrections so
    cannot drift. Returns also by how many ms they were moved.
    """
    medians = [
        float(np.median(changes))
        for domain in anchors
        if (
            changes := [
                c.advance_ms - before[file] * FRAME_MS
                for file, c in corrections.items()
                if file.startswith(f"{domain}/")
            ]
        )
    ]
    moved = float(np.mean(medians)) if medians else 0.0
    return {
        file: replace(c, advance_ms=round(c.advance_ms - moved, 1)) for file, c in corrections.items()
    }, moved


def write_corrections(path: Path, corrections: dict[str, Correction]) -> None:
    """Write a table that `corpus.read_corrections` reads, whole or not at all."""
    with whole_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CORRECTION_COLUMNS)
        for name, found in corrections.items():
            keep = "yes" if found.keep else "no"
            table.writerow([name, f"{found.advance_ms:.1f}", keep, f"{found.confidence:.2f}", found.reason])


def zero_group_of(clip: CachedClip, rates: dict[str, int]) -> str:
    """Whose zero a clip is taken to share; `rates` are the files' sample rates in Hz."""
    return f"{clip.source} {rates[clip.file]}" if clip.domain == "broadcast" else clip.source


def _correct_group(members: list[Estimate]) -> dict[str, Correction]:
    leads = np.array([member.lead_frames for member in members])
    centre = float(np.nanmedian(leads)) if np.isfinite(leads).any() else 0.0
    usable = np.array([_agrees(member, centre) for member in members])
    near = usable & (np.abs(leads - centre) <= FAR_FRAMES)
    error = _part_error(members, near)  # of one window's share of a lead, in frames
    variances = np.array([error**2 / max(1, member.windows) for member in members])
    if near.any():
        centre = float(np.median(leads[near]))
    own = _own_variance(leads[near], variances[near])
    return {
        member.clip.file: _correct_one(member, centre, own, variance, bool(good))
        for member, variance, good in zip(members, variances, usable, strict=True)
    }


def _correct_one(member: Estimate, centre: float, own: float, variance: float, usable: bool) -> Correction:
    """The group's lead, and as much of the clip's distance from it as is not its error.

    A long clip without an offset to believe is left out: its face is not that of the voice.
    """
    far = usable and abs(member.lead_frames - centre) > FAR_FRAMES
    weight = 0.0 if not usable else 1.0 if far else own / max(own + variance, 1e-9)
    lead = centre + weight * ((member.lead_frames - centre) if usable else 0.0)
    keep = usable or member.part_windows < MIN_PART_WINDOWS
    reason = "its own" if far else "its own and its group's" if usable else "its group's"
    total = member.clip.lead_frames + lead
    return Correction(
        round(total * FRAME_MS, 1), keep=keep, reason=reason if keep else NO_OFFSET, confidence=weight
    )


def _agrees(member: Estimate, centre: float) -> bool:
    """Whether a clip's peak can be believed: near its group's, or named by both of its long halves."""
    if not np.isfinite(member.lead_frames):
        return False
    if abs(member.lead_frames - centre) <= FAR_FRAMES:
        return True
    together = np.ptp((member.lead_frames, *member.parts)) <= AGREE_FRAMES
    return bool(together) and member.part_windows >= MIN_PART_WINDOWS


def _own_variance(leads: Leads, variances: Leads) -> float:
    """Variance of what the leads stand for, each with an error of known variance (DerSimonian, Laird)."""
    if not np.isfinite(variances).all():
        return 0.0
    if len(leads) < _MIN_TO_SCATTER:
        return _FEW_SCATTER**2
    weights = 1 / np.maximum(variances, 1e-6)
    centre = float(np.average(leads, weights=weights))
    excess = float((weights * (leads - centre) ** 2).sum()) - (len(leads) - 1)
    return max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum()))


def _part_error(members: list[Estimate], near: NDArray[np.bool_]) -> float:
    """Standard error of a lead from one window, from how far the halves of clips lie apart.

    A median, so that the halves with a wrong peak do not count.
    """
    apart = [
        abs(member.parts[0] - member.parts[1]) * np.sqrt(member.part_windows / _PARTS)
        for member, good in zip(members, near, strict=True)
        if good and np.isfinite(member.parts).all()
    ]
    return float(np.median(apart)) / 0.6745 if apart else float("inf")


def _lead(scores: Floats) -> float:
    """Audio lead in frames; NaN where there is no peak, or one at the edge."""
    peak = find_peak(average_curve(scores)) if len(scores) else None
    return float("nan") if peak is None or peak.at_edge else peak.lead_frames
