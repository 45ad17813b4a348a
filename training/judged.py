"""What `evaluate` can judge by the protocol, and what it says of each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from avsync_cli.spec import FACE_CROP_DEFINITION
from training.baseline_recipe import (
    BaselineCheckpoint,
    baseline_net,
    is_baseline_checkpoint,
    load_baseline,
)
from training.baselines import two_stream_encoders
from training.checkpoint import FORMAT as MATCH_FORMAT
from training.checkpoint import averaged_net, load_checkpoint
from training.compact import CompactNet
from training.networks import PublishedNet, count_parameters, load_exactly, make_network
from training.processes import pick_device
from training.recipe import NetworkConfig
from training.recipe_checkpoint import RecipeCheckpoint, is_recipe_checkpoint, load_recipe_checkpoint
from training.tokens import match_encoders, network_encoders
from training.validate import Encoders, student_encoders
from training.vocalist import read_weights_file


@dataclass(frozen=True)
class Judged:
    """A student's functions, and what the result says of it: `identity`, and for a network its `facts`.

    `takes_grey`: the tool's mouths; `takes_rgb`: faces in colour.
    """

    encoders: Encoders
    identity: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    takes_grey: bool = True
    takes_rgb: bool = False


def open_judged(student: Path | None, *, network: str | None, threads: int) -> Judged:
    """An exported student's folder (None: the bundled one), or a checkpoint.

    That is one of the matching, of a recipe or of a baseline, or a file of the authors' weights of the
    preset `network`. Networks of the last three are put on a GPU where there is one. Raises ConfigError or
    ModelError.
    """
    if student is None or not student.is_file():
        if network is not None:
            raise ConfigError("--network: needs --student with a file of weights")
        loaded = load_student(student, threads=threads)
        takes_rgb = loaded.layout.crop == FACE_CROP_DEFINITION
        identity = {"name": loaded.name, "sha256": loaded.sha256}
        return Judged(student_encoders(loaded), identity, takes_grey=not takes_rgb, takes_rgb=takes_rgb)
    content = read_weights_file(student)
    if is_recipe_checkpoint(content):
        return _of_recipe(load_recipe_checkpoint(student), student, network)
    if is_baseline_checkpoint(content):
        return _of_baseline(load_baseline(student), student, network)
    if content.get("format") == MATCH_FORMAT:
        if network is not None:
            raise ConfigError(f"{student}: holds a student of the matching, not a {network}")
        checkpoint = load_checkpoint(student)
        identity = {"checkpoint": student.name, "step": checkpoint.step, **checkpoint.provenance}
        facts = {"left_out": list(checkpoint.config.data.leave_out)}
        return Judged(match_encoders(averaged_net(checkpoint)), identity, facts)
    if network is None:
        raise ConfigError(f"{student}: not a checkpoint of ours; say with --network whose weights it holds")
    return _of_weights(student, network)


def _of_recipe(checkpoint: RecipeCheckpoint, path: Path, network: str | None) -> Judged:
    recipe = checkpoint.recipe
    if network not in (None, recipe.network.preset):
        raise ConfigError(f"{path}: holds a {recipe.network.preset}, not a {network}")
    net = make_network(recipe.network)
    net.load_state_dict(checkpoint.network)
    facts = {
        "name": recipe.name,
        "experiment": recipe.experiment,
        "label": recipe.label,
        "network": recipe.network.preset,
        "method": recipe.method.name,
        "seed": recipe.seed,
        "parameters": count_parameters(net),
        "steps": checkpoint.step,
        "training": checkpoint.origin,
    }
    return _judge(net, {"checkpoint": path.name, "step": checkpoint.step}, facts)


def _of_baseline(checkpoint: BaselineCheckpoint, path: Path, network: str | None) -> Judged:
    config = checkpoint.config
    if network is not None:
        raise ConfigError(f"{path}: holds a {config.network}, not a {network}")
    net = baseline_net(checkpoint)
    facts = {
        "name": config.name,
        "experiment": config.experiment,
        "label": config.label,
        "network": config.network,
        "method": config.method,
        "seed": config.seed,
        "parameters": count_parameters(net),
        "steps": checkpoint.step,
        "training": checkpoint.origin,
    }
    net = net.to(pick_device("auto")).eval()
    identity = {"checkpoint": path.name, "step": checkpoint.step}
    return Judged(two_stream_encoders(net), identity, facts, takes_rgb=True)


def _of_weights(path: Path, network: str) -> Judged:
    config = NetworkConfig(network)
    net = make_network(config)
    load_exactly(net, path, config)
    facts = {"name": path.stem, "network": network, "parameters": count_parameters(net)}
    return _judge(net, {"weights": path.name}, facts)


def _judge(net: PublishedNet | CompactNet, identity: dict[str, Any], facts: dict[str, Any]) -> Judged:
    net = net.to(pick_device("auto")).eval()
    return Judged(network_encoders(net), identity, facts, takes_rgb=isinstance(net, PublishedNet))
