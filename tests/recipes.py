"""Recipes of the least size for the synthetic cache, and networks to go with them."""

from pathlib import Path
from typing import Any

from training.config import from_table
from training.recipe import Recipe

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
