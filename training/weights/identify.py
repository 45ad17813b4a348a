"""Which kind of weights a file holds: read once, and told by what it says of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsync_cli.errors import ModelError
from training.weights import baseline_checkpoint, match_checkpoint, recipe_checkpoint
from training.weights.baseline_checkpoint import BaselineCheckpoint
from training.weights.files import read_weights_file
from training.weights.match_checkpoint import Checkpoint
from training.weights.recipe_checkpoint import RecipeCheckpoint

_DATA_PARALLEL = "module."  # what data-parallel training puts before each key


@dataclass(frozen=True)
class BareWeights:
    """Weights alone, as the authors publish them; the file does not say of which network."""

    weights: dict[str, Any]


Held = Checkpoint | RecipeCheckpoint | BaselineCheckpoint | BareWeights

_PARSERS: dict[str, Callable[[Mapping[str, Any], Path], Held]] = {
    match_checkpoint.FORMAT: match_checkpoint.parse_match_checkpoint,
    recipe_checkpoint.FORMAT: recipe_checkpoint.parse_recipe_checkpoint,
    baseline_checkpoint.FORMAT: baseline_checkpoint.parse_baseline,
}


def open_weights(path: Path) -> Held:
    """What a file of weights holds. Raises ModelError where it cannot be read."""
    content = read_weights_file(path)
    parse = _PARSERS.get(str(content.get("format")))
    return BareWeights(bare_weights(content, str(path))) if parse is None else parse(content, path)


def bare_weights(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The weights of the published form: bare or under "state_dict". Raises ModelError."""
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping):
        raise ModelError(f'{where}: "state_dict" does not hold weights')
    return {str(key).removeprefix(_DATA_PARALLEL): value for key, value in weights.items()}


def weights_of(held: Held) -> dict[str, Any]:
    """The weights to use: averaged where there is an average."""
    match held:
        case BareWeights():
            return held.weights
        case Checkpoint():
            return held.average
        case _:
            return held.network
