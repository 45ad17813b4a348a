"""What makes a network faster and changes, if anything, the rounding of its numbers."""

import torch
from torch import nn

from training.recipe import SpeedConfig

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the axes of a kernel


def allow_tf32(speed: SpeedConfig) -> None:
    """Let a GPU multiply in TF32 from now on, or not."""
    torch.set_float32_matmul_precision("high" if speed.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = speed.tf32


def hasten(network: nn.Module, speed: SpeedConfig) -> None:
    """Lay out kernels by channels last, and compile the parts of a network, as the configuration says.

    Its weights, their names and their values stay.
    """
    if speed.channels_last:
        for parameter in network.parameters():
            if parameter.ndim in _FORMATS:
                parameter.data = parameter.data.contiguous(memory_format=_FORMATS[parameter.ndim])
    if speed.compile:
        parts = network.net if isinstance(getattr(network, "net", None), nn.Module) else network
        assert isinstance(parts, nn.Module)
        for part in parts.children():
            part.compile()
