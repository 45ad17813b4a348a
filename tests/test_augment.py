"""Augmentation: each function does what its name says, and nothing where it is not chosen."""

import pytest
import torch

from avsync_cli.lips import LIP_MIRROR
from training.config import AugmentConfig
from training.data import augment, augment_mel

ALL, NONE = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
FIRST = torch.tensor([True, False, False])


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def crops():
    """Smooth pictures with one bright spot, so that movement can be seen."""
    down, right = torch.arange(48).view(-1, 1), torch.arange(96)
    spot = torch.exp(-((down - 24) ** 2 + (right - 30) ** 2) / 50.0)
    return (60 + 150 * spot).expand(3, 6, 48, 96).clone()


@pytest.fixture
def mel(rng):
    return torch.rand(3, 50, 80, generator=rng) * 5 - 3


PICTURES = [
    augment.change_light,
    augment.lower_resolution,
    augment.blur,
    augment.add_noise,
    augment.erase,
    lambda crops, which, rng: augment.move(crops, which, AugmentConfig(), rng),
]


@pytest.mark.parametrize("change", PICTURES)
def test_pictures_change_only_where_chosen(change, crops, rng):
    changed = change(crops, FIRST, rng)
    assert changed.shape == crops.shape
    assert torch.isfinite(changed).all()
    assert (changed[0] - crops[0]).abs().max() > 1
    assert (changed[1:] - crops[1:]).abs().max() < 0.05


def test_mirroring_twice_is_nothing_and_moves_partners(crops, rng):
    lips = torch.randn(3, 6, 40, 3, generator=rng)
    once = augment.flip(crops, lips, ALL)
    twice = augment.flip(*once, ALL)
    assert torch.equal(twice[0], crops)
    assert torch.equal(twice[1], lips)
    assert float(once[1][0, 0, 4, 0]) == -float(lips[0, 0, int(LIP_MIRROR[4]), 0])
    assert float(once[1][0, 0, 4, 1]) == float(lips[0, 0, int(LIP_MIRROR[4]), 1])
    assert int(once[0][0, 0, 24].argmax()) == 95 - 30


def test_moving_keeps_shapes_round_and_the_spot_near(crops, rng):
    config = AugmentConfig(shift=0.0, zoom=0.0, rotate_degrees=90.0, jitter=0.0)
    centred = crops.roll(18, -1)  # the spot in the middle, where turning keeps it
    turned = augment.move(centred, ALL, config, rng)
    inner = (slice(None), slice(None), slice(14, 34), slice(38, 58))
    assert (turned[inner] - centred[inner]).abs().max() < 25  # half a pixel off the exact centre
    moved = augment.move(crops, ALL, AugmentConfig(), rng)
    places = moved.flatten(2).argmax(2)
    assert ((places % 96 - 30).abs() <= 12).all()
    assert ((places // 96 - 24).abs() <= 9).all()


def test_lips_vary_a_little_and_lose_their_mean(rng):
    lips = torch.randn(3, 6, 40, 3, generator=rng) + 2
    assert augment.centre(lips, ALL).mean(1).abs().max() < 1e-5
    assert torch.equal(augment.centre(lips, NONE), lips)
    varied = augment.vary_lips(lips, zoom=0.15, noise=0.0, rng=rng)
    assert ((varied / lips - 1).abs() <= 0.1501).all()


def test_crops_or_lips_are_dropped_but_never_both(rng):
    crops, lips = torch.ones(400, 1, 2, 2), torch.ones(400, 1, 40, 3)
    no_crops, no_lips = augment.drop_one(crops, lips, crops_chance=0.3, lips_chance=0.2, rng=rng)
    lost_crops, lost_lips = (no_crops != 1).flatten(1).all(1), (no_lips == 0).flatten(1).all(1)
    assert not (lost_crops & lost_lips).any()
    assert 0.2 < lost_crops.float().mean() < 0.4
    assert 0.1 < lost_lips.float().mean() < 0.3


def test_decibels_and_features_are_inverse(mel):
    assert torch.allclose(augment_mel.from_db(augment_mel.to_db(mel)), mel, atol=1e-5)
    assert float(augment_mel.to_db(torch.tensor(4.0))) == 0
    assert float(augment_mel.to_db(torch.tensor(-4.0))) == -100


SOUNDS = [
    augment_mel.add_reverb,
    augment_mel.add_babble,
    augment_mel.add_hiss,
    augment_mel.limit_band,
    augment_mel.mask_bins,
    lambda levels, which, rng: augment_mel.stretch_bins(levels, which, 0.1, rng),
]


@pytest.mark.parametrize("change", SOUNDS)
def test_sounds_change_only_where_chosen(change, mel, rng):
    levels = augment_mel.to_db(mel)
    changed = change(levels, FIRST, rng)
    assert changed.shape == levels.shape
    assert torch.isfinite(changed).all()
    assert (changed[0] - levels[0]).abs().max() > 0.1
    assert (changed[1:] - levels[1:]).abs().max() < 1e-3


def test_reverb_only_looks_back(rng):
    levels = torch.full((3, 50, 80), -90.0)
    levels[:, 20] = -20.0
    wet = augment_mel.add_reverb(levels, ALL, rng)
    assert torch.allclose(wet[:, :20], levels[:, :20], atol=1.0)
    assert (wet[:, 21] > -60).all()


def test_hiss_reaches_its_ratio(rng):
    levels = torch.full((3, 50, 80), -30.0)
    noisy = augment_mel.add_hiss(levels, ALL, rng)
    gain = (10 ** (noisy / 10)).mean(dim=(1, 2)) / 1e-3
    assert ((gain > 1.0) & (gain < 2.01)).all()  # noise 0 to 30 dB below the voice


def test_everything_together_is_deterministic_and_in_range(crops, mel, rng):
    lips = torch.randn(3, 6, 40, 3, generator=rng)
    config = AugmentConfig()

    def run(seed):
        own = torch.Generator().manual_seed(seed)
        pictures, points = augment.augment_video(crops.to(torch.uint8), lips, config, own)
        return pictures, points, augment_mel.augment_mel(mel, config, own)

    first, again, other = run(1), run(1), run(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[2].abs().max() <= 4
