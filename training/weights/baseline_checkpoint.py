"""Checkpoints of baselines: `best.pt` holds a network to use, `last.pt` also what a run needs to go on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.baseline_recipe import BaselineConfig
from training.networks.avst import AVST_DIMS, Avst
from training.networks.two_stream import TWO_STREAM_DIMS, TwoStream
from training.weights.files import parse_checkpoint, read_weights_file, write_checkpoint

FORMAT = "avsync-baseline-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class BaselineCheckpoint:
    """`step` steps are done; `rest` (optimiser, best figure) is what a run goes on from."""

    config: BaselineConfig
    step: int
    network: dict[str, Any]
    rest: dict[str, Any]
    origin: dict[str, Any]


def save_baseline(path: Path, checkpoint: BaselineCheckpoint) -> None:
    """Write a checkpoint whole or not at all."""
    write_checkpoint(path, checkpoint, FORMAT, version=VERSION)


def load_baseline(path: Path) -> BaselineCheckpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    return parse_baseline(read_weights_file(path), path)


def parse_baseline(content: Mapping[str, Any], path: Path) -> BaselineCheckpoint:
    """The checkpoint that a file holds. Raises ModelError where it holds another thing."""
    return parse_checkpoint(BaselineCheckpoint, content, path, FORMAT, version=VERSION)


def make_baseline(name: str) -> TwoStream | Avst:
    """A network with its initial weights."""
    return Avst(AVST_DIMS[name]) if name in AVST_DIMS else TwoStream(TWO_STREAM_DIMS[name])


def baseline_net(checkpoint: BaselineCheckpoint) -> TwoStream | Avst:
    """The network of a checkpoint, in evaluation mode."""
    net = make_baseline(checkpoint.config.network)
    net.load_state_dict(checkpoint.network)
    return net.eval()
