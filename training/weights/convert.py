"""The weights to use of any checkpoint, alone: as safetensors, or as a checkpoint without what a run goes on
from.

A safetensors file says what the checkpoint says of itself, as JSON in its metadata, so that it can take a
checkpoint's place. One without that metadata holds bare weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avsync_cli.errors import ConfigError, ModelError
from training.weights import baseline_checkpoint, match_checkpoint, recipe_checkpoint
from training.weights.files import SAFETENSORS, read_weights_file, write_safetensors, write_whole

# What is left out of each kind, and under which key the weights to use are.
_REST: Mapping[str, tuple[str, dict[str, Any]]] = {
    recipe_checkpoint.FORMAT: ("network", {"rest": {}}),
    baseline_checkpoint.FORMAT: ("network", {"rest": {}}),
    match_checkpoint.FORMAT: ("average", {"model": {}, "optimiser": {}}),
}


def convert_weights(source: Path, target: Path) -> None:
    """Write the weights to use of a checkpoint, or bare weights. Raises ConfigError or ModelError."""
    if target.suffix not in (SAFETENSORS, ".pt", ".pth"):
        raise ConfigError(f"{target}: must end with {SAFETENSORS}, .pt or .pth")
    if target.exists():
        raise ConfigError(f"{target}: exists already")
    content = dict(read_weights_file(source))
    key, without = _REST.get(str(content.get("format")), ("", {}))
    content |= without
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix != SAFETENSORS:
            write_whole(target, content)
            return
        weights = content.pop(key) if key else content.pop("state_dict", content)
        about = {name: json.dumps(value) for name, value in content.items()} | {"weights": key} if key else {}
        write_safetensors(target, _apart(weights, source), about)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror or error}") from error


def _apart(weights: Any, source: Path) -> dict[str, Tensor]:  # noqa: ANN401 - what a file holds
    """Tensors that share no memory, as safetensors wants them."""
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(f"{source}: holds something else than tensors")
    return {str(key): value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
