"""What a baseline's TOML says, and the checkpoints of its runs; an unknown or unused key is an error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from avsync_cli.errors import ConfigError
from training.config import read_toml, require_least, require_positive
from training.networks.avst import AVST_DIMS
from training.networks.two_stream import TWO_STREAM, TWO_STREAM_DIMS
from training.recipe import PairsConfig, RecipeOptimiser, SpeedConfig, ValidationConfig

DEFAULT_MARGIN = 10.0  # about the distance that embeddings of the full size begin at
DEFAULT_CANDIDATES = 26  # the windows of a clip of 30 frames


@dataclass(frozen=True)
class BaselineConfig:
    """One run of a baseline; `data.batch` counts pairs for "contrastive", clips' runs for the others.

    `margin` is the distance beyond which a negative costs nothing; pairs nearer than half of it count as in
    sync for F1. `candidates` are the consecutive windows of a clip among which each finds its sound, or of
    "offsets" one does; that is AVST's method, the others are of two-stream networks.
    """

    name: str
    cache: str
    method: Literal["contrastive", "multi-way", "offsets"]
    experiment: str = ""
    label: str = ""
    network: str = TWO_STREAM.name  # offsets: one of AVST_DIMS
    margin: float | None = None  # contrastive: DEFAULT_MARGIN
    candidates: int | None = None  # multi-way, offsets: DEFAULT_CANDIDATES
    optimiser: RecipeOptimiser = field(default_factory=RecipeOptimiser)
    data: PairsConfig = field(default_factory=PairsConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    seed: int = 0
    threads: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 20  # steps
    checkpoint_every: int = 250  # steps
    max_steps: int | None = None  # end here; the schedule stays that of all epochs

    def __post_init__(self) -> None:
        networks = AVST_DIMS if self.method == "offsets" else TWO_STREAM_DIMS
        if self.network not in networks:
            raise ConfigError(f"{self.method}: network {self.network!r} is not one of {', '.join(networks)}")
        require_least(0, seed=self.seed)
        require_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        require_least(1, threads=self.threads, max_steps=self.max_steps)
        require_least(2, candidates=self.candidates)
        require_positive(margin=self.margin)
        unused = {
            "margin": self.margin is not None and self.method != "contrastive",
            "candidates": self.candidates is not None and self.method == "contrastive",
            "negatives": self.method != "contrastive" and self.data.negatives != PairsConfig().negatives,
            "micro_batches": self.data.micro_batches > 1,
            "mel": self.data.mel != "clip",
            "rule": self.validation.rule != "fixed",
            "augment": self.data.augment is not None,
            "ema": self.optimiser.ema is not None,
            "precision": self.optimiser.precision != "fp32",
            "observe": bool(self.validation.observe),
        }
        for key, is_set in unused.items():
            if is_set:
                raise ConfigError(f"baseline {self.method}: has no use for {key!r}")


def read_baseline(path: Path, changes: Sequence[str] = ()) -> BaselineConfig:
    """Read a TOML configuration with the given changes, KEY=VALUE. Raises ConfigError."""
    return read_toml(BaselineConfig, path, changes)
