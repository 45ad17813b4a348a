"""How an audit agrees with the corrections there were: what it changes, and whether it bears them out."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avsync_cli.spec import FRAME_MS
from training.audit import FAR_FRAMES, Audit
from training.corpus import Correction

MIN_CLIPS = 8  # that a slope is fitted to


@dataclass(frozen=True)
class Agreement:
    """Of the clips of a domain and split: the changes of their corrections, in ms, and a slope.

    `slope` is that of the new estimates of single clips over the old corrections, by least squares. It is
    1 where the old ones are right on average: those that held too much chance, or labels that their students
    had learned by heart, are not found again by students that never saw the clips, and it falls towards 0.
    None where too few clips have both, or all were corrected alike. `slope_error` is its standard error.
    """

    group: str
    clips: int
    median_ms: float
    deviation_ms: float
    largest_ms: float
    slope: float | None
    slope_error: float | None


def compare_audit(found: Audit, before: dict[str, Correction]) -> list[Agreement]:
    """Compare an audit with an earlier table; clips that either does not know are passed over."""
    groups: dict[str, list[str]] = defaultdict(list)
    for estimate in found.estimates:
        if estimate.clip.file in before:
            groups[f"{estimate.clip.domain}, {estimate.clip.split}"].append(estimate.clip.file)
    leads_ms = {
        e.clip.file: (e.clip.lead_frames + e.lead_frames) * FRAME_MS - found.anchored_ms
        for e in found.estimates
    }
    return [
        _agreement(
            group,
            new=np.array([found.corrections[file].advance_ms for file in files]),
            own=np.array([leads_ms[file] for file in files]),
            old=np.array([before[file].advance_ms for file in files]),
        )
        for group, files in sorted(groups.items())
    ]


def describe_agreement(rows: list[Agreement]) -> str:
    """A table in Markdown."""
    lines = [
        "| clips | number | changed by (median) | standard deviation | at most | slope |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        slope = "-" if row.slope is None else f"{row.slope:.2f} ± {row.slope_error:.2f}"
        lines.append(
            f"| {row.group} | {row.clips} | {row.median_ms:+.1f} ms | {row.deviation_ms:.1f} ms "
            f"| {row.largest_ms:.1f} ms | {slope} |"
        )
    return "\n".join(lines)


def _agreement(
    group: str, *, new: NDArray[np.float64], own: NDArray[np.float64], old: NDArray[np.float64]
) -> Agreement:
    changes = new - old
    near = np.abs(own - old) <= FAR_FRAMES * FRAME_MS  # NaN, a clip without a peak, is not
    slope = _slope(old[near], own[near])
    return Agreement(
        group,
        len(new),
        float(np.median(changes)),
        float(changes.std()),
        float(np.abs(changes).max()),
        *(slope or (None, None)),
    )


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float] | None:
    """Slope of y over x, with its standard error."""
    apart = x - x.mean() if len(x) else x
    spread = float((apart**2).sum())
    if len(x) < MIN_CLIPS or spread == 0:
        return None
    slope = float(apart @ (y - y.mean()) / spread)
    rest = y - y.mean() - slope * apart
    return slope, float(np.sqrt((rest**2).sum() / (len(x) - 2) / spread))
