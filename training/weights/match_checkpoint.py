"""Checkpoints of the matching: a run's weights, their average, the optimiser and the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avsync_cli.errors import ModelError
from training.config import MatchConfig
from training.networks.token_match import TokenMatchNet, make_match_net
from training.networks.window_match import MatchNet
from training.weights.files import parse_checkpoint, read_weights_file, write_checkpoint

FORMAT = "avsync-match-checkpoint"
VERSION = 1
BUNDLED = Path(__file__).parents[1] / "student.pt"  # the bundled student's weights in half precision


@dataclass(frozen=True)
class Checkpoint:
    """`step` steps are done; `provenance` holds the commit and the hash of the cache's manifest."""

    config: MatchConfig
    step: int
    model: dict[str, Any]
    average: dict[str, Any]
    optimiser: dict[str, Any]
    provenance: dict[str, str]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all."""
    write_checkpoint(path, checkpoint, FORMAT, version=VERSION)


def halved(checkpoint: Checkpoint) -> Checkpoint:
    """The averaged weights alone in half precision: to start from, at a quarter of the size or less.

    Counters and what half precision cannot hold stay as they are.
    """

    def half(value: Tensor) -> Tensor:
        fits = value.is_floating_point() and bool(torch.isfinite(value.half()).all())
        return value.half() if fits else value

    average = {key: half(value) for key, value in checkpoint.average.items()}
    return replace(checkpoint, model={}, average=average, optimiser={})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    return parse_match_checkpoint(read_weights_file(path), path)


def parse_match_checkpoint(content: Mapping[str, Any], path: Path) -> Checkpoint:
    """The checkpoint that a file holds. Raises ModelError where it holds another thing."""
    held = parse_checkpoint(Checkpoint, content, path, FORMAT, version=VERSION)
    try:
        average = {
            key: value.float() if value.is_floating_point() else value for key, value in held.average.items()
        }
    except AttributeError as error:
        raise ModelError(f"{path}: not a checkpoint that can be read") from error
    return replace(held, model=held.model or average, average=average)


def load_start(start: Path) -> Checkpoint:
    """The checkpoint to start from: a file, or the word "bundled" for the student that the tool runs.

    Raises ModelError as `load_checkpoint`.
    """
    return load_checkpoint(BUNDLED if start == Path("bundled") else start)


def averaged_net(checkpoint: Checkpoint) -> MatchNet | TokenMatchNet:
    """The net with the averaged weights, in evaluation mode."""
    net = make_match_net(checkpoint.config)
    net.load_state_dict(checkpoint.average)
    return net.eval()


def same_weights(one: MatchConfig, other: MatchConfig) -> bool:
    """Whether the weights of one fit the other: the chance to drop has none, and gates scale theirs."""
    models = [replace(config.model, dropout=0.0) for config in (one, other)]
    return one.network == other.network and models[0] == models[1]
