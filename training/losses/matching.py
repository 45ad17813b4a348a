"""The matching losses: every window against sound of its own clip and of others, and runs against offsets.

C clips, W video windows and A audio windows a clip, R other clips of the batch whose sound competes too.
Audio window j stands `context` windows before video window j: the sound of video window i is audio window
i + context. Clip c is compared with the sound of the clips c + 1 .. c + R of the batch.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from avsync_cli.spec import CANDIDATES, RANGE_FRAMES
from training.config import LossConfig
from training.data.clips import Validity
from training.networks.window_match import Embedded


@dataclass(frozen=True)
class MatchLoss:
    """Parts of the loss, each a scalar; `null` is 0 where no other clips compete."""

    rows: Tensor
    columns: Tensor
    curve: Tensor
    null: Tensor
    total: Tensor


def match_loss(
    out: Embedded, validity: Validity, config: LossConfig, *, curve_scale: Tensor, rng: torch.Generator
) -> MatchLoss:
    """Loss of a batch whose windows lie clip by clip."""
    clips, windows = validity.video.shape
    video, audio = out.video.unflatten(0, (clips, windows)), out.audio.unflatten(0, (clips, -1))
    video_gate, audio_gate = out.video_gate.view(clips, windows, 1), out.audio_gate.view(clips, -1, 1)
    others = min(config.others, clips - 1)
    heard = [audio.roll(-place, 0) for place in range(others + 1)]  # [C, A, D], the own sound first
    row_logits = [video @ each.mT * video_gate for each in heard]  # [C, W, A]
    column_logits = [audio @ video.roll(-place, 0).mT * audio_gate for place in range(others + 1)]
    there = [validity.audio.roll(-place, 0) for place in range(others + 1)]
    seen = [validity.video.roll(-place, 0) for place in range(others + 1)]
    rows = matching_loss(
        torch.cat(row_logits, 2),
        validity.video,
        torch.cat(there, 1),
        shift=validity.context,
        neighbour=config.neighbour,
        own=audio.shape[1],
    )
    columns = matching_loss(
        torch.cat(column_logits, 2),
        validity.audio,
        torch.cat(seen, 1),
        shift=-validity.context,
        neighbour=config.neighbour,
        own=windows,
    )
    runs = random_runs(validity.video, config.min_run, rng=rng)
    scale = curve_scale.clamp(min=0.1)
    curves = [
        diagonal_curve(logits, runs, replace(validity, audio=audio_there))
        for logits, audio_there in zip(row_logits, there, strict=True)
    ]
    (curve, present), *strange = [(curve * scale, present) for curve, present in curves]
    null = curve.new_full((clips, 1), config.null_score) * scale
    offsets = curve_loss(curve, present, neighbour=config.neighbour, null=null if others else None)
    nothing = null_loss(strange, null) if others else curve.new_zeros(())
    total = rows + columns + config.curve * offsets + config.null * nothing
    return MatchLoss(rows, columns, offsets, nothing, total)


def matching_loss(
    logits: Tensor,
    queries: Tensor,
    candidates: Tensor,
    *,
    shift: int,
    neighbour: float,
    own: int | None = None,
) -> Tensor:
    """Mean cross entropy of logits [C, Q, (R + 1) K]; the target of query i is candidate i + `shift`.

    The first K candidates are those of the query's own clip. Only valid candidates compete, and only valid
    queries with a valid target count.
    """
    own = own or logits.shape[2]
    target = soft_targets(logits.shape[1], logits.shape[2], shift=shift, neighbour=neighbour)
    target[:, own:] = 0.0
    target = target.to(logits) * candidates.unsqueeze(1)  # [C, Q, (R + 1) K]
    aim = torch.arange(logits.shape[1], device=logits.device) + shift
    inside = (aim >= 0) & (aim < own)
    counted = queries & inside & candidates[:, aim.clamp(0, own - 1)]
    return present_cross_entropy(logits, target, candidates.unsqueeze(1).expand_as(logits), counted)


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


def curve_loss(curve: Tensor, present: Tensor, *, neighbour: float, null: Tensor | None = None) -> Tensor:
    """Mean cross entropy of curves [C, 31] against offset 0; the score of "none of these", `null` [C, 1],
    competes with all offsets."""
    target = soft_targets(1, CANDIDATES, shift=RANGE_FRAMES, neighbour=neighbour).to(curve) * present
    counted = present[:, RANGE_FRAMES]
    if null is not None:
        curve, target = torch.cat([curve, null], 1), F.pad(target, (0, 1))
        present = F.pad(present, (0, 1), value=True)
    return present_cross_entropy(curve, target, present, counted)


def null_loss(strange: list[tuple[Tensor, Tensor]], null: Tensor) -> Tensor:
    """Mean cross entropy of the curves [C, 31] of strange voices against "none of these", `null` [C, 1]."""
    losses = []
    for curve, present in strange:
        target = F.pad(torch.zeros_like(curve), (0, 1), value=1.0)
        logits = torch.cat([curve, null], 1)
        losses.append(
            present_cross_entropy(logits, target, F.pad(present, (0, 1), value=True), present.any(1))
        )
    return torch.stack(losses).mean()


def present_cross_entropy(logits: Tensor, target: Tensor, present: Tensor, counted: Tensor) -> Tensor:
    """Mean over `counted` of the cross entropy over `present` candidates; targets are normalised here."""
    log_p = F.log_softmax(logits.masked_fill(~present, -torch.inf), dim=-1)
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    losses = -(target * log_p.masked_fill(~present, 0.0)).sum(-1)
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)
