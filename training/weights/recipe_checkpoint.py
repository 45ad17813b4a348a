"""Checkpoints of recipes: `best.pt` holds a network to use, `last.pt` also what a run needs to go on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipe import Recipe
from training.weights.files import parse_checkpoint, read_weights_file, write_checkpoint

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
    write_checkpoint(path, checkpoint, FORMAT, version=VERSION)


def load_recipe_checkpoint(path: Path) -> RecipeCheckpoint:
    """Read a checkpoint. Raises ModelError where the file is not one."""
    return parse_recipe_checkpoint(read_weights_file(path), path)


def parse_recipe_checkpoint(content: Mapping[str, Any], path: Path) -> RecipeCheckpoint:
    """The checkpoint that a file holds. Raises ModelError where it holds another thing."""
    return parse_checkpoint(RecipeCheckpoint, content, path, FORMAT, version=VERSION)
