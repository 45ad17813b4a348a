"""What there is to export: a trained network, the crops it takes, and where it comes from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avsync_cli.errors import ConfigError
from avsync_cli.spec import CROP_DEFINITION, FACE_CROP_DEFINITION
from export.graphs import AnyNet
from training.config import as_table
from training.data.cache import GREY, sha256_of
from training.networks.avst import AVST_DIMS, Avst
from training.networks.presets import PublishedNet, make_network
from training.recipe import NetworkConfig, Pixels
from training.weights.baseline_checkpoint import BaselineCheckpoint, baseline_net
from training.weights.identify import BareWeights, open_weights
from training.weights.loading import load_exactly
from training.weights.match_checkpoint import Checkpoint, averaged_net
from training.weights.recipe_checkpoint import RecipeCheckpoint

CropName = Literal["mouth", "face"]
CROP_NAMES: dict[CropName, str] = {"mouth": CROP_DEFINITION, "face": FACE_CROP_DEFINITION}


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, the definition of its crops, and what is known of its origin."""

    net: AnyNet
    crop: str
    origin: dict[str, Any]


def open_trained(
    path: Path, *, network: str | None = None, pixels: Pixels | None = None, crop: CropName | None = None
) -> Trained:
    """A checkpoint of the matching or of a recipe, or a file of weights of the preset `network`.

    `pixels` and `crop` belong to the published networks: how they want their frames, where the file holds
    weights alone, and what the frames show, where the file does not say. Raises ConfigError or ModelError.
    """
    held = open_weights(path)
    if isinstance(held, BaselineCheckpoint) and held.config.network not in AVST_DIMS:
        raise ConfigError(f"{path}: holds a two-stream baseline, which is for comparison, not to be exported")
    if not isinstance(held, BareWeights):
        if (network, pixels) != (None, None):
            raise ConfigError(f"{path}: says itself which network it holds; leave out --network and --pixels")
        if isinstance(held, RecipeCheckpoint):
            return _of_recipe(held, path, crop)
        if isinstance(held, BaselineCheckpoint):
            return _of_avst(held, path, crop)
        return _of_matching(held, path, crop)
    if network is None:
        raise ConfigError(f"{path}: not a checkpoint of ours; say with --network whose weights it holds")
    config = NetworkConfig(network, pixels=pixels)
    net = make_network(config)
    load_exactly(net, path, config)
    origin = {"network": network, "weights": path.name, "sha256": sha256_of(path)}
    if isinstance(net, PublishedNet):
        origin["pixels"] = net.pixels
    return Trained(net.eval(), _crop_of(net, crop or "face", path), origin)


def _of_matching(checkpoint: Checkpoint, path: Path, crop: CropName | None) -> Trained:
    net = averaged_net(checkpoint)
    origin = {"config": as_table(checkpoint.config), "steps_done": checkpoint.step, **checkpoint.provenance}
    return Trained(net, _crop_of(net, crop, path), origin)


def _of_avst(checkpoint: BaselineCheckpoint, path: Path, crop: CropName | None) -> Trained:
    net = baseline_net(checkpoint)
    assert isinstance(net, Avst)
    crop = _trained_on(checkpoint.origin, path, crop)
    origin = {"config": as_table(checkpoint.config), "steps_done": checkpoint.step, **checkpoint.origin}
    return Trained(net, _crop_of(net, crop, path), origin)


def _trained_on(origin: dict[str, Any], path: Path, crop: CropName | None) -> CropName | None:
    """The crops that a checkpoint says it was trained on, or those that are given for one that does not."""
    kind = origin.get("crop")  # older checkpoints do not say
    if kind is None:
        return crop
    if crop is not None:
        raise ConfigError(f"{path}: says itself which crops it was trained on; leave out --crop")
    return "mouth" if kind == GREY else "face"


def _of_recipe(checkpoint: RecipeCheckpoint, path: Path, crop: CropName | None) -> Trained:
    net = make_network(checkpoint.recipe.network)
    net.load_state_dict(checkpoint.network)
    crop = _trained_on(checkpoint.origin, path, crop)
    origin = {"recipe": as_table(checkpoint.recipe), "steps_done": checkpoint.step, **checkpoint.origin}
    return Trained(net.eval(), _crop_of(net, crop, path), origin)


def _crop_of(net: AnyNet, crop: CropName | None, path: Path) -> str:
    if isinstance(net, PublishedNet | Avst):
        if crop is None:
            raise ConfigError(f"{path}: say with --crop whether it was trained on mouths or on faces")
        return CROP_NAMES[crop]
    if crop == "face":
        raise ConfigError(f"{path}: its network takes mouths, not faces")
    return CROP_DEFINITION
