"""Pairs changed at random, as a recipe's `augment` says."""

import torch

from avsync_cli.errors import ConfigError
from training.config import AugmentConfig
from training.data.augment import augment_video
from training.data.augment_mel import augment_mel
from training.data.pairs import PairBatch


def augment_pairs(batch: PairBatch, config: AugmentConfig, rng: torch.Generator) -> PairBatch:
    """Change picture, lips and sound of every pair by itself. Raises ConfigError for RGB frames."""
    if batch.frames.ndim != 4:
        raise ConfigError("augment: made for grey frames, the data are RGB")
    frames, lips = augment_video(batch.frames, batch.lips.unflatten(2, (-1, 3)), config, rng)
    mels = augment_mel(batch.mels.mT.contiguous(), config, rng).mT.contiguous()
    whole = frames.round().clamp(0, 255).to(torch.uint8)
    return PairBatch(whole, lips.flatten(2), mels, batch.labels, batch.reach)
