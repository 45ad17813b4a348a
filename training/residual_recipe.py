"""What a residual run's TOML says; an unknown or ill-typed key is an error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avsync_cli.errors import ConfigError
from avsync_cli.spec import CANDIDATES
from training.config import (
    AugmentConfig,
    DataConfig,
    OptimiserConfig,
    read_toml,
    require_least,
    require_positive,
)
from training.losses.distillation import Weighting


@dataclass(frozen=True)
class ResidualConfig:
    """One run: cross-modal encoders whose score is added to the cosine of a trained matching.

    Of each of `data.clips` clips a run of `run_windows` windows is compared with the sound at `candidates`
    of the 31 offsets, the right one among them. With a `teacher`, the relations of its layers are learned
    too, weighted as `weighting` says.
    """

    cache: str
    steps: int
    matching: str = "bundled"  # checkpoint of the matching whose encoders are taken; they do not learn
    teacher: str | None = None  # checkpoint of a residual run on the same encoders; None: softmax alone
    weighting: Weighting = "UW-25D"
    width: int = 200
    heads: int = 8
    run_windows: int = 4
    candidates: int = 8
    neighbour: float = 0.15  # of the target, on each neighbour of the right offset
    curve: float = 0.5  # weight of the mean score of a run
    alone: float = 1.0  # weight of the loss of the cross-modal part without the cosine
    seed: int = 0
    threads: int = 2
    log_every: int = 20
    checkpoint_every: int = 100
    validate_every: int = 0  # 0: never
    validate_frames: int = 34  # of each val clip: every pair of them is computed
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        require_least(0, seed=self.seed, validate_every=self.validate_every, curve=self.curve)
        require_least(0, alone=self.alone)
        require_least(0, neighbour=self.neighbour)
        require_least(1, steps=self.steps, threads=self.threads, validate_frames=self.validate_frames)
        require_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        require_least(1, heads=self.heads, run_windows=self.run_windows)
        require_positive(width=self.width)
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"width {self.width} is not even or not divisible by {self.heads} heads")
        if not 2 <= self.candidates <= CANDIDATES:
            raise ConfigError(f"candidates are 2 to {CANDIDATES}, not {self.candidates}")
        if self.run_windows > self.data.windows:
            raise ConfigError(f"run_windows {self.run_windows} is more than the windows of a clip")


def read_residual(path: Path, changes: Sequence[str] = ()) -> ResidualConfig:
    """Read the TOML of a residual run with the given changes, KEY=VALUE. Raises ConfigError."""
    return read_toml(ResidualConfig, path, changes)
