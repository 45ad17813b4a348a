"""Augmentation of the sound, in the mel domain: mel float32 [C, T, 80], features in -4..4.

Power adds up and filters multiply it, so most functions work on power (10 ** (dB / 10)) or dB.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from avsync_cli.spec import MEL_BINS, MEL_LIMIT, MEL_RANGE_DB, MEL_STEPS_PER_SECOND
from training.config import AugmentConfig
from training.data.augment import chosen, uniform

DB_PER_UNIT = MEL_RANGE_DB / (2 * MEL_LIMIT)  # 12.5 dB a feature unit
_FLOOR_DB = -MEL_RANGE_DB


def augment_mel(mel: Tensor, config: AugmentConfig, rng: torch.Generator) -> Tensor:
    """All changes of the sound, clip by clip."""
    clips = len(mel)
    levels = to_db(mel)
    levels = stretch_bins(levels, chosen(clips, config.vocal_tract, rng), config.vocal_tract_stretch, rng)
    levels = add_reverb(levels, chosen(clips, config.reverb, rng), rng)
    levels = add_babble(levels, chosen(clips, config.babble, rng), rng)
    levels = add_hiss(levels, chosen(clips, config.hiss, rng), rng)
    levels = limit_band(levels, chosen(clips, config.band, rng), rng)
    levels = levels + uniform((clips, 1, 1), -config.gain_db, config.gain_db, rng)
    levels = mask_bins(levels, chosen(clips, config.bin_masks, rng), rng)
    return from_db(levels)


def to_db(mel: Tensor) -> Tensor:
    """Features -4..4 -> dB -100..0."""
    return (mel - MEL_LIMIT) * DB_PER_UNIT


def from_db(levels: Tensor) -> Tensor:
    return (levels / DB_PER_UNIT + MEL_LIMIT).clamp(-MEL_LIMIT, MEL_LIMIT)


def stretch_bins(levels: Tensor, which: Tensor, most: float, rng: torch.Generator) -> Tensor:
    """Vocal-tract length: stretch the bins by up to `most`, as a larger or smaller speaker."""
    factor = 1 + most * uniform((len(levels), 1), -1, 1, rng) * which.unsqueeze(1)
    place = (torch.arange(MEL_BINS) * factor).clamp(max=MEL_BINS - 1)  # [C, 80]
    below = place.floor().long().clamp(max=MEL_BINS - 2)
    part = (place - below).unsqueeze(1)
    low = levels.gather(2, below.unsqueeze(1).expand_as(levels))
    high = levels.gather(2, (below + 1).unsqueeze(1).expand_as(levels))
    return low + part * (high - low)


def add_reverb(levels: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """A room: each step's power decays into the next ones (60 dB in 0.15 to 0.7 s)."""
    clips, steps, _ = levels.shape
    decay_s = uniform((clips, 1), 0.15, 0.7, rng)
    tail_db = uniform((clips, 1), -20, -6, rng)  # one step's tail against its direct sound
    length = min(steps, 40)
    after = torch.arange(length)
    kernel = 10 ** ((tail_db - 60 * after / (MEL_STEPS_PER_SECOND * decay_s)) / 10)
    kernel[:, 0] = 1.0
    kernel[~which, 1:] = 0.0
    power = F.pad(_power(levels).mT.reshape(1, clips * MEL_BINS, steps), (length - 1, 0))
    weights = kernel.flip(1).repeat_interleave(MEL_BINS, 0).unsqueeze(1)
    wet = F.conv1d(power, weights, groups=clips * MEL_BINS).view(clips, MEL_BINS, steps).mT
    return _levels(wet)


def add_babble(levels: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """The voice of another clip of the batch, 3 to 25 dB below."""
    snr_db = uniform((len(levels),), 3, 25, rng)
    shift = int(torch.randint(levels.shape[1], (), generator=rng))
    return mixed(levels, levels.roll((1, shift), (0, 1)), snr_db, which)


def add_hiss(levels: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Steady noise with a random spectral tilt, 0 to 30 dB below the voice."""
    tilt_db = uniform((len(levels), 1, 1), -40, 20, rng)  # the highest bin against the lowest
    bins = torch.linspace(0, 1, MEL_BINS)
    # The level of Gaussian noise scatters by about 4 dB from one step and bin to the next.
    noise = tilt_db * bins + 4.0 * torch.randn(levels.shape, generator=rng)
    return mixed(levels, noise, uniform((len(levels),), 0, 30, rng), which)


def limit_band(levels: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """A telephone or a small microphone: bins above and below the band fall away."""
    clips = len(levels)
    top = uniform((clips, 1), 48, 90, rng)
    bottom = uniform((clips, 1), -8, 8, rng)
    slope_db = uniform((clips, 1), 2, 12, rng)  # a bin
    bins = torch.arange(MEL_BINS)
    loss = slope_db * ((bins - top).clamp(min=0) + (bottom - bins).clamp(min=0))
    return levels - (loss.clamp(max=60) * which.unsqueeze(1)).unsqueeze(1)


def mask_bins(levels: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Set a band of up to 14 bins to the clip's mean level."""
    width = uniform((len(levels), 1), 2, 14, rng)
    first = uniform((len(levels), 1), 0, 1, rng) * (MEL_BINS - width)
    bins = torch.arange(MEL_BINS)
    masked = (bins >= first) & (bins < first + width) & which.unsqueeze(1)
    return torch.where(masked.unsqueeze(1), levels.mean(dim=(1, 2), keepdim=True), levels)


def mixed(levels: Tensor, other: Tensor, snr_db: Tensor, which: Tensor) -> Tensor:
    """Add the power of `other`, brought to `snr_db` [C] below the clip's mean power."""
    voice, added = _power(levels), _power(other)
    wanted = voice.mean(dim=(1, 2)) * 10 ** (-snr_db / 10) * which
    return _levels(voice + added * (wanted / added.mean(dim=(1, 2)).clamp(min=1e-12)).view(-1, 1, 1))


def _power(levels: Tensor) -> Tensor:
    return 10 ** (levels / 10)


def _levels(power: Tensor) -> Tensor:
    return (10 * power.clamp(min=1e-20).log10()).clamp(min=2 * _FLOOR_DB)
