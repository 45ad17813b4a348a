"""Every distillation method of arXiv:2210.15563 as a module: (student, teacher, labels) -> Loss.

B: pairs; D: width; L: chosen layers; N: weighted terms. `student` and `teacher` are the Behaviours of the
same B pairs and `labels` [B] is 1 for in sync, 0 for not. No gradient reaches the teacher. BCE is NMTD
without layers, Last-MTD is NMTD of F4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsync_cli.errors import ConfigError
from training.losses.relations import (
    DEFAULT_RELATIONS,
    LAST_LAYER,
    RelationOptions,
    Relations,
    compare_layers,
    select_layers,
)
from training.networks.vocalist import Behaviour

Weighting = Literal["UW-13D", "UW-25D", "AW-13D", "AW-25D"]
Softmax = Literal["classes", "batch"]
Hint = Literal["to_teacher", "to_student"]

KD_TEMPERATURE = 5.0
PUBLISHED_HINT_WEIGHT = 100.0  # of FitNets, in the published code
RKD_DISTANCE_WEIGHT = 25.0  # with RKD_ANGLE_WEIGHT the 1 : 2 of Park et al. (CVPR 2019)
RKD_ANGLE_WEIGHT = 50.0

_TINY = 1e-12  # squared distances below are taken for none: a root has no gradient at 0


@dataclass(frozen=True)
class Loss:
    """`total` is what is minimised; `parts` are its terms, unweighted and without gradient, for logs."""

    total: Tensor
    parts: dict[str, Tensor]


class KD(nn.Module):
    """BCE and `weight` times the soft targets at `temperature` (Hinton et al., 2015).

    `softmax` "classes" compares, pair by pair, how likely in sync and not in sync are; "batch" is the
    published code's: how a batch's pairs share one probability among them.
    """

    def __init__(
        self, temperature: float = KD_TEMPERATURE, *, weight: float = 1.0, softmax: Softmax = "classes"
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = weight
        self.compare = kd_loss if softmax == "classes" else kd_batch_loss

    def forward(self, student: Behaviour, teacher: Behaviour, labels: Tensor) -> Loss:
        bce = bce_loss(student.logits, labels)
        soft = self.compare(student.logits, teacher.logits, temperature=self.temperature)
        return Loss(bce + self.weight * soft, _parts(bce=bce, kd=soft))


class RKD(nn.Module):
    """BCE and the relations within a batch, seen in the head's input [B, D] (Park et al., 2019)."""

    def __init__(self, distance: float = RKD_DISTANCE_WEIGHT, angle: float = RKD_ANGLE_WEIGHT) -> None:
        super().__init__()
        self.distance = distance
        self.angle = angle

    def forward(self, student: Behaviour, teacher: Behaviour, labels: Tensor) -> Loss:
        bce = bce_loss(student.logits, labels)
        distance = rkd_distance_loss(student.pooled, teacher.pooled)
        angle = rkd_angle_loss(student.pooled, teacher.pooled)
        total = bce + self.distance * distance + self.angle * angle
        return Loss(total, _parts(bce=bce, rkd_distance=distance, rkd_angle=angle))


class FitNets(nn.Module):
    """BCE and `weight` times the hint: the fusion encoder's output is the teacher's (Romero et al., 2014).

    A learned projection brings the student's width to the teacher's ("to_teacher"), or as in the published
    code the teacher's to the student's ("to_student"); it belongs to training alone.
    """

    def __init__(
        self, student_width: int, teacher_width: int, *, weight: float = 1.0, hint: Hint = "to_teacher"
    ) -> None:
        super().__init__()
        self.hint = hint
        widths = (student_width, teacher_width) if hint == "to_teacher" else (teacher_width, student_width)
        self.projection = nn.Linear(*widths)
        self.weight = weight

    def forward(self, student: Behaviour, teacher: Behaviour, labels: Tensor) -> Loss:
        bce = bce_loss(student.logits, labels)
        ours, theirs = student.mem.output, teacher.mem.output.detach()
        if self.hint == "to_teacher":
            hint = F.mse_loss(self.projection(ours), theirs)
        else:
            hint = F.mse_loss(ours, self.projection(theirs))
        return Loss(bce + self.weight * hint, _parts(bce=bce, hint=hint))


class NMTD(nn.Module):
    """Equation 3: BCE and relations of chosen layers, with uniform weights or weights set by hand.

    A weight is a number for every layer or one number per layer; 0 leaves a relation out ("w/o VR").
    """

    cad_weights: Tensor
    vr_weights: Tensor

    def __init__(
        self,
        layers: str | Sequence[str] = "all",
        options: RelationOptions = DEFAULT_RELATIONS,
        *,
        bce: float = 1.0,
        cad: float | Sequence[float] = 1.0,
        vr: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        self.layers = select_layers(layers)
        self.options = options
        self.bce_weight = bce
        self.register_buffer("cad_weights", _per_layer(cad, len(self.layers)), persistent=False)
        self.register_buffer("vr_weights", _per_layer(vr, len(self.layers)), persistent=False)

    def forward(self, student: Behaviour, teacher: Behaviour, labels: Tensor) -> Loss:
        bce = bce_loss(student.logits, labels)
        relations = compare_layers(student, teacher, layers=self.layers, options=self.options)
        weighted = (self.cad_weights * relations.cad + self.vr_weights * relations.vr).sum()
        return Loss(self.bce_weight * bce + weighted, _relation_parts(bce, relations))


class MiniLM(NMTD):
    """MiniLM*: BCE and both relations of the last layer (section 4.2; Wang et al., 2020).

    The network's last layer is F4; `layers` also takes the last of each encoder, AV4, VA4 and F4.
    """

    def __init__(
        self, layers: str | Sequence[str] = LAST_LAYER, options: RelationOptions = DEFAULT_RELATIONS
    ) -> None:
        super().__init__(layers, options)


class MTD(nn.Module):
    """BCE and relations with learned weights: of equation 4 (UW) or plain (AW); uniform ones are NMTD's.

    "25D" weighs all terms, BCE, CAD and VR of each layer; in "13D" the two of a layer are one term. Weights
    start at 1. A loss is the gradient of its weight of AW, so these fall for as long as they are learned and
    vanish in the end, as the paper says of them; what lies below 0 counts as 0, or else losses would be
    maximised.
    """

    def __init__(
        self,
        weighting: Weighting = "UW-25D",
        layers: str | Sequence[str] = "all",
        *,
        options: RelationOptions = DEFAULT_RELATIONS,
    ) -> None:
        super().__init__()
        if weighting not in get_args(Weighting):
            raise ConfigError(f"weighting {weighting!r} is not one of {', '.join(get_args(Weighting))}")
        self.weighting = weighting
        self.layers = select_layers(layers)
        self.options = options
        self.is_shared = weighting.endswith("13D")
        terms = 1 + len(self.layers) * (1 if self.is_shared else 2)
        self.weights = nn.Parameter(torch.ones(terms))

    def forward(self, student: Behaviour, teacher: Behaviour, labels: Tensor) -> Loss:
        bce = bce_loss(student.logits, labels)
        relations = self.compare(student, teacher)
        return Loss(self.weigh(bce, relations), _relation_parts(bce, relations))

    def compare(self, student: Behaviour, teacher: Behaviour) -> Relations:
        """Both losses of each of the layers."""
        return compare_layers(student, teacher, layers=self.layers, options=self.options)

    def weigh(self, task: Tensor, relations: Relations) -> Tensor:
        """The loss of a task, BCE or another one, and those of the relations, weighed."""
        by_layer = [relations.cad + relations.vr] if self.is_shared else [relations.cad, relations.vr]
        losses = torch.cat([task.unsqueeze(0), *by_layer])  # [N]
        if self.weighting.startswith("UW"):
            return uncertainty_weighted(losses, self.weights)
        return (self.weights.clamp(min=0) * losses).sum()


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy of logits [B] against labels [B] (equation 3, L_BCE)."""
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float = KD_TEMPERATURE) -> Tensor:
    """Mean of temperature^2 * KL(teacher || student) of the two-class distributions of logits [B]."""
    ours, theirs = student / temperature, teacher.detach() / temperature
    soft = torch.sigmoid(theirs)
    in_sync = soft * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    not_in_sync = (1 - soft) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return temperature**2 * (in_sync + not_in_sync).mean()


def kd_batch_loss(student: Tensor, teacher: Tensor, *, temperature: float = KD_TEMPERATURE) -> Tensor:
    """temperature^2 * KL(teacher || student) of softmaxes over the batch's logits [B], divided by B.

    So the published code computes it. What all logits have in common does not count.
    """
    ours = (student / temperature).log_softmax(dim=0)
    theirs = (teacher.detach() / temperature).log_softmax(dim=0)
    return temperature**2 * (theirs.exp() * (theirs - ours)).mean()


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between distances of embeddings [B, D], each in units of its batch's mean distance.

    Mean over all B^2 entries, as in the method's published form: a point's distance to itself counts as 0.
    """
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher.detach()))


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between the cosines of the angles at j of all triplets (i, j, k) of embeddings [B, D].

    Mean over all B^3 entries; triplets that name a point twice count as 0 or as equal.
    """
    return F.smooth_l1_loss(_angle_cosines(student), _angle_cosines(teacher.detach()))


def uncertainty_weighted(losses: Tensor, weights: Tensor) -> Tensor:
    """Equation 4: sum over terms [N] of loss / (2 w^2) + ln(1 + w^2)."""
    squared = weights.square()
    return (0.5 * losses / squared + torch.log1p(squared)).sum()


def _relative_distances(points: Tensor) -> Tensor:
    """[B, D] -> [B, B]."""
    squared = (points.unsqueeze(0) - points.unsqueeze(1)).square().sum(dim=-1)
    distances = squared.clamp(min=_TINY).sqrt() * (squared > _TINY)
    mean = distances.sum() / max(len(points) * (len(points) - 1), 1)
    return distances / mean.clamp(min=_TINY)


def _angle_cosines(points: Tensor) -> Tensor:
    """[B, D] -> [B, B, B]: entry j, i, k is the cosine at j between the directions to i and to k."""
    steps = points.unsqueeze(0) - points.unsqueeze(1)  # entry j, i: from j to i
    directions = steps * steps.square().sum(dim=-1, keepdim=True).clamp(min=_TINY).rsqrt()
    return directions @ directions.mT


def _per_layer(weights: float | Sequence[float], layers: int) -> Tensor:
    values = (weights,) * layers if isinstance(weights, (int, float)) else tuple(weights)
    if len(values) != layers:
        raise ConfigError(f"{len(values)} weights do not fit {layers} layers")
    return torch.tensor(values, dtype=torch.float32)


def _parts(**parts: Tensor) -> dict[str, Tensor]:
    return {name: part.detach() for name, part in parts.items()}


def _relation_parts(bce: Tensor, relations: Relations) -> dict[str, Tensor]:
    cad = zip(relations.layers, relations.cad, strict=True)
    vr = zip(relations.layers, relations.vr, strict=True)
    parts = {f"cad_{layer}": loss for layer, loss in cad} | {f"vr_{layer}": loss for layer, loss in vr}
    return _parts(bce=bce, **parts)
