"""What a student's curves are worth: fit confidence, refusal and uncertainty on the validation split.

Nothing is trained: a handful of numbers are fitted to what the student says of `examples`.
"""

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from avsync_cli.confidence import Calibration
from avsync_cli.contract import CONTRACT_FILE
from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from avsync_cli.spec import FACE_CROP_DEFINITION, MIN_NO_MATCH_WINDOWS
from avsync_cli.timing import lead_ms
from training.data.cache import read_manifest, require_grey, require_rgb
from training.evaluation.calibration_examples import (
    CLEAN,
    MARGIN,
    OTHER,
    STRETCH_FRAMES,
    Example,
    make_examples,
)
from training.whole_file import write_contract

Mask = NDArray[np.bool_]

MISMATCHED_PRIOR = 0.2  # what examples for which no offset is right count for together
COVERED = 0.9
MAX_WRONG_PEAKS = 0.05  # share of the accepted examples, by their weight
MAX_FALSE_SYNC = 0.01  # share of the examples with another clip's sound that are said to be in sync
# Share of the examples with another clip's sound that may be given an offset, by their frames: 1, 2.5, 5 s.
MAX_STRANGE = ((26, 0.12), (62, 0.05), (125, 0.02))
MAX_OWN_NO_MATCH = 0.01  # share of the examples with their own sound of which it is said that nothing fits
FOLDS = 5
_LEAST = 0.05  # confidence that is tried first
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
    held_out = held_out_confidence(examples)
    *short, (_, least) = _thresholds(held_out, examples, counts)
    fitted = Calibration(tuple(weights.tolist()), least, (0.0, 0.0), short_confidence=tuple(short))
    errors, _ = _accepted_errors(examples, confidence, least_of(fitted, examples))
    if not len(errors):
        raise ConfigError("no example is sure enough to tell the uncertainty: train longer")
    return replace(
        fitted,
        spread_ms=_spread(errors[:, 0], errors[:, 1]),
        no_match_confidence=_no_match_confidence(held_out, examples, most=min(least, *(s for _, s in short))),
    )


def least_of(calibration: Calibration, examples: list[Example]) -> NDArray[np.float64]:
    """The confidence [E] from which on an answer is given, of every example."""
    return np.array([calibration.least_confidence(example.windows) for example in examples])


def _accepted_errors(
    examples: list[Example], confidence: NDArray[np.float64], least: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of the accepted examples that have a truth: errors in ms and windows [E, 2], and their clips [E]."""
    chosen = [
        example
        for example, sure in zip(examples, confidence >= least, strict=True)
        if example.error_frames is not None and sure and not example.at_edge
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
    fitted = asdict(calibration)
    del fitted["zero_uncertainty_ms"]  # the student's own, which `zero` measures
    write_contract(folder, declared | {"calibration": fitted})


def describe_calibration(calibration: Calibration, examples: list[Example]) -> str:
    """What was fitted and how good it is: a table in Markdown.

    Confidence is judged on clips left out of its fit (five folds); the threshold is that of the calibration.
    """
    confidence, right = held_out_confidence(examples), np.array([e.is_right for e in examples], float)
    counts = prior_weights(examples)
    least = least_of(calibration, examples)
    coverage = held_out_coverage(examples, confidence, least)
    covered = f"; it covers {coverage:.1%} where fitted elsewhere" if np.isfinite(coverage) else ""
    floor_ms, slope_ms = calibration.spread_ms
    lines = [
        f"{len(examples)} examples, {np.average(right, weights=counts):.1%} right; "
        f"expected calibration error {expected_calibration_error(confidence, right, counts):.3f}",
        f"weights {[round(weight, 3) for weight in calibration.weights]}",
        f"least confidence {calibration.min_confidence}, of fewer windows {calibration.short_confidence}; "
        f"no match below {calibration.no_match_confidence}",
        f"90 % within {floor_ms:g} ms + {slope_ms:g} ms / sqrt(windows){covered}",
        "",
        "| | examples | accepted | right of those accepted | accepted where no offset is right |",
        "| --- | --- | --- | --- | --- |",
    ]
    windows = np.array([example.windows for example in examples])
    accepted = (confidence >= least) & ~np.array([e.at_edge for e in examples])
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
    lengths = [least for least, _ in MAX_STRANGE]
    for low, high in pairwise([*lengths, 10**9]):
        inside = (windows + MARGIN >= low) & (windows + MARGIN < high)
        own, other = inside & (conditions == CLEAN), inside & (conditions == OTHER)
        lines += _row(f"clean or another's, {low} frames or more", own, other, accepted, right)
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


def held_out_coverage(
    examples: list[Example], confidence: NDArray[np.float64], least: NDArray[np.float64] | float
) -> float:
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


def _thresholds(
    confidence: NDArray[np.float64], examples: list[Example], counts: NDArray[np.float64]
) -> list[tuple[int, float]]:
    """For each length in `MAX_STRANGE` the windows up to which, and the confidence from which on, to answer.

    Longer stretches never need less than shorter ones; lengths without examples take what shorter ones need.
    All are raised to the confidence at which another clip's sound is said to be in sync seldom enough.
    """
    frames = np.array([example.windows + MARGIN for example in examples])
    ends = [*(least for least, _ in MAX_STRANGE[1:]), 10**9]
    found: list[tuple[int, float]] = []
    begin, least = 0, _LEAST
    for (_, share), end in zip(MAX_STRANGE, ends, strict=True):
        inside = (frames >= begin) & (frames < end)
        if inside.any():
            least = max(least, _threshold(confidence, examples, counts, inside, share))
        found.append((end - MARGIN, least))
        begin = end
    fitted = Calibration((), found[-1][1], (0.0, 0.0), short_confidence=tuple(found[:-1]))
    lowest = _level_threshold(confidence, examples, least_of(fitted, examples))
    return [(end, max(least, lowest)) for end, least in found]


def _threshold(
    confidence: NDArray[np.float64],
    examples: list[Example],
    counts: NDArray[np.float64],
    chosen: Mask,
    strange: float,
) -> float:
    """The least confidence at which, of the chosen examples, few enough of the accepted rest on a wrong peak,
    and another clip's sound is given an offset seldom enough; music and still faces hardly ever are."""
    inside = chosen & np.array([not example.at_edge for example in examples])
    wrong = np.array([example.is_wrong_peak for example in examples])
    others = chosen & np.array([example.condition == OTHER for example in examples])
    for least in np.arange(_LEAST, 1.0, 0.01):
        accepted = inside & (confidence >= least)
        if not accepted.any():
            break
        wrong_share = np.average(wrong[accepted], weights=counts[accepted])
        answered = accepted[others].mean() if others.any() else 0.0
        if wrong_share <= MAX_WRONG_PEAKS and answered <= strange:
            return float(round(least, 2))
    raise ConfigError("no confidence keeps the share of wrong answers low enough: train longer")


def _level_threshold(
    confidence: NDArray[np.float64], examples: list[Example], least: NDArray[np.float64]
) -> float:
    """The confidence, beside those that each example needs, from which on another clip's sound is said to be
    in sync seldom enough."""
    level = np.array([example.is_level and not example.at_edge for example in examples])
    others = np.array([example.condition == OTHER for example in examples])
    for lowest in np.arange(_LEAST, 1.0, 0.01):
        accepted = level & (confidence >= np.maximum(least, lowest))
        if not others.any() or accepted[others].mean() <= MAX_FALSE_SYNC:
            return float(round(lowest, 2))
    raise ConfigError("no confidence keeps the share of false answers low enough: train longer")


def _no_match_confidence(confidence: NDArray[np.float64], examples: list[Example], *, most: float) -> float:
    """The confidence below which hardly any long stretch with its own sound lies; at most the threshold."""
    own = [
        sure
        for sure, example in zip(confidence, examples, strict=True)
        if example.error_frames is not None and example.windows >= MIN_NO_MATCH_WINDOWS
    ]
    return round(min(most, float(np.quantile(own, MAX_OWN_NO_MATCH))), 4) if own else 0.0


def _spread(errors_ms: NDArray[np.float64], windows: NDArray[np.float64]) -> tuple[float, float]:
    """Quantile regression of the errors: floor + slope / sqrt(windows) covers 90 % of them."""
    inverse = 1 / np.sqrt(windows)

    def loss(values: NDArray[np.float64]) -> float:
        rest = errors_ms - (values[0] + values[1] * inverse)
        return float(np.mean(np.maximum(COVERED * rest, (COVERED - 1) * rest)))

    start = np.array([float(np.quantile(errors_ms, COVERED)), 0.0])
    best = minimize(loss, start, method="Nelder-Mead", bounds=[(0, None), (0, None)]).x
    return round(float(best[0]), 1), round(float(best[1]), 1)
