"""Recipes of the least size for the synthetic cache, and networks to go with them."""

from pathlib import Path
from typing import Any

import torch

from training.config import from_table
from training.loops.distill import make_trainer
from training.loops.steps import RecipeTrainer
from training.networks.presets import make_network
from training.processes import Processes
from training.recipe import NetworkConfig, Recipe
from training.weights.recipe_checkpoint import RecipeCheckpoint, save_recipe_checkpoint

PUBLISHED_DIMS: dict[str, Any] = {"width": 16, "channels": [4, 4, 8, 8, 16], "heads": 2}
COMPACT_DIMS: dict[str, Any] = {
    "width": 16,
    "heads": 2,
    "audio_widths": [8, 8, 8, 8],
    "sizes": {"video_widths": [8, 8, 8], "lips_width": 16},
}
STUDENT: dict[str, Any] = {"preset": "mtdvocalist-edge", "dims": COMPACT_DIMS}
TEACHER: dict[str, Any] = {"preset": "vocalist-compact", "dims": COMPACT_DIMS | {"width": 24}}
PUBLISHED: dict[str, Any] = {"preset": "mtdvocalist", "dims": PUBLISHED_DIMS}
MTD_RECIPE: dict[str, Any] = {
    "method": {"name": "MTD"},
    "optimiser": {"ema": 0.9, "schedule": "cosine", "clip_norm": 5.0, "name": "adamw"},
    "data": {"augment": {"blur": 0.5}},
    "validation": {"observe": ["MTD", "Last-MTD", "FitNets"], "every_steps": 2},
}


def make_recipe(cache: Path, **changes: Any) -> Recipe:
    """A recipe of 6 steps of 8 pairs in two micro-batches; a table in `changes` is merged into its own."""
    table: dict[str, Any] = {
        "name": "tiny",
        "cache": str(cache),
        "network": STUDENT,
        "method": {"name": "BCE"},
        "optimiser": {"learning_rate": 1e-3, "warm_up": 0},
        "data": {"batch": 8, "micro_batches": 2, "epochs": 2, "epoch_pairs": 24},
        "validation": {"pairs": 8},
        "threads": 1,
        "device": "cpu",
        "log_every": 1,
    }
    for key, value in changes.items():
        is_table = isinstance(value, dict) and key not in ("network", "teacher")
        table[key] = table.get(key, {}) | value if is_table else value
    return from_table(Recipe, table, where="test")


def trainer_of(recipe: Recipe) -> RecipeTrainer:
    """The trainer of a recipe before its first step, in one process."""
    return make_trainer(recipe, torch.device("cpu"), Processes())[0]


def save_teacher(path: Path) -> Path:
    """A teacher with random weights, as a recipe would have left it."""
    torch.manual_seed(9)
    network = make_network(from_table(NetworkConfig, TEACHER, where="test"))
    recipe = make_recipe(Path("cache"), network=TEACHER)
    save_recipe_checkpoint(path, RecipeCheckpoint(recipe, 1, network.state_dict(), {}, {"commit": "x"}))
    return path
