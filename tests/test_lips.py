"""Points of a face that are smoothed over time."""

import numpy as np
import pytest

from avsync_cli.lips import smooth_at, smooth_over_time
from avsync_cli.spec import SMOOTHING_FRAMES


def test_smoothing_at_one_place_is_that_of_all():
    """Crops are cut by the one while a face is followed; the lips of its track are smoothed by the other."""
    rng = np.random.default_rng(0)
    for count in range(1, 2 * SMOOTHING_FRAMES + 2):
        points = (300 * rng.standard_normal((count, 5, 3))).astype(np.float32)
        for place, expected in enumerate(smooth_over_time(points)):
            np.testing.assert_allclose(smooth_at(points, place), expected, rtol=1e-6)


def test_smoothing_keeps_what_is_level_and_weighs_what_is_near_most():
    assert smooth_over_time(np.full((9, 2), 7, np.float32)) == pytest.approx(np.full((9, 2), 7))
    half = SMOOTHING_FRAMES // 2
    spread = smooth_over_time(np.eye(4 * half + 1, dtype=np.float32)[:, 2 * half : 2 * half + 1])[:, 0]
    assert spread.sum() == pytest.approx(1)
    assert np.flatnonzero(spread).tolist() == list(range(half, 3 * half + 1))
    assert spread.argmax() == 2 * half
    assert spread == pytest.approx(spread[::-1])
