"""A recipe's method as one of the losses of `distillation`."""

from typing import Any

from torch import nn

from training.losses.distillation import KD, MTD, NMTD, RKD, FitNets, MiniLM
from training.losses.relations import LAST_LAYER, RelationOptions
from training.recipe import MethodConfig


def make_method(config: MethodConfig, *, student_width: int, teacher_width: int) -> nn.Module:
    """The loss (student, teacher, labels) -> Loss with what it learns itself. Raises ConfigError.

    A key that is not set has the loss's own default. BCE is NMTD without layers and looks at no teacher.
    """
    if config.name == "BCE":
        return NMTD(())
    if config.name == "KD":
        return KD(**_given(config, "temperature", "weight", "softmax"))
    if config.name == "RKD":
        return RKD(**_given(config, "distance", "angle"))
    if config.name == "FitNets":
        return FitNets(student_width, teacher_width, **_given(config, "weight", "hint"))
    options = relation_options(config)
    if config.name == "MiniLM":
        return MiniLM(options=options, **_given(config, "layers"))
    if config.name == "MTD":
        return MTD(options=options, **_given(config, "weighting", "layers"))
    if config.name == "Last-MTD":
        return NMTD(LAST_LAYER, options, **_given(config, "bce", "cad", "vr"))
    return NMTD(options=options, **_given(config, "layers", "bce", "cad", "vr"))


def relation_options(config: MethodConfig) -> RelationOptions:
    """How relations are compared."""
    return RelationOptions(**_given(config, "direction", "clamp_va"))


def _given(config: MethodConfig, *names: str) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names if getattr(config, name) is not None}
