"""What a baseline's TOML says, and the checkpoints of its runs; an unknown or unused key is an error."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from avsync_cli.errors import ConfigError, ModelError
from training.baselines import TWO_STREAM, TWO_STREAM_DIMS, TwoStream
from training.checkpoint import write_whole
from training.config import as_table, from_table, read_toml, require_least, require_positive
from training.recipe import PairsConfig, RecipeOptimiser, ValidationConfig
from training.vocalist import read_weights_file

FORMAT = "avsync-baseline-checkpoint"
VERSION = 1

DEFAULT_MARGIN = 10.0  # about the distance that embeddings of the full size begin at
DEFAULT_CANDIDATES = 26  # the windows of a clip of 30 frames


@dataclass(frozen=True)
class BaselineConfig:
    """One run of a baseline; `data.batch` counts pairs for "contrastive", clips' runs for "multi-way".

    `margin` is the distance beyond which a negative costs nothing; pairs nearer than half of it count as in
    sync for F1. `candidates` are the consecutive windows of a clip among which each finds its sound.
    """

    name: str
    cache: str
    method: Literal["contrastive", "multi-way"]
    experiment: str = ""
    label: str = ""
    network: str = TWO_STREAM.name
    margin: float | None = None  # contrastive: DEFAULT_MARGIN
    candidates: int | None = None  # multi-way: DEFAULT_CANDIDATES
    optimiser: RecipeOptimiser = field(default_factory=RecipeOptimiser)
    data: PairsConfig = field(default_factory=PairsConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 0
    threads: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 20  # steps
    checkpoint_every: int = 250  # steps
    max_steps: int | None = None  # end here; the schedule stays that of all epochs

    def __post_init__(self) -> None:
        if self.network not in TWO_STREAM_DIMS:
            raise ConfigError(f"network {self.network!r} is not one of {', '.join(TWO_STREAM_DIMS)}")
        require_least(0, seed=self.seed)
        require_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        require_least(1, threads=self.threads, max_steps=self.max_steps)
        require_least(2, candidates=self.candidates)
        require_positive(margin=self.margin)
        unused = {
            "margin": self.margin is not None and self.method != "contrastive",
            "candidates": self.candidates is not None and self.method != "multi-way",
            "negatives": self.method == "multi-way" and self.data.negatives != PairsConfig().negatives,
            "micro_batches": self.data.micro_batches > 1,
            "augment": self.data.augment is not None,
            "ema": self.optimiser.ema is not None,
            "precision": self.optimiser.precision != "fp32",
            "observe": bool(self.validation.observe),
        }
        for key, is_set in unused.items():
            if is_set:
                raise ConfigError(f"baseline {self.method}: has no use for {key!r}")


@dataclass(frozen=True)
class BaselineCheckpoint:
    """`step` steps are done; `rest` (optimiser, best figure) is what a run goes on from."""

    config: BaselineConfig
    step: int
    network: dict[str, Any]
    rest: dict[str, Any]
    origin: dict[str, Any]


def read_baseline(path: Path) -> BaselineConfig:
    """Read a TOML configuration. Raises ConfigError."""
    return read_toml(BaselineConfig, path)


def save_baseline(path: Path, checkpoint: BaselineCheckpoint) -> None:
    """Write a checkpoint whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": as_table(checkpoint.config),
        "step": checkpoint.step,
        "network": checkpoint.network,
        "rest": checkpoint.rest,
        "origin": checkpoint.origin,
    }
    write_whole(path, content)


def load_baseline(path: Path) -> BaselineCheckpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    content = read_weights_file(path)
    if not is_baseline_checkpoint(content):
        raise ModelError(f"{path}: not a baseline's checkpoint of this version")
    try:
        config = from_table(BaselineConfig, content["config"], where=str(path))
        return BaselineCheckpoint(
            config, **{key: content[key] for key in ("step", "network", "rest", "origin")}
        )
    except (ConfigError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a checkpoint that can be read") from error


def is_baseline_checkpoint(content: Any) -> bool:  # noqa: ANN401 - what a file holds
    """Whether the content of a file of weights is a baseline's checkpoint."""
    return (content.get("format"), content.get("version")) == (FORMAT, VERSION)


def baseline_net(checkpoint: BaselineCheckpoint) -> TwoStream:
    """The network of a checkpoint, in evaluation mode."""
    net = TwoStream(TWO_STREAM_DIMS[checkpoint.config.network])
    net.load_state_dict(checkpoint.network)
    return net.eval()
