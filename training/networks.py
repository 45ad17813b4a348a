"""The networks that recipes train, behind one interface, and the files they start from.

B: windows, pairs, or 1 for a whole clip; F: frames; S: mel steps; D: width; r, s: a network's reach beyond a
window, in frames and in mel steps. A window has F = 5 + 2r frames and S = 16 + 2s steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.spec import WINDOW_FRAMES
from training.checkpoint import FORMAT as MATCH_FORMAT
from training.compact import COMPACT_NETWORKS, CompactNet
from training.config import as_table, from_table
from training.recipe import NetworkConfig, Pixels
from training.recipe_checkpoint import is_recipe_checkpoint
from training.vocalist import (
    MTDVOCALIST,
    VOCALIST,
    Behaviour,
    Dims,
    Reach,
    VocaList,
    read_weights_file,
    refuse_mismatch,
)

PUBLISHED_NETWORKS = {dims.name: dims for dims in (VOCALIST, MTDVOCALIST)}
PRESETS = PUBLISHED_NETWORKS | COMPACT_NETWORKS
_PUBLISHED_PIXELS: dict[str, Pixels] = {VOCALIST.name: "bgr1", MTDVOCALIST.name: "rgb255"}
_INNER = "net."  # what comes before the published keys in a PublishedNet


class Network(Protocol):
    """What a recipe trains and evaluates; an nn.Module."""

    @property
    def reach(self) -> Reach: ...

    def encode_video(self, frames: Tensor, lips: Tensor) -> Tensor:
        """Frames, uint8 [B, F, 48, 96] or RGB [B, F, 48, 96, 3], and lips [B, F, 120] -> [B, F - 2r, D]."""
        ...

    def encode_audio(self, mels: Tensor) -> Tensor:
        """Mels [B, 80, S] -> tokens [B, S - 2s, D]."""
        ...

    def relate(self, video_tokens: Tensor, audio_tokens: Tensor) -> Behaviour:
        """Tokens [B, 5, D] and [B, 16, D] -> the Behaviour of the B pairs."""
        ...


class PublishedNet(nn.Module):
    """A published network behind the interface: grey or RGB frames in, lips not looked at.

    Its encoders take windows, not whole clips: F must be 5 and S 16. Keys are the published ones after
    "net.".
    """

    reach = Reach()

    def __init__(self, dims: Dims, pixels: Pixels) -> None:
        super().__init__()
        self.net = VocaList(dims)
        self.pixels = pixels

    def encode_video(self, frames: Tensor, lips: Tensor) -> Tensor:  # noqa: ARG002 - part of the interface
        if frames.shape[1] != WINDOW_FRAMES:
            raise ValueError(f"{frames.shape[1]} frames are not a window of {WINDOW_FRAMES}")
        return self.net.encode_video(as_pixels(frames, self.pixels))

    def encode_audio(self, mels: Tensor) -> Tensor:
        return self.net.encode_audio(mels)

    def relate(self, video_tokens: Tensor, audio_tokens: Tensor) -> Behaviour:
        return self.net.relate(video_tokens, audio_tokens)


def as_pixels(frames: Tensor, pixels: Pixels) -> Tensor:
    """uint8 frames, grey [B, F, 48, 96] or RGB [B, F, 48, 96, 3] -> float [B, F, 3, 48, 96] as `pixels` says.

    Grey is repeated on the three colours. "rgb255" is 0..255, "bgr1" 0..1 in the reversed order.
    """
    if frames.ndim == 4:
        colours = frames.unsqueeze(2).expand(-1, -1, 3, -1, -1).float()
    else:
        colours = frames.movedim(-1, 2).float()
    return colours if pixels == "rgb255" else colours.flip(2) / 255


def make_network(config: NetworkConfig) -> PublishedNet | CompactNet:
    """A network with its initial weights; `config.weights` is not read. Raises ConfigError."""
    if config.preset not in PRESETS:
        raise ConfigError(f"network {config.preset!r} is not one of {', '.join(PRESETS)}")
    preset = PRESETS[config.preset]
    table = as_table(preset)
    for key, value in config.dims.items():
        table[key] = table[key] | value if isinstance(value, dict) and key in table else value
    try:
        dims = from_table(type(preset), table, where=f"dims of {config.preset}")
        if isinstance(dims, Dims):
            return PublishedNet(dims, pixels_of(config))
        if config.pixels is not None:
            raise ConfigError(f"network {config.preset}: has no use for 'pixels'")
        return CompactNet(dims)
    except ValueError as error:
        raise ConfigError(f"dims of {config.preset}: {error}") from error


def pixels_of(config: NetworkConfig) -> Pixels:
    """How a published network wants its frames: as configured, or as its weights were published."""
    return config.pixels or _PUBLISHED_PIXELS[config.preset]


def width_of(network: PublishedNet | CompactNet) -> int:
    """D."""
    return network.net.dims.width if isinstance(network, PublishedNet) else network.dims.width


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


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
    weights = _keys_for(network, _weights_in(read_weights_file(path), path))
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
    content = read_weights_file(path)
    if is_recipe_checkpoint(content):
        made_with = from_table(NetworkConfig, content["recipe"]["network"], where=str(path))
        if _identity(made_with) != _identity(config):
            raise ConfigError(f"{path}: a {_identity(made_with)}, not a {_identity(config)}")
    weights = _keys_for(network, _weights_in(content, path))
    refuse_mismatch(weights, network.state_dict(), name=config.preset, where=str(path))
    network.load_state_dict(dict(weights))


def freeze(network: nn.Module, beginnings: tuple[str, ...]) -> tuple[nn.Module, ...]:
    """Take the gradient from the modules whose names begin so; returns them.

    They must stay in evaluation mode as well (norms keep their statistics). Raises ConfigError for a
    beginning that no module has.
    """
    frozen = []
    for beginning in beginnings:
        named = [module for name, module in network.named_modules() if f"{name}.".startswith(f"{beginning}.")]
        if not named:
            raise ConfigError(f"freeze: the network has no module {beginning!r}")
        frozen += named
    for module in frozen:
        module.requires_grad_(False)
    return tuple(frozen)


def _weights_in(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The weights of whichever kind of file it is."""
    if is_recipe_checkpoint(content):
        weights = content["network"]
    elif content.get("format") == MATCH_FORMAT:
        weights = content["average"]
    else:
        weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping):
        raise ModelError(f"{path}: does not hold weights")
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


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
