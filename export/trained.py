"""What there is to export: a trained network, the crops it takes, and where it comes from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avsync_cli.errors import ConfigError
from avsync_cli.spec import CROP_DEFINITION, FACE_CROP_DEFINITION
from export.graphs import AnyNet
from training.baseline_recipe import is_baseline_checkpoint
from training.cache import GREY, sha256_of
from training.checkpoint import FORMAT as MATCH_FORMAT
from training.checkpoint import averaged_net, load_checkpoint
from training.config import as_table
from training.networks import PublishedNet, load_exactly, make_network
from training.recipe import NetworkConfig, Pixels
from training.recipe_checkpoint import is_recipe_checkpoint, load_recipe_checkpoint
from training.vocalist import read_weights_file

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
    content = read_weights_file(path)
    is_ours = is_recipe_checkpoint(content) or content.get("format") == MATCH_FORMAT
    if is_baseline_checkpoint(content):
        raise ConfigError(f"{path}: holds a baseline, which is for comparison and cannot be exported")
    if is_ours and (network, pixels) != (None, None):
        raise ConfigError(f"{path}: says itself which network it holds; leave out --network and --pixels")
    if content.get("format") == MATCH_FORMAT:
        return _of_matching(path, crop)
    if is_recipe_checkpoint(content):
        return _of_recipe(path, crop)
    if network is None:
        raise ConfigError(f"{path}: not a checkpoint of ours; say with --network whose weights it holds")
    config = NetworkConfig(network, pixels=pixels)
    net = make_network(config)
    load_exactly(net, path, config)
    origin = {"network": network, "weights": path.name, "sha256": sha256_of(path)}
    if isinstance(net, PublishedNet):
        origin["pixels"] = net.pixels
    return Trained(net.eval(), _crop_of(net, crop or "face", path), origin)


def _of_matching(path: Path, crop: CropName | None) -> Trained:
    checkpoint = load_checkpoint(path)
    net = averaged_net(checkpoint)
    origin = {"config": as_table(checkpoint.config), "steps_done": checkpoint.step, **checkpoint.provenance}
    return Trained(net, _crop_of(net, crop, path), origin)


def _of_recipe(path: Path, crop: CropName | None) -> Trained:
    checkpoint = load_recipe_checkpoint(path)
    net = make_network(checkpoint.recipe.network)
    net.load_state_dict(checkpoint.network)
    kind = checkpoint.origin.get("crop")  # older checkpoints do not say
    if kind is not None and crop is not None:
        raise ConfigError(f"{path}: says itself which crops it was trained on; leave out --crop")
    if kind is not None:
        crop = "mouth" if kind == GREY else "face"
    origin = {"recipe": as_table(checkpoint.recipe), "steps_done": checkpoint.step, **checkpoint.origin}
    return Trained(net.eval(), _crop_of(net, crop, path), origin)


def _crop_of(net: AnyNet, crop: CropName | None, path: Path) -> str:
    if isinstance(net, PublishedNet):
        if crop is None:
            raise ConfigError(f"{path}: say with --crop whether it was trained on mouths or on faces")
        return CROP_NAMES[crop]
    if crop == "face":
        raise ConfigError(f"{path}: its network takes mouths, not faces")
    return CROP_DEFINITION
