"""TOML files as tables: what a file builds on, and what is changed for one run."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avsync_cli.errors import ConfigError

BASE = "base"  # a file's key that names another, beside it, whose keys it takes over


def read_table(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A file's table over that of its base, and the `changes` KEY=VALUE over both. Raises ConfigError.

    KEY may lead into a table, as in optimiser.learning_rate; VALUE is written as in TOML, but a word needs no
    quotation marks.
    """
    table = _read(path, ())
    for change in changes:
        key, is_given, text = change.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not is_given or not all(names):
            raise ConfigError(f"--set {change}: must be KEY=VALUE")
        value: Any = parse_value(text.strip())
        for name in reversed(names):
            value = {name: value}
        table = merge(table, value)
    return table


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The keys of both; where both have a table, the keys of both tables. An empty table takes the other's
    place."""
    merged = dict(under)
    for key, value in over.items():
        held = merged.get(key)
        if isinstance(held, dict) and isinstance(value, dict) and value:
            value = merge(held, value)
        merged[key] = value
    return merged


def parse_value(text: str) -> Any:  # noqa: ANN401 - whatever TOML can say
    """A value written as in TOML; what is none there is a word."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return table["value"] if table.keys() == {"value"} else text


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    base = table.pop(BASE, None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise ConfigError(f"{path}: {BASE}: must be a file's name")
    place = (path.parent / base).resolve()
    if place in before:
        raise ConfigError(f"{path}: {BASE}: builds on itself by way of {base}")
    return merge(_read(place, (*before, path.resolve(), place)), table)
