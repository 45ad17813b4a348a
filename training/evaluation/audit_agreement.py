"""How an audit agrees with the corrections there were: what it changes, and whether it bears them out."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsync_cli.spec import FRAME_MS
from training.data.corpus import Correction
from training.evaluation.audit import FAR_FRAMES, Audit, Estimate, zero_group_of

MIN_CLIPS = 8  # that a slope is fitted to

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Of the clips of a domain and split: the changes of their corrections, in ms, and a slope.

    `slope` is that of the new estimates of single clips over the old corrections, by least squares, both
    relative to their audit group's mean, over the `fitted` clips that were judged by students which had not
    seen them. It is 1 where the old corrections are right on average. What was chance in them, or labels
    learned by heart, is not found again and lowers it; so do the new students' own wrong peaks, a fifth of
    them by a fifth. Corrections that were drawn too far towards their group's raise it. A cache that the old
    corrections were already taken out of draws it towards 1, as a student that sees nothing says 0: audit
    one prepared with `--uncorrected`. None where too few clips can be fitted, or all were corrected alike.
    `slope_error` is its standard error.
    """

    group: str
    clips: int
    median_ms: float
    deviation_ms: float
    largest_ms: float
    fitted: int
    slope: float | None
    slope_error: float | None


def compare_audit(found: Audit, before: dict[str, Correction], *, rates: dict[str, int]) -> list[Agreement]:
    """Compare an audit with an earlier table; clips that either does not know are passed over."""
    domains: dict[str, list[Estimate]] = defaultdict(list)
    for estimate in found.estimates:
        if estimate.clip.file in before:
            domains[f"{estimate.clip.domain}, {estimate.clip.split}"].append(estimate)
    return [_agreement(name, members, found, before, rates) for name, members in sorted(domains.items())]


def describe_agreement(rows: list[Agreement]) -> str:
    """A table in Markdown."""
    lines = [
        "| clips | number | changed by (median) | standard deviation | at most | fitted | slope |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        slope = "-" if row.slope is None else f"{row.slope:.2f} ± {row.slope_error:.2f}"
        lines.append(
            f"| {row.group} | {row.clips} | {row.median_ms:+.1f} ms | {row.deviation_ms:.1f} ms "
            f"| {row.largest_ms:.1f} ms | {row.fitted} | {slope} |"
        )
    return "\n".join(lines)


def _agreement(
    name: str, members: list[Estimate], found: Audit, before: dict[str, Correction], rates: dict[str, int]
) -> Agreement:
    files = [member.clip.file for member in members]
    changes = np.array([found.corrections[file].advance_ms - before[file].advance_ms for file in files])
    old, own, groups = _relative(members, found, before, rates)
    return Agreement(
        name,
        len(members),
        float(np.median(changes)),
        float(changes.std()),
        float(np.abs(changes).max()),
        len(old),
        *(_slope(old, own, groups) or (None, None)),
    )


def _relative(
    members: list[Estimate], found: Audit, before: dict[str, Correction], rates: dict[str, int]
) -> tuple[Numbers, Numbers, int]:
    """Old corrections and new estimates in ms, relative to their groups' means; how many groups.

    Only of clips judged unseen. Estimates far from the median of their group's are wrong peaks; what the old
    corrections say must not choose among them.
    """
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for member in members:
        if member.clip.file in found.unseen and np.isfinite(member.lead_frames):
            lead_ms = (member.clip.lead_frames + member.lead_frames) * FRAME_MS
            groups[zero_group_of(member.clip, rates)].append((before[member.clip.file].advance_ms, lead_ms))
    near = []
    for pairs in groups.values():
        old, own = np.array(pairs).T
        kept = np.abs(own - np.median(own)) <= FAR_FRAMES * FRAME_MS
        if kept.sum() < 2:  # one alone is its group's mean, and says nothing
            continue
        near.append(np.stack([old[kept] - old[kept].mean(), own[kept] - own[kept].mean()]))
    old, own = np.concatenate(near, axis=1) if near else np.zeros((2, 0))
    return old, own, len(near)


def _slope(x: Numbers, y: Numbers, groups: int) -> tuple[float, float] | None:
    """Slope of y over x, each of mean 0 in each of the groups, with its standard error."""
    spread = float((x**2).sum())
    free = len(x) - groups - 1
    if len(x) < MIN_CLIPS or free < 1 or spread < 1e-9:
        return None
    slope = float(x @ y / spread)
    return slope, float(np.sqrt(((y - slope * x) ** 2).sum() / free / spread))
