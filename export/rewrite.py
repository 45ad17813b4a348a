"""Exact rewrites of networks for inference: batch norms folded away, Conv3d as Conv2d.

B: windows; T: frames of a window; C, O: channels of input and output; H, W: rows and columns.
"""

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from training.networks import vocalist, window_match
from training.networks.compact import TimeUnit

Net = TypeVar("Net", bound=nn.Module)


def folded(net: Net) -> Net:
    """A copy in evaluation mode whose batch norms are part of the weights before them."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, window_match.ConvUnit2d | TimeUnit):
            module.convolution = fuse_conv_bn_eval(module.convolution, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, vocalist.ConvUnit):
            module.conv_block = nn.Sequential(_fused(*module.conv_block))
        elif isinstance(module, window_match.VideoEncoder):
            _fold_linear(module.lips)
    return net


def _fused(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    assert isinstance(convolution, nn.Conv2d | nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    return fuse_conv_bn_eval(convolution, norm)


def _fold_linear(layers: nn.Sequential) -> None:
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm1d):
            linear = layers[place - 1]
            assert isinstance(linear, nn.Linear)
            layers[place - 1] = fuse_linear_bn_eval(linear, layer)
            layers[place] = nn.Identity()


class ShiftedUnit(nn.Module):
    """A folded unit of the published video encoder, its Conv3d done as a Conv2d: [B, T, C, H, W] -> same.

    A kernel of k frames sees k copies of the input beside each other, each shifted by a frame more, as so
    many times the channels. CPUs have fast kernels for the one and not for the other.
    """

    def __init__(self, unit: vocalist.ConvUnit) -> None:
        super().__init__()
        whole = unit.conv_block[0]
        if not isinstance(whole, nn.Conv3d) or isinstance(whole.padding, str):
            raise ValueError("only convolutions over time with a padding in numbers are rewritten")
        down, across, step = whole.stride
        rows, columns, self.reach = whole.padding
        self.taps = whole.kernel_size[2]
        if step != 1 or self.taps != 2 * self.reach + 1:
            raise ValueError("only convolutions that keep the number of frames are rewritten")
        flat = whole.weight.permute(0, 4, 1, 2, 3).flatten(1, 2)  # [O, k * C, rows, columns]
        kernel = flat.shape[2], flat.shape[3]
        self.convolution = nn.Conv2d(flat.shape[1], flat.shape[0], kernel, (down, across), (rows, columns))
        self.convolution.load_state_dict({"weight": flat, "bias": whole.bias})
        self.residual = unit.residual

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, self.reach, self.reach))
        shifted = torch.cat([padded[:, tap : tap + frames] for tap in range(self.taps)], dim=2)
        y = self.convolution(shifted.flatten(0, 1)).unflatten(0, (-1, frames))
        return F.relu(y + x if self.residual else y)


def shifted_prenet(prenet: nn.Sequential) -> nn.Sequential:
    """A folded video encoder of windows [B, 3, H, W, T] as one of [B, T, 3, H, W] -> [B, T, D, 1, 1]."""
    return nn.Sequential(*(ShiftedUnit(cast(vocalist.ConvUnit, unit)) for unit in prenet))
