"""The paper's protocol against a slow loop that follows its words."""

import numpy as np
import pytest

from avsync_cli.offsets import score_offsets
from training.evaluation.protocol import (
    accuracy,
    averaged_scores,
    clip_is_right,
    competing_scores,
    mean_accuracies,
)


def slow_accuracy(video, audio, frames, *, shift):
    """Window by window, candidate by candidate; video and audio embeddings of one clip [V, D], [A, D].

    The sound of video window i is audio window i + shift.
    """
    windows = frames - 4
    right = []
    for start in range(len(video) - windows + 1):
        best, best_score = None, -np.inf
        for offset in range(-15, 16):
            partners = [start + k + offset for k in range(windows)]
            if any(not 0 <= p < len(audio) for p in partners):
                continue  # outside the clip: cannot win
            score = np.mean([video[start + k] @ audio[p] for k, p in enumerate(partners)])
            if score > best_score:
                best, best_score = offset, score
        truth_inside = all(0 <= start + k + shift < len(audio) for k in range(windows))
        if truth_inside:
            right.append(abs(best - shift) <= 1)
    return np.mean(right) if right else None


def dot(video, audio):
    return np.einsum("pd,pd->p", video, audio)


def made_clip(windows, sounds, *, shift, noise, seed):
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((sounds, 8)).astype(np.float32)
    rows = np.clip(np.arange(windows) + shift, 0, sounds - 1)
    video = audio[rows] + noise * rng.standard_normal((windows, 8)).astype(np.float32)
    return video.astype(np.float32), audio


@pytest.mark.parametrize("frames", [5, 7, 11, 15])
@pytest.mark.parametrize(
    ("windows", "sounds", "shift"), [(26, 26, 0), (60, 60, 0), (40, 38, -2), (12, 12, 0), (30, 30, 4)]
)
def test_accuracy_equals_the_slow_loop(frames, windows, sounds, shift):
    video, audio = made_clip(windows, sounds, shift=shift, noise=2.0, seed=frames)
    scores = score_offsets(video, audio, first_tick_video=0, first_tick_audio=0, score=dot)
    # Sound that lies `shift` windows later is an audio lead of -shift.
    found = accuracy(scores, frames, truth_frames=-shift)
    expected = slow_accuracy(video, audio, frames, shift=shift)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_longer_stretches_are_means_of_neighbours_and_miss_what_one_misses():
    scores = np.arange(4 * 31, dtype=np.float32).reshape(4, 31)
    scores[0, 3] = np.nan
    means = averaged_scores(scores, 7)
    assert means.shape == (2, 31)
    assert np.isnan(means[0, 3])
    assert means[1, 3] == pytest.approx(scores[1:4, 3].mean())
    assert averaged_scores(scores, 15).shape == (0, 31)


def test_figures_are_means_over_clips_not_over_windows():
    right, wrong = np.zeros((20, 31), np.float32), np.zeros((5, 31), np.float32)
    right[:, 15], wrong[:, 3] = 1, 1
    figures = mean_accuracies([right, wrong])
    assert figures["5"] == 50
    assert figures["clip"] == 50
    assert figures["15"] == 100  # the short clip has no stretch of 15 frames


def test_a_clip_without_sound_counts_nowhere():
    nothing = np.full((10, 31), np.nan, np.float32)
    assert accuracy(nothing, 5) is None
    assert clip_is_right(nothing) is None
    assert mean_accuracies([nothing]) == {}


@pytest.mark.parametrize(("windows", "sounds"), [(40, 40), (6, 9), (1, 3), (20, 4)])
def test_windows_compete_for_the_sound_as_in_a_slow_loop(windows, sounds):
    video, audio = made_clip(windows, sounds, shift=0, noise=1.0, seed=windows)
    scores = score_offsets(video, audio, first_tick_video=0, first_tick_audio=0, score=dot)
    found = competing_scores(scores)
    assert np.array_equal(np.isfinite(found), np.isfinite(scores))
    for window, column in np.argwhere(np.isfinite(scores)):
        sound = window - (column - 15)
        rivals = [video[each] @ audio[sound] for each in range(windows) if abs(each - sound) <= 15]
        level = np.log(np.mean(np.exp(np.array(rivals, np.float64))))
        assert found[window, column] == pytest.approx(video[window] @ audio[sound] - level, abs=1e-4)


def test_sound_that_resembles_every_mouth_wins_nothing_by_it():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.1, (60, 60)) + 2 * np.eye(60)
    scores[:, 30] += 5.0  # a hub: the nearest of all windows
    near = np.arange(60)[:, None] - (np.arange(31) - 15)
    banded = np.where((near >= 0) & (near < 60), np.take_along_axis(scores, near.clip(0, 59), 1), np.nan)
    assert accuracy(banded.astype(np.float32), 5) < 0.6
    assert accuracy(competing_scores(banded.astype(np.float32)), 5) == 1.0
