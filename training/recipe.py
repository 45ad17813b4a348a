"""What a recipe's TOML says: one frozen dataclass for each table; an unknown or unused key is an error.

The defaults are the paper's (arXiv:2210.15563, section 4.1, and the published code's optimiser). A key that
is None has the default of what uses it; set where nothing uses it, it is refused, never ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from avsync_cli.errors import ConfigError
from training.as_published import with_published
from training.config import AugmentConfig, from_table, require_least, require_positive
from training.tables import read_table

MethodName = Literal["BCE", "KD", "RKD", "MiniLM", "FitNets", "NMTD", "Last-MTD", "MTD"]
Observed = Literal["MTD", "Last-MTD", "FitNets", "FitNets-published"]
Pixels = Literal["rgb255", "bgr1"]

# What each method takes beside its name.
_RELATIONS = frozenset({"direction", "clamp_va"})
_METHOD_KEYS: dict[str, frozenset[str]] = {
    "BCE": frozenset(),
    "KD": frozenset({"temperature", "weight", "softmax"}),
    "RKD": frozenset({"distance", "angle"}),
    "MiniLM": _RELATIONS | {"layers"},
    "FitNets": frozenset({"weight", "hint"}),
    "NMTD": _RELATIONS | {"layers", "bce", "cad", "vr"},
    "Last-MTD": _RELATIONS | {"bce", "cad", "vr"},
    "MTD": _RELATIONS | {"layers", "weighting"},
}
_SCHEDULE_KEYS: dict[str, frozenset[str]] = {
    "step": frozenset({"decay", "decay_every"}),
    "cosine": frozenset({"final_rate"}),
}


def _refuse_unused(config: object, keys_of: dict[str, frozenset[str]], *, chosen: str, what: str) -> None:
    """Refuse a key that another choice takes and this one does not."""
    if chosen not in keys_of:
        raise ConfigError(f"{what} {chosen!r} is not one of {', '.join(keys_of)}")
    for key in sorted(frozenset().union(*keys_of.values()) - keys_of[chosen]):
        if getattr(config, key) is not None:
            raise ConfigError(f"{what} {chosen}: has no use for {key!r}")


@dataclass(frozen=True)
class NetworkConfig:
    """A network: a preset, and what differs from it.

    `dims` replaces sizes of the preset by name. `weights` is a file to start from; a student takes from it
    what fits, a teacher needs all. `pixels` is how the published networks want their frames. `dropout` of the
    embedded source tokens is drawn once for keys and values ("together"), or "apart" as published.
    """

    preset: str  # see training.networks.presets.PRESETS
    weights: str | None = None
    pixels: Pixels | None = None  # None: as published (vocalist: bgr1, mtdvocalist: rgb255)
    dropout: Literal["together", "apart"] | None = None  # None: together; a student's alone
    dims: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodConfig:
    """A loss of training.losses.distillation; each key says which methods take it."""

    name: MethodName
    weighting: Literal["UW-13D", "UW-25D", "AW-13D", "AW-25D"] | None = None  # MTD
    layers: str | tuple[str, ...] | None = None  # NMTD, MTD, MiniLM: "all", a name, or several
    bce: float | None = None  # NMTD, Last-MTD: w0 of equation 3
    cad: float | tuple[float, ...] | None = None  # NMTD, Last-MTD: for every layer, or one a layer
    vr: float | tuple[float, ...] | None = None  # NMTD, Last-MTD
    direction: Literal["teacher_student", "student_teacher"] | None = None  # all that compare relations
    clamp_va: bool | None = None  # all that compare relations
    temperature: float | None = None  # KD
    weight: float | None = None  # KD, FitNets: of what is added to BCE
    softmax: Literal["classes", "batch"] | None = None  # KD
    hint: Literal["to_teacher", "to_student"] | None = None  # FitNets: where the projection leads
    distance: float | None = None  # RKD
    angle: float | None = None  # RKD

    def __post_init__(self) -> None:
        _refuse_unused(self, _METHOD_KEYS, chosen=self.name, what="method")
        require_positive(temperature=self.temperature)


@dataclass(frozen=True)
class RecipeOptimiser:
    """Times are in epochs; `warm_up` is linear, by step or, as published, by epoch.

    "step" multiplies the rate by `decay` (0.8) every `decay_every` (20) epochs after the warm-up; "cosine"
    falls to `final_rate` (0.01) of the peak at the last epoch.
    """

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 5e-5
    schedule: Literal["step", "cosine"] = "step"
    warm_up: float = 10.0  # epochs
    warm_up_by: Literal["step", "epoch"] = "step"
    decay: float | None = None  # step
    decay_every: float | None = None  # step: epochs
    final_rate: float | None = None  # cosine: of the learning rate
    weight_decay: float = 0.0  # of matrices and kernels
    clip_norm: float | None = None  # AW needs it
    ema: float | None = None  # what the average keeps at a step; None: no average
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        _refuse_unused(self, _SCHEDULE_KEYS, chosen=self.schedule, what="schedule")
        require_positive(
            learning_rate=self.learning_rate,
            decay=self.decay,
            decay_every=self.decay_every,
            clip_norm=self.clip_norm,
        )
        require_least(0, warm_up=self.warm_up, final_rate=self.final_rate, weight_decay=self.weight_decay)
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"ema is 0 or more and less than 1, not {self.ema}")


@dataclass(frozen=True)
class PairsConfig:
    """Which pairs an epoch is made of.

    Without `epoch_pairs` an epoch takes one pair of every clip, as published. With it that many clips are
    drawn, by the domains' shares where there are any (a domain is the first folder of a clip's path), and
    within them by the square root of their length.

    `mel` is that of the whole "clip", cut, as in every evaluation and in use, or as published that of each
    window's 3,200 samples alone ("chunk"), whose ends are reflected; that needs data prepared with --sound.
    """

    batch: int = 128  # pairs a step
    micro_batches: int = 1  # that a step's pairs are split into: less memory, and the processes' shares
    epochs: int = 80
    epoch_pairs: int | None = None
    negatives: int | Literal["clip"] = 15  # frames: how far a negative's sound is away at most
    mel: Literal["clip", "chunk"] = "clip"
    domains: dict[str, float] = field(default_factory=dict)
    augment: AugmentConfig | None = None  # None: pictures and sound as they are, as published

    def __post_init__(self) -> None:
        if min(self.batch, self.micro_batches, self.epochs) < 1 or self.batch % self.micro_batches:
            raise ConfigError("data: batch, micro_batches and epochs are 1 or more, and the first two divide")
        require_least(1, epoch_pairs=self.epoch_pairs)
        if self.negatives != "clip" and self.negatives < 1:
            raise ConfigError('data: negatives is 1 frame or more, or "clip"')
        if self.domains and self.epoch_pairs is None:
            raise ConfigError("data: domains need epoch_pairs")


@dataclass(frozen=True)
class ValidationConfig:
    """Pairs of the val split; `observe` names losses to compute on them beside F1 (Fig. 4).

    By the rule "fixed" they are the same each time, and the best weights those of the highest F1 at logit 0.
    "published" draws others each time, and chooses by F1 at logit 0.5, weighted over both classes.
    """

    pairs: int = 2048
    rule: Literal["fixed", "published"] = "fixed"
    seed: int = 0
    every_epochs: int | None = None  # None, and every_steps None: every epoch
    every_steps: int | None = None
    observe: tuple[Observed, ...] = ()

    def __post_init__(self) -> None:
        if self.every_epochs is not None and self.every_steps is not None:
            raise ConfigError("validation: every_epochs and every_steps exclude each other")
        require_least(1, pairs=self.pairs, every_epochs=self.every_epochs, every_steps=self.every_steps)
        require_least(0, seed=self.seed)


@dataclass(frozen=True)
class SpeedConfig:
    """What makes a run faster. `workers` are processes that draw pairs, each `prefetch` micro-batches ahead;
    they change no number. The others change the rounding: `channels_last` lays out kernels so, `tf32` lets a
    GPU multiply in it, `compile` has torch compile the networks' parts. bf16 is `optimiser.precision`.
    """

    workers: int = 0  # none: the process that trains draws
    prefetch: int = 4
    channels_last: bool = False
    tf32: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        require_least(0, workers=self.workers)
        require_least(1, prefetch=self.prefetch)

    def of_any_machine(self) -> "SpeedConfig":
        """Without what changes no number."""
        return replace(self, workers=0, prefetch=SpeedConfig().prefetch)


@dataclass(frozen=True)
class Recipe:
    """One run: a network, what it learns from, and how."""

    name: str
    cache: str
    network: NetworkConfig
    method: MethodConfig
    experiment: str = ""  # what it belongs to, such as "Table 1"
    label: str = ""  # its row or bar there, such as "MTD"
    teacher: NetworkConfig | None = None
    optimiser: RecipeOptimiser = RecipeOptimiser()
    data: PairsConfig = PairsConfig()
    validation: ValidationConfig = ValidationConfig()
    speed: SpeedConfig = SpeedConfig()
    freeze: tuple[str, ...] = ()  # beginnings of module names that stay as they are
    seed: int = 0
    threads: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 20  # steps
    checkpoint_every: int = 250  # steps
    max_steps: int | None = None  # end here; the schedule stays that of all epochs

    def __post_init__(self) -> None:
        if self.method.name != "BCE" and self.teacher is None:
            raise ConfigError(f"method {self.method.name}: needs a teacher")
        if self.teacher is not None and self.teacher.dropout is not None:
            raise ConfigError("teacher: has no use for 'dropout', as it does not learn")
        if self.teacher is None and self.validation.observe:
            raise ConfigError(f"observe {self.validation.observe[0]}: needs a teacher")
        if self.teacher is not None and self.method.name == "BCE" and not self.validation.observe:
            raise ConfigError("method BCE: has no use for a teacher unless it observes")
        if (self.method.weighting or "").startswith("AW") and self.optimiser.clip_norm is None:
            raise ConfigError(f"weighting {self.method.weighting}: needs clip_norm")
        require_least(0, seed=self.seed)
        require_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        require_least(1, threads=self.threads, max_steps=self.max_steps)


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe with the given changes, KEY=VALUE. Raises ConfigError.

    `as_published = true` in it stands for the options of `as_published`.
    """
    return from_table(Recipe, with_published(read_table(path, changes), where=str(path)), where=str(path))
