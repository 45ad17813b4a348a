"""The forms of a student on the same validation clips: torch, fp32 and int8, and whether they agree.

V: video windows of a clip. Scores [V, 31] are those of `avsync_cli.offsets`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avsync_cli.contract import CONTRACT_FILE, precisions_of
from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from avsync_cli.offsets import LEADS_FRAMES, average_curve
from avsync_cli.spec import FACE_CROP_DEFINITION, SAME_OFFSET_FRAMES, Precision
from export.footprint import Footprint, measure_net, measure_student
from export.scorers import Scorer, open_scorer, student_scorer
from export.trained import CropName
from training.data.cache import CachedClip, read_manifest, require_grey, require_rgb
from training.data.clips import load_clip
from training.evaluation.protocol import mean_accuracies
from training.progress import Progress
from training.recipe import Pixels
from training.whole_file import write_json

MAX_FP32_DRIFT = 1e-4  # of a score, against torch
MAX_LOST_POINTS = 0.5  # of int8's accuracy at K=15, against fp32
MIN_AGREEMENT_PERCENT = 99.0  # of clips, int8 against fp32

_TORCH = "torch"
_THREADS = (1, 2)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """One form: accuracy in percent by K, what it costs, and how it differs from the form `against`.

    `drift` is the largest difference of a score and `rms_drift` the root mean square of all;
    `agreement_percent` of the clips have an offset within a frame of the other form's.
    """

    name: str
    percent: dict[str, float]
    file_bytes: int
    peak_mb: float
    scan_ms: dict[str, float]  # a window's, by the number of threads
    against: str | None = None
    drift: float | None = None
    rms_drift: float | None = None
    agreement_percent: float | None = None


@dataclass(frozen=True)
class Bar:
    """A figure that must not be above (or below) its limit."""

    what: str
    value: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class Parity:
    """What was measured on so many clips, and what of it is asked for."""

    student: str
    clips: int
    forms: tuple[Form, ...]
    bars: tuple[Bar, ...]

    @property
    def passed(self) -> bool:
        return bool(self.bars) and all(bar.passed for bar in self.bars)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def write_parity(parity: Parity, path: Path) -> None:
    """Write JSON whole or not at all. Raises ConfigError."""
    try:
        write_json(path, parity.to_json())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def compare_forms(
    folder: Path,
    cache: Path,
    checkpoint: Path | None = None,
    *,
    clips: int | None = None,
    network: str | None = None,
    pixels: Pixels | None = None,
    crop: CropName | None = None,
) -> Parity:
    """Measure every form that there is on `clips` validation clips spread over the cache, or on all.

    `checkpoint` is what the student was exported from, and the last three are as of `open_trained`. Raises
    ConfigError or ModelError.
    """
    student = load_student(folder)
    (require_rgb if student.layout.crop == FACE_CROP_DEFINITION else require_grey)(cache)
    chosen = _choose(cache, clips)
    if checkpoint is None and precisions_of(folder) == ("fp32",):
        raise ConfigError(f"{folder}: has one form only; quantize it, or give --checkpoint")
    scorers: dict[str, Scorer] = {}
    if checkpoint is not None:
        scorers[_TORCH] = open_scorer(checkpoint, network, pixels, crop, zero_ms=student.zero_ms)
    for precision in precisions_of(folder):
        scorers[precision] = student_scorer(folder, precision)
    scores = _score_all(scorers, cache, chosen)
    if not any(np.isfinite(each).any() for each in scores["fp32"]):
        raise ConfigError(f"{cache}: none of {len(chosen)} clips has a score to compare")
    options = [str(checkpoint), network, pixels, crop]
    timed = max(chosen, key=lambda clip: (clip.frames, clip.file)).file
    forms = []
    for name in scorers:
        costs = {
            str(threads): measure_net(options, cache, timed, threads=threads)
            if name == _TORCH
            else measure_student(folder, cache, timed, precision=_precision(name), threads=threads)
            for threads in _THREADS
        }
        size = checkpoint.stat().st_size if name == _TORCH and checkpoint else _bytes_of(folder, name)
        against = {"fp32": _TORCH, "int8": "fp32"}.get(name)
        forms.append(_form(name, against, scores, size, costs))
    return Parity(student.name, len(chosen), tuple(forms), _bars(forms))


def lead_of(scores: Floats) -> int | None:
    """The offset of a whole clip in frames; None where it has no score."""
    curve = average_curve(scores)
    return int(LEADS_FRAMES[np.nanargmax(curve)]) if np.isfinite(curve).any() else None


def agreement_percent(found: list[Floats], expected: list[Floats]) -> float:
    """Of the clips with an offset in either form, those whose offsets are within a frame of each other."""
    pairs = [(lead_of(one), lead_of(other)) for one, other in zip(found, expected, strict=True)]
    asked = [(one, other) for one, other in pairs if one is not None or other is not None]
    near = [
        one is not None and other is not None and abs(one - other) <= SAME_OFFSET_FRAMES
        for one, other in asked
    ]
    return 100 * float(np.mean(near)) if near else 100.0


def _choose(cache: Path, count: int | None) -> list[CachedClip]:
    clips = [clip for clip in read_manifest(cache) if clip.split == "val" and clip.reason is None]
    if not clips:
        raise ConfigError(f"{cache}: holds no clip of the split 'val'")
    places = np.linspace(0, len(clips) - 1, min(count or len(clips), len(clips))).round().astype(int)
    return [clips[place] for place in places]


def _precision(name: str) -> Precision:
    return "int8" if name == "int8" else "fp32"


def _score_all(scorers: dict[str, Scorer], cache: Path, clips: list[CachedClip]) -> dict[str, list[Floats]]:
    scores: dict[str, list[Floats]] = {name: [] for name in scorers}
    with Progress("parity", len(clips), unit="clips") as progress, torch.inference_mode():
        for entry in clips:
            clip = load_clip(cache, entry)
            for name, scorer in scorers.items():
                scores[name].append(scorer(clip, None))
            progress.advance(1)
    return scores


def _form(
    name: str, against: str | None, scores: dict[str, list[Floats]], size: int, costs: dict[str, Footprint]
) -> Form:
    own = scores[name]
    figures = Form(
        name,
        {key: round(value, 2) for key, value in mean_accuracies(own).items()},
        size,
        round(max(cost.peak_mb for cost in costs.values()), 1),
        {threads: round(cost.scan_ms, 3) for threads, cost in costs.items()},
    )
    if against not in scores:
        return figures
    apart = [(a - b)[np.isfinite(b)] for a, b in zip(own, scores[against], strict=True)]
    errors = np.concatenate(apart)
    return Form(
        *(figures.name, figures.percent, figures.file_bytes, figures.peak_mb, figures.scan_ms, against),
        drift=float(np.abs(errors).max()),
        rms_drift=float(np.sqrt(np.mean(errors**2))),
        agreement_percent=agreement_percent(own, scores[against]),
    )


def _bars(forms: list[Form]) -> tuple[Bar, ...]:
    by_name = {form.name: form for form in forms}
    bars = []
    fp32, int8 = by_name["fp32"], by_name.get("int8")
    if fp32.drift is not None:
        bars.append(Bar("largest drift of fp32", fp32.drift, MAX_FP32_DRIFT, fp32.drift <= MAX_FP32_DRIFT))
    if int8 is not None and int8.agreement_percent is not None:
        if "15" in fp32.percent:  # no clip is as long otherwise
            lost = round(fp32.percent["15"] - int8.percent.get("15", 0.0), 2)
            bars.append(Bar("points of K=15 that int8 loses", lost, MAX_LOST_POINTS, lost <= MAX_LOST_POINTS))
        agreed = int8.agreement_percent
        passed = agreed >= MIN_AGREEMENT_PERCENT
        bars.append(Bar("% of clips on which int8 agrees", agreed, MIN_AGREEMENT_PERCENT, passed))
    return tuple(bars)


def _bytes_of(folder: Path, name: str) -> int:
    """What a form's graphs take on the disk."""
    declared = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    entries = declared["graphs"] | (declared.get("int8", {}) if name == "int8" else {})
    return sum((folder / entry["file"]).stat().st_size for entry in entries.values())
