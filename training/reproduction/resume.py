"""What an earlier `reproduce` left in its folder: whether it would be made now, and figures shared by runs.

A run folder is taken up only if its `config.json` says what would be said now, but for where files lie. Data
are taken up only if `data.json` beside them names the same folder and lists.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avsync_cli.errors import ConfigError
from training.baseline_recipe import BaselineConfig
from training.config import as_table, from_table
from training.data.cache import sha256_of
from training.data.provenance import provenance_of
from training.evaluation.evaluate import write_result
from training.loops.distill import origin_of, without_paths
from training.losses.relations import LAST_LAYER
from training.recipe import Recipe
from training.reproduction.runs import METRICS

DATA = "data.json"
CONFIG = "config.json"

AnyRecipe = Recipe | BaselineConfig

_NAMES = ("name", "label", "experiment")
_TABLES = ("log.csv", "val.csv")


def require_same_data(output: Path, root: Path, lists: Sequence[str]) -> None:
    """Note what the data in a folder are made of. Raises ConfigError where they are of something else."""
    made_of: dict[str, Any] = {"root": str(root.resolve()), "lists": {}}
    for name in lists:
        if not (root / name).is_file():
            raise ConfigError(f"{root / name}: no such list")
        made_of["lists"][name] = sha256_of(root / name)
    if not (output / DATA).exists():
        if (output / "cache").exists() or (output / "shards").exists():
            raise ConfigError(f"{output}: holds data without a {DATA} of what made them; use an empty folder")
        output.mkdir(parents=True, exist_ok=True)
        write_result(output / DATA, made_of)
        return
    held = _read(output / DATA)
    if held.get("root") != made_of["root"]:
        raise ConfigError(f"{output}: holds the data of {held.get('root')}, not of {made_of['root']}")
    differing = [name for name in lists if held.get("lists", {}).get(name) != made_of["lists"][name]]
    if differing:
        raise ConfigError(
            f"{output}: its data were made by another {', '.join(differing)}; use an empty folder"
        )


def require_same_run(run: Path, recipe: AnyRecipe) -> None:
    """Raises ConfigError where a run folder was made by another recipe, or from other data or weights."""
    table = _read(run / CONFIG)
    origin = table.pop("origin", None)
    if not isinstance(origin, dict):
        raise ConfigError(f"{run / CONFIG}: does not say where the run comes from")
    held = from_table(type(recipe), table, where=str(run / CONFIG))
    before, now = as_table(_comparable(held)), as_table(_comparable(recipe))
    differing = [key for key in now if before[key] != now[key]]
    expected = _origin(recipe)
    differing += [key for key in expected if key != "commit" and origin.get(key) != expected[key]]
    if differing:
        raise ConfigError(f"{run}: holds a run that differs in {', '.join(differing)}; use another folder")


def find_original(recipe: AnyRecipe, recipes: Sequence[AnyRecipe]) -> AnyRecipe:
    """The recipe whose run has the figures of `recipe` too: the first that trains the same.

    One that observes comes before those that do not, as observing changes no weights.
    """
    same = [other for other in recipes if _training_of(other) == _training_of(recipe)]
    return next((other for other in same if other.validation.observe), same[0])


def copy_figures(original: Path, run: Path, recipe: AnyRecipe) -> None:
    """Write a run folder that has another run's figures under its own name; it says whose they are."""
    run.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        shutil.copyfile(original / name, run / name)
    origin = _read(original / CONFIG)["origin"] | {"run_of": original.name}
    write_result(run / CONFIG, as_table(recipe) | {"origin": origin})
    own = {key: getattr(recipe, key) for key in _NAMES}
    own["method"] = recipe.method.name if isinstance(recipe, Recipe) else recipe.method
    write_result(run / METRICS, _read(original / METRICS) | own | {"run_of": original.name})


def _comparable(recipe: AnyRecipe) -> AnyRecipe:
    return (
        without_paths(recipe)
        if isinstance(recipe, Recipe)
        else replace(recipe, cache="", speed=recipe.speed.of_any_machine())
    )


def _origin(recipe: AnyRecipe) -> dict[str, Any]:
    """What a run's origin would say, but for what it says in words."""
    if isinstance(recipe, BaselineConfig):
        return provenance_of(Path(recipe.cache))
    weights = recipe.network.weights
    return origin_of(recipe) | {"start_sha256": "" if weights is None else sha256_of(Path(weights))}


def _training_of(recipe: AnyRecipe) -> dict[str, Any]:
    """All of a recipe that its weights depend on."""
    table = as_table(recipe)
    del table["validation"]["observe"]
    if isinstance(recipe, Recipe):
        method = table["method"]
        if method["name"] == "MiniLM":  # which is equation 3 for the last layer
            method |= {"name": "NMTD", "layers": method["layers"] or list(LAST_LAYER)}
        if isinstance(method["layers"], str):
            method["layers"] = [method["layers"]]
    return {key: value for key, value in table.items() if key not in _NAMES}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a table")
    return content
