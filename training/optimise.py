"""Pieces of optimisation that all training shares: rates, groups of weights, and their average."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from training.recipe import RecipeOptimiser

_DECAY = 0.8  # published, of the rate
_DECAY_EVERY = 20.0  # published, epochs
_FINAL_RATE = 0.01  # of the peak, where a cosine ends


def learning_rate(step: int, steps_per_epoch: int, epochs: int, config: RecipeOptimiser) -> float:
    """Rate of a step: linear warm-up, then steps, counted from the end of the warm-up, or a cosine."""
    warm_up = config.warm_up * steps_per_epoch
    if step < warm_up:
        return config.learning_rate * min(1.0, (step + 1) / warm_up)
    if config.schedule == "cosine":
        final = _FINAL_RATE if config.final_rate is None else config.final_rate
        left = max(epochs * steps_per_epoch - warm_up, 1.0)
        return config.learning_rate * cosine((step - warm_up) / left, final=final)
    every = steps_per_epoch * (_DECAY_EVERY if config.decay_every is None else config.decay_every)
    decay = _DECAY if config.decay is None else config.decay
    return config.learning_rate * decay ** math.floor((step - warm_up) / every)


def cosine(done: float, *, final: float) -> float:
    """Half a cosine from 1 down to `final`, `done` from 0 to 1."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def parameter_groups(parameters: Iterable[nn.Parameter], *, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and scales."""
    listed = list(parameters)
    return [
        {"params": [p for p in listed if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in listed if p.ndim < 2], "weight_decay": 0.0},
    ]


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and of the norms' statistics."""
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)
