"""Cuts at known places, among motion, noise, flicker and darkness."""

import cv2
import numpy as np
import pytest

from avsync_cli.shots import CutFinder


def scene(seed: int, *, light: float = 1.0) -> np.ndarray:
    """Blurred blobs on a grey ground, 320 x 180: something with structure at the size of people."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 235, (5, 8)).astype(np.float32)
    return cv2.resize(coarse, (320, 180), interpolation=cv2.INTER_CUBIC).clip(0, 255) * light


def find_cuts(pictures: list[np.ndarray]) -> list[int]:
    finder = CutFinder()
    grey = [picture.clip(0, 255).astype(np.uint8) for picture in pictures]
    return [k for k, each in enumerate(grey) if finder.is_cut(np.repeat(each[:, :, None], 3, axis=2))]


@pytest.mark.parametrize("light", [1.0, 0.35, 0.2])
def test_cuts_are_found_by_day_and_by_night(light):
    lengths = (30, 12, 25, 7, 40)
    pictures = [scene(seed, light=light) for seed, length in enumerate(lengths) for _ in range(length)]
    assert find_cuts(pictures) == np.cumsum(lengths)[:-1].tolist()


def test_a_cut_between_moving_shots_is_found_and_the_motion_is_none():
    rng = np.random.default_rng(0)
    pans = [np.roll(scene(seed), 3 * step, axis=1) for seed in (1, 2) for step in range(40)]
    noisy = [picture + rng.normal(0, 12, picture.shape) for picture in pans]
    assert find_cuts(noisy) == [40]


def test_a_fade_and_a_slow_change_of_light_are_no_cuts():
    fade = [scene(1) * (1 - k / 50) + scene(2) * k / 50 for k in range(51)]
    breathing = [scene(3) * (0.8 + 0.2 * np.cos(k / 8)) for k in range(100)]
    assert find_cuts(fade) == find_cuts(breathing) == []


def test_the_first_picture_is_no_cut():
    assert find_cuts([scene(0)]) == []
