"""Checkpoints of recipes: `best.pt` holds a network to use, `last.pt` also what a run needs to go on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsync_cli.errors import ConfigError, ModelError
from training.checkpoint import write_whole
from training.config import as_table, from_table
from training.recipe import Recipe
from training.vocalist import read_weights_file

FORMAT = "avsync-recipe-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class RecipeCheckpoint:
    """`step` steps are done; `network` are the weights to use, averaged where the recipe keeps an average.

    `rest` is what a run goes on from: the student's own weights, the method's, the optimiser and the best F1;
    empty in a file that is only to be used. `origin` holds the commit and the hashes of data and files.
    """

    recipe: Recipe
    step: int
    network: dict[str, Any]
    rest: dict[str, Any]
    origin: dict[str, Any]


def save_recipe_checkpoint(path: Path, checkpoint: RecipeCheckpoint) -> None:
    """Write a checkpoint whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "recipe": as_table(checkpoint.recipe),
        "step": checkpoint.step,
        "network": checkpoint.network,
        "rest": checkpoint.rest,
        "origin": checkpoint.origin,
    }
    write_whole(path, content)


def load_recipe_checkpoint(path: Path) -> RecipeCheckpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    content = read_weights_file(path)
    if not is_recipe_checkpoint(content):
        raise ModelError(f"{path}: not a recipe's checkpoint of this version")
    try:
        recipe = from_table(Recipe, content["recipe"], where=str(path))
        return RecipeCheckpoint(
            recipe, **{key: content[key] for key in ("step", "network", "rest", "origin")}
        )
    except (ConfigError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a checkpoint that can be read") from error


def is_recipe_checkpoint(content: Any) -> bool:  # noqa: ANN401 - what a file holds
    """Whether the content of a file of weights is a recipe's checkpoint."""
    return (content.get("format"), content.get("version")) == (FORMAT, VERSION)
