"""Write a student's `model.json`, as the exporters and the calibration do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avsync_cli.model import CONTRACT_FILE


def write_contract(folder: Path, declared: Mapping[str, Any]) -> None:
    """Write `model.json` whole or not at all."""
    path = folder / CONTRACT_FILE
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(declared, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
