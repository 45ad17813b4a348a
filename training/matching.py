"""The matching losses: every window against all sound of its own clip, and whole runs against offsets.

C clips, W video windows and A audio windows a clip. Audio window j stands `context` windows before
video window j: the sound of video window i is audio window i + context.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from avsync_cli.spec import CANDIDATES, RANGE_FRAMES
from training.config import LossConfig
from training.encoders import Embedded


@dataclass(frozen=True)
class Validity:
    """Which windows are real and which only fill up: video [C, W], audio [C, A], both bool."""

    video: Tensor
    audio: Tensor
    context: int


@dataclass(frozen=True)
class MatchLoss:
    """Parts of the loss, each a scalar."""

    rows: Tensor
    columns: Tensor
    curve: Tensor
    total: Tensor


def match_loss(
    out: Embedded, validity: Validity, config: LossConfig, *, curve_scale: Tensor, rng: torch.Generator
) -> MatchLoss:
    """Loss of a batch whose windows lie clip by clip."""
    clips, windows = validity.video.shape
    cosine = out.video.unflatten(0, (clips, windows)) @ out.audio.unflatten(0, (clips, -1)).mT  # [C, W, A]
    row_logits = cosine * out.video_gate.view(clips, windows, 1)
    column_logits = (cosine * out.audio_gate.view(clips, 1, -1)).mT  # [C, A, W]
    rows = matching_loss(
        row_logits, validity.video, validity.audio, shift=validity.context, neighbour=config.neighbour
    )
    columns = matching_loss(
        column_logits, validity.audio, validity.video, shift=-validity.context, neighbour=config.neighbour
    )
    runs = random_runs(validity.video, config.min_run, rng=rng)
    curve, present = diagonal_curve(row_logits, runs, validity)
    offsets = curve_loss(curve * curve_scale.clamp(min=0.1), present, neighbour=config.neighbour)
    return MatchLoss(rows, columns, offsets, rows + columns + config.curve * offsets)


def matching_loss(
    logits: Tensor, queries: Tensor, candidates: Tensor, *, shift: int, neighbour: float
) -> Tensor:
    """Mean cross entropy of logits [C, Q, K]; the target of query i is candidate i + `shift`.

    Only valid candidates compete, and only valid queries with a valid target count.
    """
    target = soft_targets(logits.shape[1], logits.shape[2], shift=shift, neighbour=neighbour)
    target = target.to(logits) * candidates.unsqueeze(1)  # [C, Q, K]
    aim = torch.arange(logits.shape[1], device=logits.device) + shift
    inside = (aim >= 0) & (aim < logits.shape[2])
    counted = queries & inside & candidates[:, aim.clamp(0, logits.shape[2] - 1)]
    return _cross_entropy(logits, target, candidates.unsqueeze(1).expand_as(logits), counted)


def soft_targets(queries: int, candidates: int, *, shift: int, neighbour: float) -> Tensor:
    """[Q, K]: 1 - 2 * neighbour at i + shift, `neighbour` on each side; rows not yet normalised."""
    distance = torch.arange(candidates) - torch.arange(queries).unsqueeze(1) - shift
    zero = torch.zeros(())
    return torch.where(distance == 0, 1 - 2 * neighbour, torch.where(distance.abs() == 1, neighbour, zero))


def random_runs(valid: Tensor, min_run: int, *, rng: torch.Generator) -> Tensor:
    """One random run of windows in each clip: bool [C, W]; valid windows [C, W] come first in a clip."""
    clips, windows = valid.shape
    count = valid.sum(1)
    shortest = count.clamp(max=min_run)
    draws = torch.rand(2, clips, generator=rng, device=valid.device)
    length = shortest + (draws[0] * (count - shortest + 1)).long()
    first = (draws[1] * (count - length + 1)).long()
    places = torch.arange(windows, device=valid.device)
    return (places >= first.unsqueeze(1)) & (places < (first + length).unsqueeze(1))


def diagonal_curve(logits: Tensor, runs: Tensor, validity: Validity) -> tuple[Tensor, Tensor]:
    """Mean logit of each offset over a run: curve [C, 31] and where it exists, bool [C, 31].

    Column d pairs video window i with the audio window d - 15 frames later. An offset exists where at
    least half of the run's windows have their partner.
    """
    clips, windows, candidates = logits.shape
    steps = torch.arange(CANDIDATES, device=logits.device) - RANGE_FRAMES + validity.context
    partner = torch.arange(windows, device=logits.device).unsqueeze(1) + steps  # [W, 31]
    inside = (partner >= 0) & (partner < candidates)
    partner = partner.clamp(0, candidates - 1)
    paired = runs.unsqueeze(2) & inside & validity.audio[:, partner]  # [C, W, 31]
    band = logits.gather(2, partner.expand(clips, -1, -1))
    count = paired.sum(1)
    curve = torch.where(paired, band, 0.0).sum(1) / count.clamp(min=1)
    return curve, 2 * count >= runs.sum(1, keepdim=True)


def curve_loss(curve: Tensor, present: Tensor, *, neighbour: float) -> Tensor:
    """Mean cross entropy of curves [C, 31] against offset 0."""
    target = soft_targets(1, CANDIDATES, shift=RANGE_FRAMES, neighbour=neighbour).to(curve) * present
    counted = present[:, RANGE_FRAMES]
    return _cross_entropy(curve, target, present, counted)


def _cross_entropy(logits: Tensor, target: Tensor, present: Tensor, counted: Tensor) -> Tensor:
    """Mean over `counted` of the cross entropy over `present` candidates; targets are normalised here."""
    log_p = F.log_softmax(logits.masked_fill(~present, -torch.inf), dim=-1)
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    losses = -(target * log_p.masked_fill(~present, 0.0)).sum(-1)
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)
