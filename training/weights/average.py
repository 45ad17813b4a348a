"""The mean of several students' weights: one student that answers nearly as all of them together would.

They must have grown from one checkpoint (`match --start`), or the mean of their weights means nothing; the
statistics of batch norms are averaged like weights, which holds as long as the runs stay near one another.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from avsync_cli.contract import read_contract
from avsync_cli.errors import ConfigError
from training.weights.match_checkpoint import Checkpoint, load_checkpoint, same_weights
from training.whole_file import write_contract


def average_checkpoints(paths: list[Path]) -> Checkpoint:
    """A checkpoint whose weights are the mean of the averaged weights of others of the matching.

    Its configuration is the first one's, and it has no optimiser, so it can be started from but not resumed.
    An unfolded checkpoint (see `unfold`) knows no cache and goes with any.
    Raises ConfigError where they are of different networks, ModelError where one cannot be read.
    """
    checkpoints = [load_checkpoint(path) for path in paths]
    first = checkpoints[0]
    for path, other in zip(paths, checkpoints, strict=True):
        if not same_weights(other.config, first.config):
            raise ConfigError(f"{path}: of another network than {paths[0]}, or of other sizes")
        if "" not in (_cache_of(other), _cache_of(first)) and _cache_of(other) != _cache_of(first):
            raise ConfigError(f"{path}: made with another cache than {paths[0]}")
    weights = {key: _mean([c.average[key] for c in checkpoints]) for key in first.average}
    origin = {
        f"averaged_{number}": f"{hashlib.sha256(path.read_bytes()).hexdigest()}, seed {member.config.seed}, "
        f"{member.step} of {member.config.steps} steps"
        for number, (path, member) in enumerate(zip(paths, checkpoints, strict=True), start=1)
    }
    unseen = set.intersection(*(set(member.config.data.leave_out) for member in checkpoints))
    data = replace(first.config.data, leave_out=tuple(sorted(unseen)))
    return replace(
        first,
        config=replace(first.config, data=data),
        model=weights,
        average=weights,
        optimiser={},
        provenance=first.provenance | origin,
    )


def name_start(folder: Path, checkpoint: Path) -> None:
    """Let a student's `model.json` name the checkpoint that others can start from by its SHA-256.

    Raises ModelError where there is no student.
    """
    declared, _ = read_contract(folder)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    write_contract(folder, declared | {"start_sha256": digest})


def _cache_of(checkpoint: Checkpoint) -> str:
    return checkpoint.provenance["cache_manifest_sha256"]


def _mean(values: list[Tensor]) -> Tensor:
    """Counters are the first one's."""
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)
