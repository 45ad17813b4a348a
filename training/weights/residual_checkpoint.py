"""Checkpoints of residual runs: the cross-modal part's weights, their average, the optimiser."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.networks.residual import ResidualNet
from training.residual_recipe import ResidualConfig
from training.weights.files import parse_checkpoint, read_weights_file, write_checkpoint

FORMAT = "avsync-residual-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class ResidualCheckpoint:
    """`step` steps are done; `loss` holds the weights of the relations, `origin` also the hash of the
    matching's weights, without which the residual means nothing."""

    config: ResidualConfig
    step: int
    tokens_width: int
    model: dict[str, Any]
    average: dict[str, Any]
    loss: dict[str, Any]
    optimiser: dict[str, Any]
    origin: dict[str, str]


def save_residual(path: Path, checkpoint: ResidualCheckpoint) -> None:
    """Write a checkpoint whole or not at all."""
    write_checkpoint(path, checkpoint, FORMAT, version=VERSION)


def load_residual(path: Path) -> ResidualCheckpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    return parse_checkpoint(ResidualCheckpoint, read_weights_file(path), path, FORMAT, version=VERSION)


def make_residual(config: ResidualConfig, tokens_width: int) -> ResidualNet:
    """The net that a configuration trains, with its initial weights."""
    return ResidualNet(tokens_width, config.width, config.heads)


def averaged_residual(checkpoint: ResidualCheckpoint) -> ResidualNet:
    """The net with the averaged weights, in evaluation mode; it does not learn."""
    net = make_residual(checkpoint.config, checkpoint.tokens_width)
    net.load_state_dict(checkpoint.average)
    return net.eval().requires_grad_(False)
