"""A checkpoint into a student: three ONNX graphs and the `model.json` that describes them."""

import copy
import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from avsync_cli.errors import ConfigError
from avsync_cli.model import CONTRACT_FILE, contract, load_student
from avsync_cli.spec import (
    CROP_HEIGHT,
    CROP_WIDTH,
    LIP_NUMBERS,
    MEL_BINS,
    WINDOW_FRAMES,
    WINDOW_MEL_STEPS,
)
from training.checkpoint import Checkpoint, averaged_net, load_checkpoint
from training.config import as_table
from training.encoders import ConvUnit, MatchNet

OPSET = 18


class VideoGraph(nn.Module):
    """frames [B, 5, 48, 96] in 0..255, lips [B, 5, 120] -> video [B, D]."""

    def __init__(self, net: MatchNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor, lips: Tensor) -> Tensor:
        return self.net.encode_video(frames, lips)


class AudioGraph(nn.Module):
    """mels [B, 80, 16] -> audio [B, D]."""

    def __init__(self, net: MatchNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, mels: Tensor) -> Tensor:
        return self.net.encode_audio(mels)


class PairGraph(nn.Module):
    """video [B, D], audio [B, D] -> score [B]: gate times cosine, since video carries its gate."""

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        return (video * audio).sum(dim=1)


def export_student(
    checkpoint: Path, folder: Path, *, calibration: Path | None = None, name: str | None = None
) -> Path:
    """Write a student's folder whole or not at all; an older one in its place is replaced."""
    if folder.exists() and any(folder.iterdir()) and not (folder / CONTRACT_FILE).exists():
        raise ConfigError(f"{folder}: holds something else than a student; choose another folder")
    loaded = load_checkpoint(checkpoint)
    fitted = read_calibration(calibration) if calibration is not None else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".student-") as temporary:
        made = Path(temporary) / "student"
        made.mkdir()
        graphs = write_graphs(averaged_net(loaded), made)
        declared = contract() | {
            "name": name or folder.name,
            "graphs": graphs,
            "calibration": fitted,
            "training": _origin(loaded),
        }
        (made / CONTRACT_FILE).write_text(json.dumps(declared, indent=1) + "\n", encoding="utf-8")
        load_student(made)  # what cannot be loaded is not put in place
        if folder.exists():
            folder.rename(Path(temporary) / "replaced")
        shutil.move(made, folder)
    return folder


def write_graphs(net: MatchNet, folder: Path) -> dict[str, dict[str, str]]:
    """Write the three graphs; returns their entries for `model.json`."""
    net = folded(net)
    batch = 3  # any number but 1, which the exporter would take for a constant
    frames = torch.zeros(batch, WINDOW_FRAMES, CROP_HEIGHT, CROP_WIDTH)
    lips = torch.zeros(batch, WINDOW_FRAMES, LIP_NUMBERS)
    mels = torch.zeros(batch, MEL_BINS, WINDOW_MEL_STEPS)
    with torch.no_grad():
        pair = net.encode_audio(mels)
    return {
        "video": _write(VideoGraph(net), {"frames": frames, "lips": lips}, folder / "video.onnx", "video"),
        "audio": _write(AudioGraph(net), {"mels": mels}, folder / "audio.onnx", "audio"),
        "pair": _write(PairGraph(), {"video": pair, "audio": pair.clone()}, folder / "pair.onnx", "score"),
    }


def folded(net: MatchNet) -> MatchNet:
    """A copy in evaluation mode whose batch norms are part of the weights before them."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, ConvUnit):
            module.convolution = fuse_conv_bn_eval(module.convolution, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    lips = net.video_encoder.lips
    for place, layer in enumerate(lips):
        if isinstance(layer, nn.BatchNorm1d):
            lips[place - 1] = fuse_linear_bn_eval(lips[place - 1], layer)
            lips[place] = nn.Identity()
    return net


def read_calibration(path: Path) -> dict[str, Any]:
    """The calibration of `avsync_cli.model.Calibration` as JSON. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no calibration that can be read") from error
    if not isinstance(values, dict) or set(values) != {"weights", "min_confidence", "spread_ms"}:
        raise ConfigError(f"{path}: a calibration has weights, min_confidence and spread_ms")
    return values


def _write(graph: nn.Module, inputs: dict[str, Tensor], path: Path, output: str) -> dict[str, str]:
    """Export one graph whose batch is free; returns its entry for `model.json`."""
    batch = torch.export.Dim("batch")
    # It warns of its own internals and of packages that we do not use; a test compares the numbers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            external_data=False,
            verbose=False,
        )
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _origin(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"config": as_table(checkpoint.config), "steps_done": checkpoint.step, **checkpoint.provenance}
