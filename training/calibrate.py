"""What a student's curves are worth: fit confidence, refusal and uncertainty on the validation split.

Every example is a stretch of a validation clip with its sound moved by a known amount, or with the sound
of another clip, where no offset is right. Nothing here is trained on: a handful of numbers are fitted.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from avsync_cli.errors import ConfigError
from avsync_cli.model import CONTRACT_FILE, Calibration, Student, load_student
from avsync_cli.scan import average_curve, count_windows, curve_features, find_peak, score_offsets
from avsync_cli.spec import FACE_CROP_DEFINITION, RANGE_FRAMES, WINDOW_FRAMES
from avsync_cli.timing import lead_ms
from training.cache import CachedClip, read_manifest, require_grey, require_rgb
from training.clips import load_clip

Floats = NDArray[np.float32]

STRETCH_FRAMES = (26, 38, 50, 75, 100, 200)  # 1 s to 8 s; whole clips are added
MARGIN = WINDOW_FRAMES - 1  # a stretch has so many more frames than windows
STRETCHES_PER_CLIP = 12  # of each length, at most
MAX_SHIFT_FRAMES = RANGE_FRAMES - 1
MISMATCHED_SHARE = 0.35  # of the examples: sound that belongs to another clip
MISMATCHED_PRIOR = 0.2  # what they count for together
RIGHT_WITHIN_FRAMES = 1.0
COVERED = 0.9
# Among the accepted examples at most this share may rest on a wrong peak: one that is further from the
# truth than the sources disagree among themselves, or any peak at all where the sound is another clip's.
WRONG_PEAK_FRAMES = 2.0
MAX_WRONG_PEAKS = 0.05
FOLDS = 5
RIDGE = 1e-4


@dataclass(frozen=True)
class Example:
    """One curve and what is known of it; `error_frames` is None where no offset is right."""

    clip: int  # number of the clip it was cut from
    features: NDArray[np.float64]  # [F]
    windows: int
    error_frames: float | None
    at_edge: bool

    @property
    def is_right(self) -> bool:
        return self.error_frames is not None and abs(self.error_frames) <= RIGHT_WITHIN_FRAMES

    @property
    def is_wrong_peak(self) -> bool:
        return self.error_frames is None or abs(self.error_frames) > WRONG_PEAK_FRAMES


@dataclass(frozen=True)
class Encoded:
    """A clip's windows: video [V, D] from tick `video_tick`, audio [A, D] from tick `audio_tick`."""

    video: Floats
    audio: Floats
    video_tick: int
    audio_tick: int


def calibrate(folder: Path, cache: Path, *, seed: int = 0) -> tuple[Calibration, list[Example]]:
    """Fit a student's calibration on a cache's validation clips and write it into its `model.json`."""
    student = load_student(folder, threads=0)
    (require_rgb if student.layout.crop == FACE_CROP_DEFINITION else require_grey)(cache)
    clips = [clip for clip in read_manifest(cache) if clip.split == "val" and clip.reason is None]
    if not clips:
        raise ConfigError(f"{cache}: has no validation clips to calibrate on")
    examples = list(make_examples([encode_clip(student, cache, clip) for clip in clips], student, seed=seed))
    calibration = fit(examples)
    write_calibration(folder, calibration)
    return calibration, examples


def encode_clip(student: Student, cache: Path, clip: CachedClip) -> Encoded:
    """Encode all windows of a cached clip."""
    loaded = load_clip(cache, clip)
    windows = student.encode_video(loaded.crops, loaded.lips.astype(np.float32))
    sound = student.encode_audio(loaded.mel, loaded.mel.all_ticks)
    return Encoded(windows, sound, loaded.first_tick, loaded.mel.first_tick)


def make_examples(clips: list[Encoded], student: Student, *, seed: int) -> Iterator[Example]:
    """Stretches of every length from every clip, moved or mismatched; deterministic in the seed."""
    rng = np.random.default_rng(seed)
    for number, clip in enumerate(clips):
        lengths = [frames for frames in STRETCH_FRAMES if frames - MARGIN < len(clip.video)]
        for windows in [*(frames - MARGIN for frames in lengths), len(clip.video)]:
            for _ in range(min(STRETCHES_PER_CLIP, 1 + (len(clip.video) - windows) // 5)):
                first = int(rng.integers(0, len(clip.video) - windows + 1))
                stretch = replace(
                    clip, video=clip.video[first : first + windows], video_tick=clip.video_tick + first
                )
                others = [other for other in clips if other is not clip and len(other.audio) >= windows]
                if others and rng.random() < MISMATCHED_SHARE:
                    other = others[int(rng.integers(len(others)))]
                    example = mismatched_example(stretch, other, student, rng=rng)
                else:
                    example = moved_example(stretch, student, rng=rng)
                if example is not None:
                    yield replace(example, clip=number)


def moved_example(stretch: Encoded, student: Student, *, rng: np.random.Generator) -> Example | None:
    """A stretch whose sound is moved by a known number of frames.

    Half of them have only the sound of the same length, as a short file, half all that the clip has on
    both sides, as a shot in a longer one.
    """
    cut = _cut_audio(stretch) if rng.random() < 0.5 else stretch
    lead = int(rng.integers(-MAX_SHIFT_FRAMES, MAX_SHIFT_FRAMES + 1))
    return _example(replace(cut, audio_tick=cut.audio_tick - lead), student, truth=float(lead))


def mismatched_example(
    stretch: Encoded, other: Encoded, student: Student, *, rng: np.random.Generator
) -> Example | None:
    """A stretch with sound from somewhere in another clip."""
    margin = int(rng.integers(0, RANGE_FRAMES + 1))  # of sound on both sides
    length = len(stretch.video) + 2 * margin
    first = int(rng.integers(0, max(1, len(other.audio) - length + 1)))
    sound = other.audio[first : first + length]
    moved = replace(
        stretch, audio=sound, audio_tick=stretch.video_tick - (len(sound) - len(stretch.video)) // 2
    )
    return _example(moved, student, truth=None)


def fit(examples: list[Example]) -> Calibration:
    """Logistic regression for the confidence, then the threshold and the spread that follow from it."""
    features = np.stack([example.features for example in examples])
    right = np.array([example.is_right for example in examples], float)
    counts = prior_weights(examples)
    weights = _logistic(features, right, counts)
    confidence = 1 / (1 + np.exp(-features @ weights))
    accepted = np.array([not example.at_edge for example in examples])
    wrong = np.array([example.is_wrong_peak for example in examples])
    least = _threshold(confidence[accepted], wrong[accepted], counts[accepted])
    errors = np.array(
        [
            (lead_ms(abs(example.error_frames)), example.windows)
            for example, sure in zip(examples, confidence, strict=True)
            if example.error_frames is not None and sure >= least and not example.at_edge
        ]
    )
    return Calibration(tuple(weights.tolist()), least, _spread(errors[:, 0], errors[:, 1]))


def prior_weights(examples: list[Example]) -> NDArray[np.float64]:
    """What each example counts for: 1, and less if mismatched, so that these are as rare as in real use."""
    mismatched = np.array([example.error_frames is None for example in examples])
    odds = MISMATCHED_PRIOR / (1 - MISMATCHED_PRIOR)
    share = odds * (~mismatched).sum() / max(1, int(mismatched.sum()))
    return np.where(mismatched, share, 1.0)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Put the calibration into a student's `model.json`, whole or not at all."""
    path = folder / CONTRACT_FILE
    declared = json.loads(path.read_text(encoding="utf-8"))
    declared["calibration"] = asdict(calibration)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(declared, indent=1) + "\n", encoding="utf-8")
    shutil.move(unfinished, path)


def describe(calibration: Calibration, examples: list[Example]) -> str:
    """What was fitted and how good it is: a table in Markdown.

    Confidence is judged on clips left out of its fit (five folds); the threshold is that of the full fit.
    """
    confidence, right = held_out_confidence(examples), np.array([e.is_right for e in examples], float)
    counts = prior_weights(examples)
    lines = [
        f"{len(examples)} examples, {np.average(right, weights=counts):.1%} right; "
        f"expected calibration error {expected_calibration_error(confidence, right, counts):.3f}",
        f"weights {[round(weight, 3) for weight in calibration.weights]}, "
        f"least confidence {calibration.min_confidence}, 90 % within "
        f"{calibration.spread_ms[0]:g} ms + {calibration.spread_ms[1]:g} ms / sqrt(windows)",
        "",
        "| frames | examples | accepted | right of those accepted | mismatched sound accepted |",
        "| --- | --- | --- | --- | --- |",
    ]
    windows = np.array([example.windows for example in examples])
    accepted = (confidence >= calibration.min_confidence) & ~np.array([e.at_edge for e in examples])
    mismatched = np.array([example.error_frames is None for example in examples])
    edges = [*STRETCH_FRAMES, 10**9]
    for low, high in pairwise(edges):
        inside = (windows + MARGIN >= low) & (windows + MARGIN < high)
        own, other = inside & ~mismatched, inside & mismatched
        if own.any() and other.any():
            share = right[own & accepted].mean() if (own & accepted).any() else float("nan")
            name = f"{low} to {high - 1}" if high < edges[-1] else f"{low} or more"
            cells = (
                f"{inside.sum()} | {accepted[own].mean():.1%} | {share:.1%} | {accepted[other].mean():.1%}"
            )
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def held_out_confidence(examples: list[Example]) -> NDArray[np.float64]:
    """Confidence of every example by weights fitted without its clip: five folds over the clips."""
    features = np.stack([example.features for example in examples])
    right = np.array([example.is_right for example in examples], float)
    folds = np.array([example.clip % FOLDS for example in examples])
    counts = prior_weights(examples)
    confidence = np.zeros(len(examples))
    for fold in range(FOLDS):
        weights = _logistic(features[folds != fold], right[folds != fold], counts[folds != fold])
        confidence[folds == fold] = 1 / (1 + np.exp(-features[folds == fold] @ weights))
    return confidence


def expected_calibration_error(
    confidence: NDArray[np.float64], right: NDArray[np.float64], counts: NDArray[np.float64]
) -> float:
    """Mean distance between confidence and share of right answers over ten equal bins, by their weight."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    error = 0.0
    for place in range(10):
        inside = bins == place
        if inside.any():
            gap = np.average(confidence[inside] - right[inside], weights=counts[inside])
            error += float(counts[inside].sum() / counts.sum()) * abs(float(gap))
    return error


def _example(encoded: Encoded, student: Student, *, truth: float | None) -> Example | None:
    scores = score_offsets(
        encoded.video,
        encoded.audio,
        first_tick_video=encoded.video_tick,
        first_tick_audio=encoded.audio_tick,
        score=student.score,
    )
    curve = average_curve(scores)
    peak = find_peak(curve)
    if peak is None:
        return None
    error = None if truth is None else peak.lead_frames - truth
    windows = count_windows(scores, curve)
    return Example(0, curve_features(curve, windows), windows, error, peak.at_edge)


def _cut_audio(stretch: Encoded) -> Encoded:
    """Only the sound of the same ticks, as a file of that length would have it."""
    first = max(stretch.video_tick, stretch.audio_tick)
    last = min(stretch.video_tick + len(stretch.video), stretch.audio_tick + len(stretch.audio))
    rows = slice(first - stretch.audio_tick, max(first, last) - stretch.audio_tick)
    return replace(stretch, audio=stretch.audio[rows], audio_tick=first)


def _logistic(
    features: NDArray[np.float64], right: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights [F] of greatest likelihood, with a slight ridge."""

    def loss(weights: NDArray[np.float64]) -> float:
        logits = features @ weights
        losses = np.logaddexp(0, logits) - right * logits
        return float(np.average(losses, weights=counts) + RIDGE * weights @ weights)

    result: NDArray[np.float64] = minimize(loss, np.zeros(features.shape[1]), method="BFGS").x
    return result


def _threshold(
    confidence: NDArray[np.float64], wrong: NDArray[np.bool_], counts: NDArray[np.float64]
) -> float:
    """The least confidence at which few enough of the accepted rest on a wrong peak."""
    for least in np.arange(0.05, 1.0, 0.01):
        accepted = confidence >= least
        if accepted.any() and np.average(wrong[accepted], weights=counts[accepted]) <= MAX_WRONG_PEAKS:
            return float(round(least, 2))
    raise ConfigError("no confidence keeps the share of wrong answers low enough: train longer")


def _spread(errors_ms: NDArray[np.float64], windows: NDArray[np.float64]) -> tuple[float, float]:
    """Quantile regression of the errors: floor + slope / sqrt(windows) covers 90 % of them."""
    inverse = 1 / np.sqrt(windows)

    def loss(values: NDArray[np.float64]) -> float:
        rest = errors_ms - (values[0] + values[1] * inverse)
        return float(np.mean(np.maximum(COVERED * rest, (COVERED - 1) * rest)))

    start = np.array([float(np.quantile(errors_ms, COVERED)), 0.0])
    best = minimize(loss, start, method="Nelder-Mead", bounds=[(0, None), (0, None)]).x
    return round(float(best[0]), 1), round(float(best[1]), 1)
