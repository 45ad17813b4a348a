"""Scores of cached clips by a network in torch, or by a form of an exported student."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from avsync_cli.model import load_student
from avsync_cli.spec import Precision
from export.graphs import AnyNet
from export.trained import CropName, open_trained
from training.data.clips import LoadedClip
from training.evaluation.score_clips import Floats, score_clip, student_encoders
from training.evaluation.torch_encoders import baseline_encoders, match_encoders, network_encoders
from training.networks.avst import Avst
from training.networks.token_match import TokenMatchNet
from training.networks.window_match import MatchNet
from training.recipe import Pixels

Scorer = Callable[[LoadedClip, int | None], Floats]  # a clip, and how many frames of it if not all


def open_scorer(
    checkpoint: Path,
    network: str | None = None,
    pixels: Pixels | None = None,
    crop: CropName | None = None,
    *,
    zero_ms: float = 0.0,
) -> Scorer:
    """Scores of clips by a checkpoint's network in torch. Raises ConfigError or ModelError.

    `zero_ms` is that of the student it is compared with, which a checkpoint does not know.
    """
    net: AnyNet = open_trained(checkpoint, network=network, pixels=pixels, crop=crop).net
    if isinstance(net, Avst):
        encoders = baseline_encoders(net)
    else:
        encoders = match_encoders(net) if isinstance(net, MatchNet | TokenMatchNet) else network_encoders(net)
    encoders = replace(encoders, zero_ms=zero_ms)
    return lambda clip, frames: score_clip(clip, encoders, max_frames=frames)


def student_scorer(folder: Path, precision: Precision) -> Scorer:
    """Scores of clips by a form of an exported student. Raises ModelError."""
    encoders = student_encoders(load_student(folder, precision=precision))
    return lambda clip, frames: score_clip(clip, encoders, max_frames=frames)
