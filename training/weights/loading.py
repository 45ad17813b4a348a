"""Weights from a file into a network: the authors' own form, what fits, or all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from avsync_cli.errors import ConfigError, ModelError
from training.networks.presets import PUBLISHED_NETWORKS, PublishedNet, pixels_of
from training.networks.vocalist import Dims, VocaList
from training.recipe import NetworkConfig
from training.weights.files import read_weights_file
from training.weights.identify import bare_weights, open_weights, weights_of
from training.weights.recipe_checkpoint import RecipeCheckpoint

_INNER = "net."  # what comes before the published keys in a PublishedNet


def load_reference(source: str | Path | Mapping[str, Any], dims: Dims) -> VocaList:
    """The network with weights of the published form, in evaluation mode on the CPU.

    `source` is a file or its content: a state dict, bare or under "state_dict", with or without the
    "module." that data-parallel training puts before each key. Raises ModelError where it cannot be read,
    or names the first key that is missing, misshapen or not of this network.
    """
    if isinstance(source, Mapping):
        where, content = "state dict", source
    else:
        where, content = str(source), read_weights_file(Path(source))
    weights = bare_weights(content, where)
    model = VocaList(dims)
    refuse_mismatch(weights, model.state_dict(), name=dims.name, where=where)
    model.load_state_dict(weights)
    return model.eval()


def refuse_mismatch(
    weights: Mapping[str, Any], expected: Mapping[str, Tensor], *, name: str, where: str
) -> None:
    """Raises ModelError for the first key that is missing, misshapen or not of the network `name`."""
    for key, tensor in expected.items():
        if key not in weights:
            raise ModelError(f"{where}: lacks {key}, which {name} needs")
        found = weights[key]
        if not isinstance(found, Tensor):
            raise ModelError(f"{where}: {key} is not a tensor")
        if found.shape != tensor.shape:
            raise ModelError(
                f"{where}: {key} has shape {list(found.shape)}, but {name} needs {list(tensor.shape)}"
            )
    unknown = next((key for key in weights if key not in expected), None)
    if unknown is not None:
        raise ModelError(f"{where}: {unknown} is not part of {name}")


@dataclass(frozen=True)
class Started:
    """What a network took from a file, by its parts: wholly, partly, and what stayed as it was."""

    file: str
    taken: tuple[str, ...]
    partly: tuple[str, ...]
    left: tuple[str, ...]

    def describe(self) -> str:
        parts = [f"started from {self.file}: {', '.join(self.taken) or 'no part wholly'}"]
        if self.partly:
            parts.append(f"in part {', '.join(self.partly)}")
        if self.left:
            parts.append(f"left at its initial value: {', '.join(self.left)}")
        return "; ".join(parts)


def load_fitting(network: nn.Module, path: Path) -> Started:
    """Take from a file of weights what fits by name and shape.

    The file may be one of the authors', a recipe's checkpoint, or one of the matching before it (its averaged
    weights). Raises ModelError where it cannot be read or no matrix or kernel of it fits: single numbers,
    such as counters, fit everywhere.
    """
    weights = _keys_for(network, weights_of(open_weights(path)))
    own = network.state_dict()
    fitting = {
        key: weights[key] for key, value in own.items() if _shape(weights.get(key)) == tuple(value.shape)
    }
    if not any(value.ndim >= 2 for value in fitting.values()):
        raise ModelError(f"{path}: nothing in it fits the network")
    network.load_state_dict(own | fitting)
    return _started(str(path), own, fitting)


def load_exactly(network: nn.Module, path: Path, config: NetworkConfig) -> None:
    """Take all weights from a file of the same network, as a teacher must.

    Raises ModelError naming the first key that does not fit, or ConfigError where the file is a recipe's
    checkpoint of a network that takes other frames.
    """
    held = open_weights(path)
    if isinstance(held, RecipeCheckpoint) and _identity(held.recipe.network) != _identity(config):
        raise ConfigError(f"{path}: a {_identity(held.recipe.network)}, not a {_identity(config)}")
    weights = _keys_for(network, weights_of(held))
    refuse_mismatch(weights, network.state_dict(), name=config.preset, where=str(path))
    network.load_state_dict(dict(weights))


def _keys_for(network: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """Published keys as the adapter has them."""
    if not isinstance(network, PublishedNet):
        return weights
    return {_INNER + key.removeprefix(_INNER): value for key, value in weights.items()}


def _shape(value: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - whatever a file holds
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _started(file: str, own: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> Started:
    counts: dict[str, list[int]] = {}
    for key, value in own.items():
        if value.numel() > 1:  # single numbers fit everywhere and say nothing
            counts.setdefault(_part_of(key), [0, 0])[key not in fitting] += 1
    taken = tuple(name for name, (_, missed) in counts.items() if not missed)
    left = tuple(name for name, (took, _) in counts.items() if not took)
    return Started(file, taken, tuple(name for name in counts if name not in taken + left), left)


def _part_of(key: str) -> str:
    """The part that a key belongs to: a module of the network, or of one of its encoders of tokens."""
    names = key.removeprefix(_INNER).split(".")
    return ".".join(names[: 2 if names[0].endswith("_encoder") else 1])


def _identity(config: NetworkConfig) -> str:
    """Which network it is and what frames it takes, in words."""
    pixels = f" of {pixels_of(config)} frames" if config.preset in PUBLISHED_NETWORKS else ""
    sizes = f" with {config.dims}" if config.dims else ""
    return f"{config.preset}{sizes}{pixels}"
