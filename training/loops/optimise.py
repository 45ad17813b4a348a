"""Pieces of optimisation that all training shares: rates, groups of weights, and their average."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from avsync_cli.errors import ConfigError
from training.config import OptimiserConfig
from training.recipe import RecipeOptimiser

_DECAY = 0.8  # published, of the rate
_DECAY_EVERY = 20.0  # published, epochs
_FINAL_RATE = 0.01  # of the peak, where a cosine ends


def rate_by_epochs(step: int, steps_per_epoch: int, epochs: int, config: RecipeOptimiser) -> float:
    """Rate of a step of a recipe: linear warm-up, then a cosine or steps, counted from the warm-up's end."""
    warm_up = config.warm_up * steps_per_epoch
    if step < warm_up:
        if config.warm_up_by == "epoch":
            return config.learning_rate * min(1.0, (step // steps_per_epoch + 1) / config.warm_up)
        return config.learning_rate * min(1.0, (step + 1) / warm_up)
    if config.schedule == "cosine":
        final = _FINAL_RATE if config.final_rate is None else config.final_rate
        left = max(epochs * steps_per_epoch - warm_up, 1.0)
        return config.learning_rate * cosine((step - warm_up) / left, final=final)
    every = steps_per_epoch * (_DECAY_EVERY if config.decay_every is None else config.decay_every)
    decay = _DECAY if config.decay is None else config.decay
    return config.learning_rate * decay ** math.floor((step - warm_up) / every)


def rate_by_steps(step: int, steps: int, config: OptimiserConfig) -> float:
    """Rate of a step of the matching: linear warm-up, then a cosine down to `final_rate` of the peak."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    done = (step - config.warm_up) / max(1, steps - config.warm_up)
    return config.learning_rate * cosine(done, final=config.final_rate)


def seed_step(seed: int, step: int) -> torch.Generator:
    """What a step of the matching draws from; dropout draws from torch's own generator, seeded too."""
    seed = seed * 1_000_003 + step
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def clip_gradient(parameters: Iterable[nn.Parameter], clip_norm: float | None, *, step: int) -> float:
    """Scale the gradient down to `clip_norm`, if there is one; returns its norm before.

    Raises ConfigError where it is not finite.
    """
    norm = float(nn.utils.clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm))
    if not math.isfinite(norm):
        raise ConfigError(
            f"step {step}: the gradient is not finite; lower the learning rate or set clip_norm"
        )
    return norm


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


def descend(
    loss: torch.Tensor,
    learned: Iterable[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    *,
    clip_norm: float | None,
    step: int,
) -> float:
    """One update of what is `learned`; returns the gradient's norm. Raises ConfigError as `clip_gradient`."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = clip_gradient(learned, clip_norm, step=step)
    optimiser.step()
    return norm


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, *, ema: float, step: int) -> None:
    """Exponential moving average of weights and of the norms' statistics, shorter in the first steps."""
    keep = min(ema, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)
