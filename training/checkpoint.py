"""Checkpoints: a run's weights, their average, the optimiser and the configuration, in one file."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avsync_cli.errors import ConfigError, ModelError
from training.config import MatchConfig, as_table, from_table
from training.encoders import MatchNet
from training.token_match import TokenMatchNet, make_match_net
from training.whole_file import whole_file

FORMAT = "avsync-match-checkpoint"
VERSION = 1


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
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": as_table(checkpoint.config),
        "step": checkpoint.step,
        "model": checkpoint.model,
        "average": checkpoint.average,
        "optimiser": checkpoint.optimiser,
        "provenance": checkpoint.provenance,
    }
    write_whole(path, content)


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write a file of weights whole or not at all."""
    with whole_file(path) as unfinished:
        torch.save(content, unfinished)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ModelError(f"{path}: not a checkpoint of this version")
        return Checkpoint(
            from_table(MatchConfig, content["config"], where=str(path)),
            **{key: content[key] for key in ("step", "model", "average", "optimiser", "provenance")},
        )
    except (ModelError, ConfigError):
        raise
    except Exception as error:  # torch.load's errors share no base class
        raise ModelError(f"{path}: not a checkpoint that can be read") from error


def averaged_net(checkpoint: Checkpoint) -> MatchNet | TokenMatchNet:
    """The net with the averaged weights, in evaluation mode."""
    net = make_match_net(checkpoint.config)
    net.load_state_dict(checkpoint.average)
    return net.eval()


def provenance(cache_manifest: Path) -> dict[str, str]:
    """Where a run comes from: the commit of this repository and the hash of its data's manifest."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    data = hashlib.sha256(cache_manifest.read_bytes()).hexdigest()
    return {"commit": commit, "cache_manifest_sha256": data}
