"""Configurations: TOML tables into frozen dataclasses; an unknown or ill-typed key is an error."""

import dataclasses
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from avsync_cli.errors import ConfigError
from training.tables import read_table

T = TypeVar("T")

WINDOW_NETWORK = "window"  # one embedding straight from a window: the bundled student


def require_least(least: int, **values: float | None) -> None:
    """Raises ConfigError for a value below `least`; None is not set, and allowed."""
    for name, value in values.items():
        if value is not None and not value >= least:  # written so that NaN is refused too
            raise ConfigError(f"{name} is {least} or more, not {value}")


def require_positive(**values: float | None) -> None:
    """Raises ConfigError for a value that is not above 0; None is not set, and allowed."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is more than 0, not {value}")


@dataclass(frozen=True)
class DataConfig:
    """What a batch is made of; the domains' shares move linearly from `start` to `end` (if given)."""

    clips: int = 16
    windows: int = 26  # consecutive video windows of each clip: 30 frames, a whole broadcast clip
    audio_context: int = 0  # audio windows before and after them that are candidates too
    min_windows: int = 8  # shorter clips are not used
    cut_windows: int = 0  # at most so many are taken away at each end, of picture and sound separately
    grouped: bool = False  # clips of one source stand beside each other, as rivals of like sound
    leave_out: tuple[str, ...] = ()  # sources that are not trained on, for an audit of them
    start: dict[str, float] = field(default_factory=dict)  # none, nor at the end: all clips as one domain
    end: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentConfig:
    """Chances are per clip; the sizes stand beside them."""

    flip: float = 0.5
    move: float = 0.9
    shift: float = 0.06  # of the crop's width and height
    zoom: float = 0.1
    rotate_degrees: float = 6.0
    jitter: float = 0.15  # of the above, anew in every frame
    light: float = 0.5
    blur: float = 0.2
    low_resolution: float = 0.25
    noise: float = 0.3
    erase: float = 0.1
    short_track: float = 0.3  # lips: the mean shape taken over the section, as in a short track
    lips_zoom: float = 0.15
    lips_noise: float = 0.03
    drop_lips: float = 0.1
    drop_crops: float = 0.1
    gain_db: float = 12.0
    vocal_tract: float = 0.6
    vocal_tract_stretch: float = 0.1
    reverb: float = 0.25
    babble: float = 0.2
    hiss: float = 0.4
    band: float = 0.2
    bin_masks: float = 0.3


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the two encoders: channels of their stages, and residual units of the video's stages."""

    embedding: int = 256
    video_widths: tuple[int, ...] = (32, 64, 128)
    video_blocks: tuple[int, ...] = (1, 1, 2)
    lips_width: int = 256
    audio_widths: tuple[int, ...] = (32, 48, 80, 128)
    dropout: float = 0.1
    gate: float = 12.0  # what the gates start at
    fine_widths: tuple[int, ...] = ()  # of a second trunk with a stem of stride 2, four if it has one

    def __post_init__(self) -> None:
        if len(self.fine_widths) not in (0, 4) or min(self.fine_widths, default=1) < 1:
            raise ConfigError("fine_widths are four channels, or none")
        if (len(self.video_widths), len(self.video_blocks), len(self.audio_widths)) != (3, 3, 4):
            raise ConfigError("video_widths and video_blocks are three each, audio_widths four")
        require_least(1, embedding=self.embedding, lips_width=self.lips_width)
        require_least(1, video_widths=min(self.video_widths), audio_widths=min(self.audio_widths))
        require_least(0, video_blocks=min(self.video_blocks), dropout=self.dropout)


@dataclass(frozen=True)
class LossConfig:
    neighbour: float = 0.15  # of the target, on each neighbour of the true window
    curve: float = 0.5  # weight of the clip-level term
    min_run: int = 5  # windows that a curve is averaged over, at least
    others: int = 0  # clips of the batch whose sound competes too; with any, "none of these" is an answer
    null: float = 0.5  # weight of that answer where a run is compared with another clip's sound
    null_score: float = 3.0  # the mean score of a run at which "none of these" is as likely as an offset

    def __post_init__(self) -> None:
        require_least(0, others=self.others, null=self.null)


@dataclass(frozen=True)
class OptimiserConfig:
    learning_rate: float = 2e-3
    final_rate: float = 0.01  # of the learning rate, where the cosine ends
    warm_up: int = 300  # steps
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    ema: float = 0.998


@dataclass(frozen=True)
class MatchConfig:
    """One matching run."""

    cache: str
    steps: int  # that the schedule is made for
    end_at: int | None = None  # stop after this step, before the schedule ends
    network: str = WINDOW_NETWORK  # or the name of a compact network, whose encoders are trained
    start: str | None = None  # checkpoint whose averaged weights to start from; None: from nothing
    seed: int = 0
    threads: int = 2
    log_every: int = 20
    checkpoint_every: int = 250
    validate_every: int = 500
    validate_frames: int = 250  # of each val clip: a quick look, not the figure
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()

    def __post_init__(self) -> None:
        require_least(0, seed=self.seed)
        require_least(1, steps=self.steps, end_at=self.end_at, threads=self.threads)
        require_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        require_least(0, validate_every=self.validate_every)  # 0: never


def read_config(path: Path, changes: Sequence[str] = ()) -> MatchConfig:
    """Read the TOML configuration of a matching run with the given changes, KEY=VALUE. Raises ConfigError."""
    return read_toml(MatchConfig, path, changes)


def read_toml(kind: type[T], path: Path, changes: Sequence[str] = ()) -> T:
    """A dataclass from a TOML file and the files that it builds on. Raises ConfigError."""
    return from_table(kind, read_table(path, changes), where=str(path))


def from_table(kind: type[T], table: dict[str, Any], *, where: str) -> T:
    """A dataclass from a table of plain values. Raises ConfigError."""
    hints = get_type_hints(kind)
    unknown = table.keys() - hints.keys()
    if unknown:
        raise ConfigError(f"{where}: unknown key {sorted(unknown)[0]!r}")
    values = {name: _value(hints[name], value, where=f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error


def as_table(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the dataclasses above
    """The inverse of `from_table`: plain lists, dicts, strings and numbers."""
    table = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            value = as_table(value)
        table[entry.name] = list(value) if isinstance(value, tuple) else value
    return table


def _value(kind: Any, value: Any, *, where: str) -> Any:  # noqa: ANN401 - types and values of any kind
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: must be a table")
        return from_table(kind, value, where=where)  # type: ignore[arg-type]
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: must be a list")
        if get_args(kind)[-1] is not ... and len(value) != len(get_args(kind)):
            raise ConfigError(f"{where}: must be a list of {len(get_args(kind))}")
        return tuple(_value(get_args(kind)[0], item, where=where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: must be a table")
        return {key: _value(get_args(kind)[1], item, where=where) for key, item in value.items()}
    if origin is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if origin in (Union, types.UnionType):
        return _any_of(get_args(kind), value, where=where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{where}: {error}") from error
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ConfigError(f"{where}: must be {kind.__name__}")
    return value


def _any_of(kinds: tuple[Any, ...], value: Any, *, where: str) -> Any:  # noqa: ANN401 - as above
    """The value as the first of the kinds that it fits; the first one's complaint where it fits none."""
    if value is None and types.NoneType in kinds:
        return None
    complaints = []
    for kind in kinds:
        try:
            return _value(kind, value, where=where)
        except ConfigError as error:
            complaints.append(error)
    raise complaints[0]
