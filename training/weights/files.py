"""Files of weights: read whatever they hold, and written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from avsync_cli.errors import ConfigError, ModelError
from training.config import as_table, from_table
from training.whole_file import whole_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

SAFETENSORS = ".safetensors"


def read_weights_file(path: Path) -> Mapping[str, Any]:
    """What a file of weights holds. Raises ModelError where it cannot be read."""
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load's errors share no base class
        raise ModelError(f"{path}: not weights that can be read") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: not a state dict")
    return content


def write_checkpoint(path: Path, checkpoint: "DataclassInstance", kind: str, *, version: int) -> None:
    """Write a checkpoint whole or not at all: its fields by their names, configurations as tables."""
    held = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    tables = {name: as_table(value) for name, value in held.items() if is_dataclass(value)}
    write_whole(path, {"format": kind, "version": version} | held | tables)


def parse_checkpoint(cls: type[T], content: Mapping[str, Any], path: Path, kind: str, *, version: int) -> T:
    """The checkpoint that a file holds, as `write_checkpoint` wrote it. Raises ModelError."""
    if (content.get("format"), content.get("version")) != (kind, version):
        raise ModelError(f"{path}: not an {kind} of version {version}")
    types = get_type_hints(cls)
    try:
        held = {name: content[name] for name in types}
        configs = {
            name: from_table(type_, held[name], where=str(path))
            for name, type_ in types.items()
            if isinstance(type_, type) and is_dataclass(type_)
        }
    except (ConfigError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a checkpoint that can be read") from error
    return cls(**(held | configs))


def write_safetensors(path: Path, weights: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors with metadata, whole or not at all. Raises ConfigError without the package."""
    save = _safetensors(path).save_file
    with whole_file(path) as unfinished:
        save(weights, unfinished, metadata=about or None)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    """The tensors, under the key and beside the values that the metadata gives, if it is a file of ours."""
    library = _safetensors(path)
    try:
        with library.safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - is no dict
        key = about.pop("weights", "")
        if not key:
            return weights
        return {name: json.loads(value) for name, value in about.items()} | {key: weights}
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # the package's errors share no base class
        raise ModelError(f"{path}: not weights that can be read") from error


def _safetensors(path: Path) -> Any:  # noqa: ANN401 - a module that may not be there
    try:
        import safetensors.torch
    except ImportError as error:
        raise ConfigError(f"{path}: needs the package safetensors (pip install safetensors)") from error
    return safetensors.torch


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write a file of weights whole or not at all."""
    with whole_file(path) as unfinished:
        torch.save(content, unfinished)
