"""What a student's curves are worth: fit confidence, refusal and uncertainty on the validation split.

Nothing is trained: a handful of numbers are fitted to what the student says of `examples`.
"""

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from avsync_cli.errors import ConfigError
from avsync_cli.model import CONTRACT_FILE, Calibration, load_student
from avsync_cli.spec import FACE_CROP_DEFINITION
from avsync_cli.timing import lead_ms
from training.cache import read_manifest, require_grey, require_rgb
from training.contract import write_contract
from training.examples import MARGIN, OTHER, STRETCH_FRAMES, Example, make_examples

Mask = NDArray[np.bool_]

MISMATCHED_PRIOR = 0.2  # what examples for which no offset is right count for together
COVERED = 0.9
MAX_WRONG_PEAKS = 0.05  # share of the accepted examples, by their weight
MAX_FALSE_SYNC = 0.02  # share of the examples with another clip's sound that are said to be in sync
FOLDS = 5
RIDGE = 1e-4


def calibrate(folder: Path, cache: Path, *, seed: int = 0) -> tuple[Calibration, list[Example]]:
    """Fit a student's calibration on a cache's validation clips and write it into its `model.json`."""
    student = load_student(folder, threads=0)
    (require_rgb if student.layout.crop == FACE_CROP_DEFINITION else require_grey)(cache)
    clips = [clip for clip in read_manifest(cache) if clip.split == "val" and clip.reason is None]
    if not clips:
        raise ConfigError(f"{cache}: has no validation clips to calibrate on")
    examples = make_examples(student, cache, clips, seed=seed)
    calibration = fit(examples)
    write_calibration(folder, calibration)
    return calibration, examples


def fit(examples: list[Example]) -> Calibration:
    """Logistic regression for the confidence, then the threshold and the spread that follow from it.

    The threshold is chosen by confidence on clips left out of its fit: on the others it promises too much.
    """
    if not any(example.error_frames is not None for example in examples):
        raise ConfigError("no example whose offset is known: the clips are too short or too few")
    features = np.stack([example.features for example in examples])
    right = np.array([example.is_right for example in examples], float)
    counts = prior_weights(examples)
    weights = _logistic(features, right, counts)
    confidence = expit(features @ weights)
    least = _threshold(held_out_confidence(examples), examples, counts)
    errors, _ = _accepted_errors(examples, confidence, least)
    if not len(errors):
        raise ConfigError("no example is sure enough to tell the uncertainty: train longer")
    return Calibration(tuple(weights.tolist()), least, _spread(errors[:, 0], errors[:, 1]))


def _accepted_errors(
    examples: list[Example], confidence: NDArray[np.float64], least: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of the accepted examples that have a truth: errors in ms and windows [E, 2], and their clips [E]."""
    chosen = [
        example
        for example, sure in zip(examples, confidence, strict=True)
        if example.error_frames is not None and sure >= least and not example.at_edge
    ]
    errors = np.array([(lead_ms(abs(example.error_frames or 0.0)), example.windows) for example in chosen])
    return errors.reshape(-1, 2), np.array([example.clip for example in chosen], np.int64)


def prior_weights(examples: list[Example]) -> NDArray[np.float64]:
    """What each example counts for: 1, and less if mismatched, so that these are as rare as in real use."""
    mismatched = np.array([example.error_frames is None for example in examples])
    odds = MISMATCHED_PRIOR / (1 - MISMATCHED_PRIOR)
    share = odds * (~mismatched).sum() / max(1, int(mismatched.sum()))
    return np.where(mismatched, share, 1.0)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Put the calibration into a student's `model.json`, whole or not at all."""
    declared = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    write_contract(folder, declared | {"calibration": asdict(calibration)})


def describe(calibration: Calibration, examples: list[Example]) -> str:
    """What was fitted and how good it is: a table in Markdown.

    Confidence is judged on clips left out of its fit (five folds); the threshold is that of the calibration.
    """
    confidence, right = held_out_confidence(examples), np.array([e.is_right for e in examples], float)
    counts = prior_weights(examples)
    coverage = held_out_coverage(examples, confidence, calibration.min_confidence)
    covered = f"; it covers {coverage:.1%} where fitted elsewhere" if np.isfinite(coverage) else ""
    lines = [
        f"{len(examples)} examples, {np.average(right, weights=counts):.1%} right; "
        f"expected calibration error {expected_calibration_error(confidence, right, counts):.3f}",
        f"weights {[round(weight, 3) for weight in calibration.weights]}, "
        f"least confidence {calibration.min_confidence}, 90 % within "
        f"{calibration.spread_ms[0]:g} ms + {calibration.spread_ms[1]:g} ms / sqrt(windows){covered}",
        "",
        "| | examples | accepted | right of those accepted | accepted where no offset is right |",
        "| --- | --- | --- | --- | --- |",
    ]
    windows = np.array([example.windows for example in examples])
    accepted = (confidence >= calibration.min_confidence) & ~np.array([e.at_edge for e in examples])
    mismatched = np.array([example.error_frames is None for example in examples])
    level = np.array([example.is_level for example in examples])
    if mismatched.any():
        voices = np.array([example.condition == OTHER for example in examples])
        shares = [f"{(accepted & level)[which].mean():.1%}" for which in (mismatched, voices) if which.any()]
        lines.insert(
            2, f"said to be in sync where no offset is right, and with another's voice: {', '.join(shares)}"
        )
    edges = [*STRETCH_FRAMES, 10**9]
    for low, high in pairwise(edges):
        inside = (windows + MARGIN >= low) & (windows + MARGIN < high)
        name = f"{low} to {high - 1} frames" if high < edges[-1] else f"{low} frames or more"
        lines += _row(name, inside & ~mismatched, inside & mismatched, accepted, right)
    conditions = np.array([example.condition for example in examples])
    for condition in sorted(set(conditions)):
        inside = conditions == condition
        lines += _row(condition, inside & ~mismatched, inside & mismatched, accepted, right)
    lines += ["", "| confidence | examples | share right |", "| --- | --- | --- |"]
    bins = np.minimum((confidence * 10).astype(int), 9)
    for place in sorted(set(bins)):
        inside = bins == place
        share = np.average(right[inside], weights=counts[inside])
        lines.append(f"| {place / 10:.1f} to {place / 10 + 0.1:.1f} | {inside.sum()} | {share:.1%} |")
    return "\n".join(lines)


def _row(name: str, own: Mask, other: Mask, accepted: Mask, right: NDArray[np.float64]) -> list[str]:
    """One line of the table, none where there is nothing to count."""
    if not (own | other).any():
        return []
    heard = f"{accepted[own].mean():.1%}" if own.any() else ""
    share = f"{right[own & accepted].mean():.1%}" if (own & accepted).any() else ""
    false = f"{accepted[other].mean():.1%}" if other.any() else ""
    return [f"| {name} | {(own | other).sum()} | {heard} | {share} | {false} |"]


def held_out_confidence(examples: list[Example]) -> NDArray[np.float64]:
    """Confidence of every example by weights fitted without its clip: five folds over the clips."""
    features = np.stack([example.features for example in examples])
    right = np.array([example.is_right for example in examples], float)
    folds = np.array([example.clip % FOLDS for example in examples])
    counts = prior_weights(examples)
    confidence = np.zeros(len(examples))
    for fold in sorted(set(folds)):
        others = (folds != fold) | (folds == fold).all()  # a single fold has no others
        weights = _logistic(features[others], right[others], counts[others])
        confidence[folds == fold] = expit(features[folds == fold] @ weights)
    return confidence


def held_out_coverage(examples: list[Example], confidence: NDArray[np.float64], least: float) -> float:
    """Share of the accepted examples whose error lies within an uncertainty fitted without their clip: five
    folds over the clips."""
    errors, clips = _accepted_errors(examples, confidence, least)
    folds = clips % FOLDS
    if len(set(folds)) < 2:
        return float("nan")
    covered = np.zeros(len(errors), bool)
    for fold in sorted(set(folds)):
        inside = folds == fold
        floor, slope = _spread(*errors[~inside].T)
        covered[inside] = errors[inside, 0] <= floor + slope / np.sqrt(errors[inside, 1])
    return float(covered.mean())


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
    confidence: NDArray[np.float64], examples: list[Example], counts: NDArray[np.float64]
) -> float:
    """The least confidence at which few enough of the accepted rest on a wrong peak, and another clip's sound
    is said to be in sync seldom enough; music and still faces hardly ever are."""
    inside = np.array([not example.at_edge for example in examples])
    wrong = np.array([example.is_wrong_peak for example in examples])
    others = np.array([example.condition == OTHER for example in examples])
    level = np.array([example.is_level for example in examples])
    for least in np.arange(0.05, 1.0, 0.01):
        accepted = inside & (confidence >= least)
        if not accepted.any():
            break
        wrong_share = np.average(wrong[accepted], weights=counts[accepted])
        false_sync = (accepted & level)[others].mean() if others.any() else 0.0
        if wrong_share <= MAX_WRONG_PEAKS and false_sync <= MAX_FALSE_SYNC:
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
