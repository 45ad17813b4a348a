"""JSON files that are written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:  # noqa: ANN401 - any JSON
    """Write beside the file, then take its place, so that a reader never sees a part. Raises OSError."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")
    unfinished.replace(path)
