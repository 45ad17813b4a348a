"""Finished runs as `compare` sees them: what a run folder says of itself, read and checked.

A run folder holds `config.json`, `log.csv` and `val.csv`, which training wrote, and `metrics.json`, which
`python -m training evaluate --measures protocol --output RUN/metrics.json` wrote.
"""

import csv
import json
import math
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from avsync_cli.errors import ConfigError
from training.evaluation.protocol import LENGTHS

METRICS = "metrics.json"
VAL_F1 = "val f1"
FIGURES = (*(str(length) for length in LENGTHS), "clip", VAL_F1)
OBSERVED = {name: f"observed/{name}" for name in ("MTD", "Last-MTD", "FitNets", "FitNets-published")}

T = TypeVar("T", str, int)


@dataclass(frozen=True)
class Run:
    """One evaluated run.

    `steps` were taken in all; the weights that were measured are the best of them. `percent` is right by "5"
    .. "15" and "clip", over `clips` clips of one group, and "val f1" the best F1 of the validations;
    `published` are the figures by the published code's rule, empty where they were not counted. `data` is the
    hash of the cache's manifest and `measured` says what of it was looked at. `observed` holds (step, loss)
    of each watched loss of Fig. 4.
    """

    folder: Path
    label: str
    experiment: str
    network: str
    parameters: int
    seed: int
    steps: int
    clips: int
    percent: dict[str, float]
    published: dict[str, float]
    data: str
    measured: str
    observed: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Row:
    """The runs of one label of one experiment, which differ in their seeds alone.

    `mean` is over seeds, in percent, by the names of `Run.percent`; `spread` the standard deviation, empty
    for a single seed. The other two are the same of `Run.published`.
    """

    label: str
    experiment: str
    network: str
    parameters: int
    seeds: tuple[int, ...]
    steps: int
    mean: dict[str, float]
    spread: dict[str, float]
    published_mean: dict[str, float]
    published_spread: dict[str, float]


def find_folders(paths: list[Path], *, runs: Path) -> list[Path]:
    """Run folders that the given paths stand for, each once.

    A folder stands for itself; a configuration's file for all folders in `runs` whose `config.json` has its
    name, one for each seed. Raises ConfigError.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_file():
            folders = _folders_named(_name_in(path), runs)
            if not folders:
                raise ConfigError(f"{path}: {runs} holds no run of {_name_in(path)!r}")
        else:
            folders = [path]
        found.update({folder.resolve(): folder for folder in folders})
    return list(found.values())


def read_run(folder: Path, *, group: str) -> Run:
    """A run and its figures for one group of clips. Raises ConfigError."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such run folder")
    config = _read_json(folder / "config.json", hint="is it a run folder?")
    metrics = _read_json(
        folder / METRICS,
        hint=f"make it with `python -m training evaluate --measures protocol --student {folder / 'best.pt'} "
        f"--cache CACHE --output {folder / METRICS}`",
    )
    config_path, where = str(folder / "config.json"), str(folder / METRICS)
    label = _field(config, "label", str, where=config_path)
    clips, percent, published = _figures(metrics, group, where=where)
    val_f1 = best_f1(folder / "val.csv")
    if val_f1 is not None:
        percent[VAL_F1] = 100 * val_f1
    origin = metrics.get("origin")
    return Run(
        folder,
        label or _field(metrics, "name", str, where=where),
        _field(config, "experiment", str, where=config_path),
        _field(metrics, "network", str, where=where),
        _field(metrics, "parameters", int, where=where),
        _field(metrics, "seed", int, where=where),
        _read_steps(folder / "log.csv"),
        clips,
        percent,
        published,
        str(origin.get("cache_manifest_sha256", "")) if isinstance(origin, dict) else "",
        f"split {metrics.get('split')}, limits {metrics.get('limits')}",
        _read_observed(folder / "val.csv"),
    )


def gather_rows(runs: list[Run]) -> list[Row]:
    """One row for each label of an experiment, in the order given.

    Raises ConfigError where runs of one label differ in more than their seed.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.experiment, run.label), []).append(run)
    return [_row(members) for members in groups.values()]


def unique_names(rows: list[Row]) -> list[str]:
    """The rows' labels, with the experiment where several have one label."""
    labels = [row.label for row in rows]
    return [row.label if labels.count(row.label) == 1 else f"{row.label} ({row.experiment})" for row in rows]


def _row(runs: list[Run]) -> Row:
    first = runs[0]
    for run in runs[1:]:
        for name in ("network", "parameters", "steps"):
            ours, theirs = getattr(run, name), getattr(first, name)
            if ours != theirs:
                raise ConfigError(
                    f"{run.folder}: {name} {ours}, but {theirs} in {first.folder}; "
                    f"runs of one label ({run.label}) may differ in their seed alone"
                )
    seeds = tuple(run.seed for run in runs)
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"{runs[-1].folder}: {first.label} has two runs of one seed")
    return Row(
        first.label,
        first.experiment,
        first.network,
        first.parameters,
        seeds,
        first.steps,
        *_mean_and_spread([run.percent for run in runs]),
        *_mean_and_spread([run.published for run in runs]),
    )


def _mean_and_spread(figures: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation over runs of the figures that all of them have."""
    names = [name for name in FIGURES if all(name in found for found in figures)]
    values = {name: [found[name] for found in figures] for name in names}
    spread = {name: statistics.stdev(found) for name, found in values.items() if len(found) > 1}
    return {name: statistics.fmean(found) for name, found in values.items()}, spread


def _figures(
    metrics: dict[str, Any], group: str, *, where: str
) -> tuple[int, dict[str, float], dict[str, float]]:
    """Over how many clips, the figures, and those by the published rule (older files have none)."""
    try:
        groups = {entry["group"]: entry for entry in metrics["protocol"]}
        if group not in groups:
            raise ConfigError(f"{where}: has no group {group!r}, only {', '.join(groups)}")
        percent = {str(name): float(value) for name, value in groups[group]["percent"].items()}
        by_rule = groups[group].get("published", {})
        published = {str(name): float(value) for name, value in by_rule.items()}
        clips = int(groups[group]["clips"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: holds no figures of the protocol") from error
    if not all(0 <= value <= 100 for value in (*percent.values(), *published.values())):
        raise ConfigError(f"{where}: a figure of {group!r} is not a percentage")
    return clips, percent, published


def _read_steps(path: Path) -> int:
    """The last step in a `log.csv`."""
    try:
        return int(_read_table(path)[-1]["step"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a table of steps") from error


def best_f1(path: Path) -> float | None:
    """The highest F1 in a `val.csv`, by the rule that chose the weights; None where it has none."""
    rows = _read_table(path)
    column = "f1_published" if rows and "f1_published" in rows[0] else "f1"
    try:
        values = [float(row[column]) for row in rows if row.get(column)]
    except ValueError as error:
        raise ConfigError(f"{path}: not a table of validations") from error
    return max(values, default=None)


def _read_observed(path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, loss) of each watched loss in a `val.csv`; nothing where none was watched."""
    try:
        rows = _read_table(path)
        curves = {
            name: [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
            for name, column in OBSERVED.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a table of validations") from error
    for name, curve in curves.items():
        if not all(math.isfinite(loss) for _, loss in curve):
            raise ConfigError(f"{path}: {OBSERVED[name]} is not finite in every row")
    return {name: curve for name, curve in curves.items() if curve}


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _folders_named(name: str, runs: Path) -> list[Path]:
    configs = sorted(runs.glob("**/config.json")) if runs.is_dir() else []
    return [path.parent for path in configs if _read_json(path).get("name") == name]


def _name_in(path: Path) -> str:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return _field(table, "name", str, where=str(path))


def _read_json(path: Path, *, hint: str = "") -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path.parent}: has no {path.name}; {hint}".rstrip("; ")) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a table")
    return content


def _field(table: dict[str, Any], name: str, kind: type[T], *, where: str) -> T:
    value = table.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{where}: {name!r} is missing or no {kind.__name__}")
    return value
