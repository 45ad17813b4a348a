"""Write a student's `model.json`, as the exporters and the calibration do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avsync_cli.model import CONTRACT_FILE
from training.whole_file import write_json


def write_contract(folder: Path, declared: Mapping[str, Any]) -> None:
    """Write `model.json` whole or not at all."""
    write_json(folder / CONTRACT_FILE, declared)
