"""Who is told of a run's figures beside its tables: TensorBoard, and what the user has of wandb and
mlflow."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from torch.utils.tensorboard import SummaryWriter

from avsync_cli.errors import ConfigError

_PROJECT = "avsync"
_WANDB_ID = "wandb.id"  # in the run folder: folders of two runs may have one name, as with --seeds


class Tracker(Protocol):
    """Takes the figures of steps, by names such as train/total and val/f1, and is closed at the end."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class BoardTracker:
    """TensorBoard, in a folder of the run; what it holds of later steps than `step` is dropped."""

    def __init__(self, run: Path, step: int) -> None:
        self._writer = SummaryWriter(run / "tensorboard", purge_step=step + 1 if step else None)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """Weights & Biases; a run that goes on is the one whose id its folder keeps."""

    def __init__(self, run: Path, table: Mapping[str, Any], step: int) -> None:
        wandb, path = _import("wandb"), run / _WANDB_ID
        if not step or not path.exists():
            path.write_text(uuid4().hex, encoding="utf-8")
        name, own_id = f"{run.parent.name}/{run.name}", path.read_text(encoding="utf-8")
        self._run = wandb.init(
            project=_PROJECT, name=name, id=own_id, resume="allow", dir=str(run), config=dict(table)
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowTracker:
    """MLflow, at the address that its own settings name; a run that goes on is another one there."""

    def __init__(self, run: Path, table: Mapping[str, Any], _step: int) -> None:
        self._mlflow = _import("mlflow")
        self._mlflow.set_experiment(_PROJECT)
        self._mlflow.start_run(run_name=f"{run.parent.name}/{run.name}")
        self._mlflow.log_dict(dict(table), "config.json")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_TRACKERS: dict[str, type[WandbTracker] | type[MlflowTracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def open_tracker(name: str, run: Path, table: Mapping[str, Any], *, step: int) -> Tracker:
    """A tracker for a run with the given configuration, after `step` steps; 0 begins one. Raises ConfigError
    where it is not installed."""
    if name not in _TRACKERS:
        raise ConfigError(f"tracker {name!r} is not one of {', '.join(_TRACKERS)}")
    return _TRACKERS[name](run, table, step)


def _import(name: str) -> Any:  # noqa: ANN401 - a module that may not be there
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"--track {name}: {name} is not installed (pip install {name})") from error
