"""The networks that recipes train, behind one interface.

B: windows, pairs, or 1 for a whole clip; F: frames; S: mel steps; D: width; r, s: a network's reach beyond a
window, in frames and in mel steps. A window has F = 5 + 2r frames and S = 16 + 2s steps.
"""

from typing import Literal, Protocol, TypeVar

from torch import Tensor, nn

from avsync_cli.errors import ConfigError
from avsync_cli.spec import WINDOW_FRAMES
from training.config import as_table, from_table
from training.networks.compact import COMPACT_NETWORKS, CompactNet
from training.networks.transformer import CrossModalEncoder
from training.networks.vocalist import MTDVOCALIST, VOCALIST, Behaviour, Dims, VocaList
from training.reach import Reach
from training.recipe import NetworkConfig, Pixels

PUBLISHED_NETWORKS = {dims.name: dims for dims in (VOCALIST, MTDVOCALIST)}
PRESETS = PUBLISHED_NETWORKS | COMPACT_NETWORKS
AnyPixels = Pixels | Literal["rgb1"]
_PUBLISHED_PIXELS: dict[str, Pixels] = {VOCALIST.name: "bgr1", MTDVOCALIST.name: "rgb255"}


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


AnyNetwork = TypeVar("AnyNetwork", PublishedNet, CompactNet)


def as_pixels(frames: Tensor, pixels: AnyPixels) -> Tensor:
    """uint8 frames, grey [B, F, 48, 96] or RGB [B, F, 48, 96, 3] -> float [B, F, 3, 48, 96] as `pixels` says.

    Grey is repeated on the three colours. "rgb255" is 0..255, "rgb1" 0..1, "bgr1" 0..1 in the reversed order.
    """
    if frames.ndim == 4:
        colours = frames.unsqueeze(2).expand(-1, -1, 3, -1, -1).float()
    else:
        colours = frames.movedim(-1, 2).float()
    if pixels == "rgb255":
        return colours
    return (colours.flip(2) if pixels == "bgr1" else colours) / 255


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
            return _with_dropout(PublishedNet(dims, pixels_of(config)), config)
        if config.pixels is not None:
            raise ConfigError(f"network {config.preset}: has no use for 'pixels'")
        return _with_dropout(CompactNet(dims), config)
    except ValueError as error:
        raise ConfigError(f"dims of {config.preset}: {error}") from error


def _with_dropout(network: AnyNetwork, config: NetworkConfig) -> AnyNetwork:
    for module in network.modules():
        if isinstance(module, CrossModalEncoder):
            module.draws_apart = config.dropout == "apart"
    return network


def pixels_of(config: NetworkConfig) -> Pixels:
    """How a published network wants its frames: as configured, or as its weights were published."""
    return config.pixels or _PUBLISHED_PIXELS[config.preset]


def width_of(network: PublishedNet | CompactNet) -> int:
    """D."""
    return network.net.dims.width if isinstance(network, PublishedNet) else network.dims.width


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


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
