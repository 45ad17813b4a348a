"""Where a run comes from: the commit of this repository and the hash of its data."""

import hashlib
import subprocess
from pathlib import Path

from avsync_cli.errors import ConfigError
from training.data.cache import MANIFEST
from training.data.shards import INDEX


def provenance_of(folder: Path) -> dict[str, str]:
    """Where a run comes from: the commit and the hash of the cache's manifest, or of the shards' index.

    Raises ConfigError where the folder holds neither.
    """
    table = next((folder / name for name in (INDEX, MANIFEST) if (folder / name).exists()), None)
    if table is None:
        raise ConfigError(f"{folder}: no cache; run `python -m training prepare`")
    return _provenance(table)


def _provenance(table: Path) -> dict[str, str]:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    data = hashlib.sha256(table.read_bytes()).hexdigest()
    return {"commit": commit, "cache_manifest_sha256": data}
