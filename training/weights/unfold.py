"""A matching checkpoint from the graphs of an exported student, to go on from one whose checkpoint is gone.

Export folds every batch norm into the weights before it. Here each gets a norm again that measures what its
convolution gives on real clips and undoes just that, so the network is the same function as before, and its
norms are what they would be after training. The audio head's gate is in no graph: it starts anew. The
student's zero goes into the audio head, so that the checkpoint's own zero is 0 to half a mel step.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from avsync_cli.contract import describe_graphs, zero_of
from avsync_cli.errors import ModelError
from avsync_cli.spec import MEL_STEPS_PER_SECOND, WINDOW_MEL_STEPS
from training.config import MatchConfig
from training.data.clips import LoadedClip, Section, make_batch
from training.networks.compact import EDGE, TimeUnit
from training.networks.token_match import TokenMatchNet, make_match_net
from training.networks.window_match import ConvUnit2d
from training.weights.match_checkpoint import Checkpoint

MEASURED_CLIPS = 64  # over which the norms' statistics are taken
MEL_STEP_MS = 1000 / MEL_STEPS_PER_SECOND
_WINDOWS = 26
_GRAPHS = ("video", "audio")

Weights = dict[str, Tensor]
Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm2d | nn.BatchNorm1d


def unfold_student(folder: Path, clips: Iterable[LoadedClip]) -> Checkpoint:
    """The checkpoint of a matching of `mtdvocalist-edge` from a student's fp32 graphs and some of its clips.

    It has no optimiser: it can be started from, not resumed. Raises ModelError where the graphs are of
    another network.
    """
    config = replace(MatchConfig(cache="", steps=1), network=EDGE.name)
    net = make_match_net(config)
    if not isinstance(net, TokenMatchNet):
        raise TypeError(f"{EDGE.name} is made of tokens")
    found = _read_weights(folder)
    norms = list(_normed(net))
    with torch.no_grad():
        for name, (layer, norm) in norms:
            layer.weight.copy_(_take(found, f"{name}.weight", layer.weight.shape, folder))
            norm.bias.copy_(_take(found, f"{name}.bias", norm.bias.shape, folder))
            mean, variance = _statistics(norm)
            mean.zero_()
            variance.fill_(1.0 - norm.eps)  # with its eps: nothing is scaled yet
        for key, value in net.state_dict().items():
            if key in found:
                value.copy_(_take(found, key, value.shape, folder))
    if found:
        raise ModelError(f"{folder}: its graphs hold {sorted(found)[0]}, which {EDGE.name} does not have")
    _measure_norms(net, [pair for _, pair in norms], clips)
    _move_head(net, round(zero_of(folder)[0] / MEL_STEP_MS))
    weights = net.state_dict()
    return Checkpoint(config, 0, weights, weights, {}, {"commit": "unfolded", "cache_manifest_sha256": ""})


def _normed(net: TokenMatchNet) -> Iterator[tuple[str, tuple[Layer, Norm]]]:
    """Name of every layer that export folds a norm into, with the layer and the norm."""
    for name, module in net.named_modules():
        if isinstance(module, ConvUnit2d | TimeUnit):
            yield f"{name}.convolution", (module.convolution, module.norm)
    lips, path = net.video_encoder.trunk.lips, "video_encoder.trunk.lips"
    for place, layer in enumerate(lips):
        if isinstance(layer, nn.BatchNorm1d):
            yield f"{path}.{place - 1}", (cast(nn.Linear, lips[place - 1]), layer)


def _statistics(norm: Norm) -> tuple[Tensor, Tensor]:
    """The running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _read_weights(folder: Path) -> Weights:
    """The weights of both encoders' graphs by the net's own names."""
    found: Weights = {}
    for side in _GRAPHS:
        model = onnx.load(describe_graphs(folder)[1][side].path)
        values = {
            each.name: torch.from_numpy(numpy_helper.to_array(each).astype(np.float32).copy())
            for each in model.graph.initializer
        }
        for name, value in values.items():
            for part in ("encoder", "head"):
                if name.startswith(f"{part}."):
                    found[f"{side}_{name}"] = value
        key = f"{side}_encoder.project.linear.weight"
        if key not in found:  # a product with a matrix: stored as its transpose, without a name
            width = found.get(f"{side}_encoder.project.linear.bias", torch.zeros(0)).shape[0]
            products = [node.input[1] for node in model.graph.node if node.op_type == "MatMul"]
            fitting = [values[name] for name in products if name in values and len(values[name].T) == width]
            if fitting:
                found[key] = fitting[0].T
    return found


def _take(found: Weights, key: str, shape: torch.Size, folder: Path) -> Tensor:
    if key not in found or found[key].shape != shape:
        raise ModelError(
            f"{folder}: its graphs have no {key} of {tuple(shape)}; not a student of {EDGE.name}"
        )
    return found.pop(key)


def _move_head(net: TokenMatchNet, steps: int) -> None:
    """Let the audio head find what it knows so many mel steps later in its window; what it does not know of
    the new ends counts nothing at first."""
    for linear in (net.audio_head.embedding, net.audio_head.gate):
        weight = linear.weight.data.unflatten(1, (WINDOW_MEL_STEPS, -1))  # [E, 16, D]
        moved = torch.zeros_like(weight)
        kept = WINDOW_MEL_STEPS - abs(steps)
        first, then = (0, steps) if steps >= 0 else (-steps, 0)
        moved[:, first : first + kept] = weight[:, then : then + kept]
        linear.weight.data.copy_(moved.flatten(1))


def _measure_norms(net: TokenMatchNet, pairs: list[tuple[Layer, Norm]], clips: Iterable[LoadedClip]) -> None:
    """Give every norm the mean and the variance of its input, and weights that undo them."""
    sums: dict[nn.Module, list[Tensor]] = {norm: [] for _, norm in pairs}

    def note(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        rows = inputs[0].transpose(0, 1).flatten(1).double()
        sums[norm].append(
            torch.stack([torch.full_like(rows[:, 0], rows.shape[1]), rows.sum(1), (rows**2).sum(1)])
        )

    hooks = [norm.register_forward_pre_hook(note) for _, norm in pairs]
    net.eval()
    with torch.inference_mode():
        for clip in clips:
            batch = make_batch([Section(clip, clip.run[0])], _WINDOWS, 0, reach=net.reach)
            net(batch.crops.float(), batch.lips, batch.mel, batch.video_rows, batch.audio_steps)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for _, norm in pairs:
            count, total, squares = torch.stack(sums[norm]).sum(0)
            mean = total / count
            variance = (squares / count - mean**2).clamp(min=0)
            own_mean, own_variance = _statistics(norm)
            own_mean.copy_(mean)
            own_variance.copy_(variance)
            norm.weight.copy_((own_variance + norm.eps).sqrt())
            norm.bias.add_(own_mean)
