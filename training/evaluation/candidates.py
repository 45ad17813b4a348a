"""What `evaluate` can judge by the protocol, and what it says of each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from avsync_cli.spec import FACE_CROP_DEFINITION
from training.evaluation.score_clips import Encoders, student_encoders
from training.evaluation.torch_encoders import baseline_encoders, match_encoders, network_encoders
from training.networks.compact import CompactNet
from training.networks.presets import PublishedNet, count_parameters, make_network
from training.processes import pick_device
from training.recipe import NetworkConfig
from training.weights.baseline_checkpoint import BaselineCheckpoint, baseline_net
from training.weights.identify import open_weights
from training.weights.loading import load_exactly
from training.weights.match_checkpoint import Checkpoint, averaged_net
from training.weights.recipe_checkpoint import RecipeCheckpoint


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
    held = open_weights(student)
    match held:
        case RecipeCheckpoint():
            return _of_recipe(held, student, network)
        case BaselineCheckpoint():
            return _of_baseline(held, student, network)
        case Checkpoint():
            return _of_matching(held, student, network)
    if network is None:
        raise ConfigError(f"{student}: not a checkpoint of ours; say with --network whose weights it holds")
    return _of_weights(student, network)


def _of_matching(checkpoint: Checkpoint, path: Path, network: str | None) -> Judged:
    if network is not None:
        raise ConfigError(f"{path}: holds a student of the matching, not a {network}")
    identity: dict[str, Any] = {"checkpoint": path.name, "step": checkpoint.step, **checkpoint.provenance}
    facts: dict[str, Any] = {"left_out": list(checkpoint.config.data.leave_out)}
    return Judged(match_encoders(averaged_net(checkpoint)), identity, facts)


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
    return Judged(baseline_encoders(net), identity, facts, takes_rgb=True)


def _of_weights(path: Path, network: str) -> Judged:
    config = NetworkConfig(network)
    net = make_network(config)
    load_exactly(net, path, config)
    facts = {"name": path.stem, "network": network, "parameters": count_parameters(net)}
    return _judge(net, {"weights": path.name}, facts)


def _judge(net: PublishedNet | CompactNet, identity: dict[str, Any], facts: dict[str, Any]) -> Judged:
    net = net.to(pick_device("auto")).eval()
    return Judged(network_encoders(net), identity, facts, takes_rgb=isinstance(net, PublishedNet))
