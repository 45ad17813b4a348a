"""The mean of several students' weights: one student that answers nearly as all of them together would.

They must have grown from one checkpoint (`match --start`), or the mean of their weights means nothing.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from avsync_cli.errors import ConfigError
from training.checkpoint import Checkpoint, load_checkpoint
from training.config import MatchConfig


def average_checkpoints(paths: list[Path]) -> Checkpoint:
    """A checkpoint whose weights are the mean of the averaged weights of others of the matching.

    Its configuration is the first one's, and it has no optimiser, so it can be started from but not resumed.
    Raises ConfigError where they are of different networks, ModelError where one cannot be read.
    """
    if len(paths) < 2:
        raise ConfigError("average: needs two checkpoints or more")
    checkpoints = [load_checkpoint(path) for path in paths]
    first = checkpoints[0]
    for path, other in zip(paths, checkpoints, strict=True):
        if _network(other.config) != _network(first.config):
            raise ConfigError(f"{path}: of another network than {paths[0]}, or of other sizes")
    weights = {key: _mean([c.average[key] for c in checkpoints]) for key in first.average}
    origin = {
        f"averaged_{number}": hashlib.sha256(path.read_bytes()).hexdigest()
        for number, path in enumerate(paths, start=1)
    }
    return replace(first, model=weights, average=weights, optimiser={}, provenance=first.provenance | origin)


def _network(config: MatchConfig) -> tuple[str, object]:
    """What must agree; the chance to drop has no weights."""
    return config.network, replace(config.model, dropout=0.0)


def _mean(values: list[Tensor]) -> Tensor:
    """Counters are the first one's."""
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)
