"""The losses of the residual: which offset a run of windows has.

C clips, R windows of a run, K candidate offsets, the right one in column 0.
"""

import torch
from torch import Tensor

from training.losses.matching import present_cross_entropy


def candidate_loss(scores: Tensor, present: Tensor, *, target: Tensor) -> Tensor:
    """Mean cross entropy of scores [..., K] over the candidates that are `present` [..., K].

    `target` [..., K] is how likely each is the right one, not normalised; rows without their first
    candidate do not count.
    """
    return present_cross_entropy(scores, target * present, present, present[..., 0])


def run_loss(
    scores: Tensor, present: Tensor, *, target: Tensor, curve: float, scale: float
) -> tuple[Tensor, Tensor]:
    """The losses of windows by themselves and of their runs' means, from scores [C, R, K] and targets [C, K];
    the second is weighed by `curve`.

    A candidate of a run is there where at least half of its windows have it.
    """
    rows = candidate_loss(scores, present, target=target.unsqueeze(1))
    count = present.sum(1)
    mean = torch.where(present, scores, 0.0).sum(1) / count.clamp(min=1)
    there = 2 * count >= present.shape[1]
    return rows, curve * candidate_loss(mean * scale, there, target=target)
