"""Augmentation of a batch of sections: pictures and lips, then mels."""

from dataclasses import replace

import torch

from training.config import AugmentConfig
from training.data.augment import augment_video
from training.data.augment_mel import augment_mel
from training.data.clips import Batch


def augment_batch(batch: Batch, config: AugmentConfig, rng: torch.Generator) -> Batch:
    """The batch, with crops and mels as floats."""
    crops, lips = augment_video(batch.crops, batch.lips, config, rng)
    return replace(batch, crops=crops, lips=lips, mel=augment_mel(batch.mel, config, rng))
