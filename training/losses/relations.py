"""What a transformer's attention does, compared between two networks: equations 1 and 2 of arXiv:2210.15563.

B: pairs; H: heads; Tq, Tk: query and source tokens; L: chosen layers. Both relations are maps between
tokens, so that networks of different widths compare: the cross-attention distribution (CAD) [B, H, Tq, Tk]
and the value relation (VR) [B, H, Tk, Tk]. No gradient reaches the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from avsync_cli.errors import ConfigError
from training.networks.transformer import EncoderBehaviour, LayerBehaviour
from training.networks.vocalist import Behaviour

Direction = Literal["teacher_student", "student_teacher"]

ALL_LAYERS = tuple(f"{encoder}{layer}" for encoder in ("AV", "VA", "F") for layer in (1, 2, 3, 4))
LAST_LAYER = ("F4",)  # of the fusion encoder, the last of the network

_VA_FLOOR = 1e-5  # the least score that the published code lets through in VA layers


@dataclass(frozen=True)
class RelationOptions:
    """How two maps are compared.

    `direction` "teacher_student" is KL(teacher || student), as the published code computes it;
    "student_teacher" is KL(student || teacher), as equation 2 writes it. `clamp_va` raises the scores of VA
    layers to 1e-5 before the softmax: the published code does so, which unmasks what the mask hides and
    flattens all negative scores. It is there to reproduce, not to recommend.
    """

    direction: Direction = "teacher_student"
    clamp_va: bool = False

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            choices = ", ".join(get_args(Direction))
            raise ConfigError(f"direction {self.direction!r} is not one of {choices}")


DEFAULT_RELATIONS = RelationOptions()
PUBLISHED_CODE = RelationOptions(clamp_va=True)
PUBLISHED_PAPER = RelationOptions(direction="student_teacher")


@dataclass(frozen=True)
class Relations:
    """Losses of L layers: `cad` [L] and `vr` [L], in the order of `layers`."""

    layers: tuple[str, ...]
    cad: Tensor
    vr: Tensor


def select_layers(names: str | Sequence[str]) -> tuple[str, ...]:
    """Layers by name: "all", one name, or several of AV1-AV4, VA1-VA4, F1-F4.

    Raises ConfigError for a name that is no layer's or that comes twice.
    """
    if names == "all":
        return ALL_LAYERS
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen:
        if name not in ALL_LAYERS:
            raise ConfigError(f"{name!r} is not a layer: choose from {', '.join(ALL_LAYERS)} or all")
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"a layer is named twice in {', '.join(chosen)}")
    return chosen


def compare_layers(
    student: Behaviour,
    teacher: Behaviour,
    *,
    layers: Sequence[str],
    options: RelationOptions = DEFAULT_RELATIONS,
) -> Relations:
    """Both losses of each of `layers`."""
    cad, vr = [], []
    for name in layers:
        ours, theirs = layer_of(student, name), layer_of(teacher, name)
        is_clamped = options.clamp_va and name.startswith("VA")
        cad.append(cad_loss(ours, theirs, direction=options.direction, is_clamped=is_clamped))
        vr.append(vr_loss(ours, theirs, direction=options.direction))
    none = student.logits.new_zeros(0)
    return Relations(tuple(layers), torch.stack(cad) if cad else none, torch.stack(vr) if vr else none)


def layer_of(behaviour: Behaviour, name: str) -> LayerBehaviour:
    """The layer called `name`, as AV1 or F4."""
    encoders: dict[str, EncoderBehaviour] = {"AV": behaviour.av, "VA": behaviour.va, "F": behaviour.mem}
    return encoders[name[:-1]].layers[int(name[-1]) - 1]


def cad_loss(
    student: LayerBehaviour,
    teacher: LayerBehaviour,
    *,
    direction: Direction = "teacher_student",
    is_clamped: bool = False,
) -> Tensor:
    """Divergence of the attention distributions, a scalar; `is_clamped` as `RelationOptions.clamp_va`."""
    ours, theirs = student.scores, teacher.scores
    if is_clamped:
        ours, theirs = ours.clamp(min=_VA_FLOOR), theirs.clamp(min=_VA_FLOOR)
    return map_divergence(ours, theirs, direction=direction)


def vr_loss(
    student: LayerBehaviour, teacher: LayerBehaviour, *, direction: Direction = "teacher_student"
) -> Tensor:
    """Divergence of the value relations, a scalar."""
    return map_divergence(value_relation(student.values), value_relation(teacher.values), direction=direction)


def value_relation(values: Tensor) -> Tensor:
    """Values [B, H, Tk, dv] -> V V^T / sqrt(dv) [B, H, Tk, Tk], before the softmax."""
    relation: Tensor = values @ values.mT * values.shape[-1] ** -0.5
    return relation


def map_divergence(student: Tensor, teacher: Tensor, *, direction: Direction = "teacher_student") -> Tensor:
    """KL between softmax maps of scores [..., Tq, Tk], summed over all elements and divided by their number.

    A score of -inf is hidden: it takes no part in the softmax and counts as an element of divergence 0.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"relations of the student {list(student.shape)} and of the teacher {list(teacher.shape)} "
            "do not compare: heads and tokens must agree"
        )
    hidden = torch.isneginf(student) | torch.isneginf(teacher)
    log_student = student.log_softmax(dim=-1).masked_fill(hidden, 0.0)
    log_teacher = teacher.detach().log_softmax(dim=-1).masked_fill(hidden, 0.0)
    if direction == "teacher_student":
        return (log_teacher.exp() * (log_teacher - log_student)).mean()
    return (log_student.exp() * (log_student - log_teacher)).mean()
