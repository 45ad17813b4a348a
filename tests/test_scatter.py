"""The scatter of clips whose offsets and noise are known."""

import numpy as np
import pytest

from training.evaluation.scatter import measure_scatter


@pytest.mark.parametrize(("own", "noise"), [(0.7, 0.1), (0.3, 0.3), (0.0, 0.3)])
def test_the_clips_own_scatter_is_told_from_noise(own, noise):
    """Each window's parabola is moved by its clip's offset and by noise of its own."""
    rng = np.random.default_rng(0)
    places = np.arange(-15, 16)
    leads = own * rng.standard_normal((600, 1, 1)) + noise * np.sqrt(13) * rng.standard_normal((600, 30, 1))
    found = measure_scatter(list((-((places - leads) ** 2)).astype(np.float32)))
    assert found.own_deviation_frames == pytest.approx(own, abs=0.1)
    assert found.median_frames == pytest.approx(0, abs=0.1)
