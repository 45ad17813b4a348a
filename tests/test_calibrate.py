"""The calibration against made-up curves whose truth is known."""

import json

import numpy as np
import pytest
from students import write_student

from avsync_cli.confidence import Calibration
from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from training.evaluation.calibrate import (
    MAX_FALSE_SYNC,
    MAX_WRONG_PEAKS,
    MISMATCHED_PRIOR,
    expected_calibration_error,
    fit,
    held_out_coverage,
    prior_weights,
    write_calibration,
)
from training.evaluation.calibration_examples import MUSIC, OTHER, Example


def made_up_examples(count: int, seed: int = 0) -> list[Example]:
    """Margins decide: right with probability sigmoid(8 * margin - 3), errors of +-30 ms when right."""
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        margin, windows = rng.uniform(0, 2), int(rng.integers(20, 200))
        is_right = rng.random() < 1 / (1 + np.exp(-(8 * margin - 3)))
        error = rng.uniform(-0.75, 0.75) if is_right else rng.uniform(2, 9)
        features = np.array([1.0, rng.uniform(0, 3), margin, np.log(windows), 0.0])
        examples.append(Example(number, features, windows, error, float(error), at_edge=False))
    return examples


def confidence_of(calibration: Calibration, examples: list[Example]) -> np.ndarray:
    features = np.stack([example.features for example in examples])
    return 1 / (1 + np.exp(-features @ np.array(calibration.weights)))


def test_confidence_is_the_share_that_is_right_on_examples_not_fitted():
    calibration = fit(made_up_examples(4000))
    unseen = made_up_examples(4000, seed=1)
    right = np.array([example.is_right for example in unseen], float)
    assert expected_calibration_error(confidence_of(calibration, unseen), right, np.ones(4000)) < 0.03


def test_few_of_the_accepted_are_wrong_and_the_spread_covers_them():
    calibration = fit(made_up_examples(4000))
    unseen = made_up_examples(4000, seed=1)
    accepted = [
        example
        for example, sure in zip(unseen, confidence_of(calibration, unseen), strict=True)
        if sure >= calibration.least_confidence(example.windows)
    ]
    assert len(accepted) > 1000
    assert np.mean([example.is_wrong_peak for example in accepted]) < MAX_WRONG_PEAKS + 0.01
    floor, slope = calibration.spread_ms
    covered = [abs(e.error_frames) * 40 <= floor + slope / np.sqrt(e.windows) for e in accepted]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


def test_coverage_is_judged_on_clips_that_the_spread_was_not_fitted_to():
    rng = np.random.default_rng(0)
    alike = [
        Example(n, np.ones(5), 50, 0.0, float(rng.uniform(-0.5, 0.5)), at_edge=False) for n in range(1000)
    ]
    sure = np.ones(1000)
    assert held_out_coverage(alike, sure, 0.5) == pytest.approx(0.9, abs=0.02)
    # Those of one fold are further out than all others: a spread fitted without them covers none of them.
    apart = [
        Example(e.clip, e.features, 50, 0.0, 2.0 if e.clip % 5 == 0 else e.error_frames, at_edge=False)
        for e in alike
    ]
    assert held_out_coverage(apart, sure, 0.5) < 0.81
    # What is not accepted, or has no truth, does not count.
    doubtful = np.where([e.clip % 5 == 0 for e in apart], 0.1, 1.0)
    assert held_out_coverage(apart, doubtful, 0.5) == pytest.approx(0.9, abs=0.02)


def test_coverage_gives_short_stretches_more():
    """One fold has short stretches alone, which are rare in the others and scatter ten times as much."""
    rng = np.random.default_rng(0)
    examples = []
    for n in range(1000):
        windows = 10 if n % 5 == 0 or n % 10 == 1 else 1000
        error = float(rng.uniform(-0.5, 0.5)) * (10 / windows) ** 0.5
        examples.append(Example(n, np.ones(5), windows, 0.0, error, at_edge=False))
    assert held_out_coverage(examples, np.ones(1000), 0.5) == pytest.approx(0.9, abs=0.03)


def test_threshold_does_not_trust_a_fit_to_the_same_clips():
    """Each clip has a feature of its own, by which a fit knows again the one whose peaks are all wrong."""
    examples = [
        Example(clip, np.append(np.eye(5)[clip], 1.0), 50, 0.0, 9.0 if clip == 4 else 0.0, at_edge=False)
        for clip in range(5)
        for _ in range(20)
    ]
    with pytest.raises(ConfigError, match="no confidence keeps"):
        fit(examples)


def test_nothing_to_calibrate_on_is_refused():
    mismatched = [Example(n, np.ones(5), 50, 0.0, None, at_edge=False) for n in range(20)]
    for examples in ([], mismatched):
        with pytest.raises(ConfigError, match="no example"):
            fit(examples)
    assert np.isnan(held_out_coverage(mismatched, np.ones(20), 0.5))


def test_mismatched_sound_is_never_right():
    example = Example(0, np.zeros(5), 50, 0.0, None, at_edge=False)
    assert not example.is_right
    assert example.is_wrong_peak


def test_mismatched_sound_counts_for_its_prior():
    errors = [None if k < 40 else 0.0 for k in range(100)]
    examples = [Example(k, np.zeros(5), 50, 0.0, error, at_edge=False) for k, error in enumerate(errors)]
    counts = prior_weights(examples)
    assert counts[:40].sum() / counts.sum() == pytest.approx(MISMATCHED_PRIOR)


def test_mismatched_sound_is_seldom_said_to_be_in_sync():
    """Examples without an offset that are as sure as the others raise the threshold until few are left."""
    rng = np.random.default_rng(0)
    examples = made_up_examples(4000)
    for number in range(400):
        features = np.array([1.0, rng.uniform(0, 3), rng.beta(1, 3), np.log(50), 0.0])
        examples.append(Example(number, features, 50, 0.0, None, at_edge=False, condition=OTHER))
    calibration = fit(examples)
    assert calibration.least_confidence(50) > fit(examples[:4000]).least_confidence(50)
    sure = confidence_of(calibration, examples[4000:]) >= calibration.least_confidence(50)
    assert 0 < sure.mean() <= MAX_FALSE_SYNC
    # Music that is never taken for speech makes no room for more of other voices.
    music = [
        Example(n, np.array([1.0, 0.0, 0.0, np.log(50), 0.0]), 50, 0.0, None, at_edge=False, condition=MUSIC)
        for n in range(2000)
    ]
    with_music = fit([*examples, *music])
    sure = confidence_of(with_music, examples[4000:]) >= with_music.least_confidence(50)
    assert 0 < sure.mean() <= MAX_FALSE_SYNC + 0.005


def test_noise_cannot_be_calibrated():
    rng = np.random.default_rng(0)
    noise = [
        Example(0, np.array([1, *rng.uniform(size=4)]), 50, 0.0, float(error), at_edge=False)
        for error in rng.uniform(-15, 15, 500)
    ]
    with pytest.raises(ConfigError, match="no confidence"):
        fit(noise)


def test_calibration_error_of_a_known_case():
    confidence = np.array([0.95] * 10 + [0.15] * 10)
    right = np.array([1.0] * 9 + [0.0] + [0.0] * 10)
    assert expected_calibration_error(confidence, right, np.ones(20)) == pytest.approx(
        0.5 * 0.05 + 0.5 * 0.15
    )


def test_a_calibration_is_written_into_the_artefact_and_read_back(tmp_path):
    folder = write_student(tmp_path / "student", calibration=None)
    calibration = Calibration((-1.0, 0.5, 2.0, 0.1, 1.0, 0.5), 0.7, (30.0, 120.0))
    write_calibration(folder, calibration)
    assert load_student(folder).calibration == calibration
    assert json.loads((folder / "model.json").read_text())["name"] == "lips-and-loudness"
    assert sorted(path.name for path in folder.iterdir()) == [
        "audio.onnx", "model.json", "pair.onnx", "video.onnx"
    ]  # fmt: skip
