"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avsync_cli.contract import CONTRACT_FILE
from avsync_cli.errors import ConfigError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a file beside this one to write, which then takes its place: no reader sees a part."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    yield unfinished
    unfinished.replace(path)


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:  # noqa: ANN401 - any JSON
    """Raises OSError."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def require_writable(path: Path) -> None:
    """Raises ConfigError where a file of that name could not be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path}: cannot be written")


def write_contract(folder: Path, declared: Mapping[str, Any]) -> None:
    """Write `model.json` whole or not at all."""
    write_json(folder / CONTRACT_FILE, declared)
