"""The cache of prepared clips: what its files hold, how they are written, and which cache fits.

Each clip has two parts beside each other, so that a corrected offset redoes only the sound:
    <file>.video.npz   crops uint8 [N, 48, 96], lips float16 [N, 40, 3], first_tick
    <file>.audio.npz   mel float16 [T, 80], origin_tick, first_tick, ticks, advance_samples
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avsync_cli.errors import ConfigError
from avsync_cli.model import contract

VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CachedClip:
    """What the manifest says of a clip; `reason` says why it was left out, else it is None."""

    file: str
    split: str
    source: str
    domain: str
    machine_made: bool
    lead_frames: float
    frames: int = 0
    video_sha256: str = ""
    audio_sha256: str = ""
    reason: str | None = None


def video_path(cache: Path, file: str) -> Path:
    return cache / f"{file}.video.npz"


def audio_path(cache: Path, file: str) -> Path:
    return cache / f"{file}.audio.npz"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write an npz file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for options
    unfinished.replace(path)


def write_manifest(cache: Path, clips: list[CachedClip]) -> None:
    """Write the manifest that makes a folder of parts a cache."""
    content = {
        "version": VERSION,
        "contract": contract(),
        "clips": [asdict(clip) for clip in sorted(clips, key=lambda clip: clip.file)],
    }
    unfinished = cache / f"{MANIFEST}.part"
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(cache / MANIFEST)


def open_cache(cache: Path) -> list[CachedClip]:
    """What a cache to be filled holds already; a new one gets its manifest before its first part.

    So parts of another definition are never taken for ours. Raises ConfigError where they would be.
    """
    if (cache / MANIFEST).exists():
        return read_manifest(cache)
    if any(cache.rglob("*.npz")):
        raise ConfigError(f"{cache}: holds parts without a manifest; use an empty folder")
    write_manifest(cache, [])
    return []


def read_manifest(cache: Path) -> list[CachedClip]:
    """The clips of a cache. Raises ConfigError where it is missing or made by another definition."""
    path = cache / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, made_for, rows = content["version"], content["contract"], content["clips"]
        clips = [CachedClip(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no manifest of a cache; run `python -m training prepare`") from error
    if version != VERSION or made_for != contract():
        raise ConfigError(f"{path}: made for another version or other inputs; prepare the corpus again")
    return clips


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_parts(cache: Path, clip: CachedClip) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of both parts; the tick of the video's first frame is `video_tick`.

    Raises ConfigError where a part is missing or is not the one of the manifest.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    parts = ((video_path, clip.video_sha256, "video_"), (audio_path, clip.audio_sha256, ""))
    for path_of, sha256, prefix in parts:
        path = path_of(cache, clip.file)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; prepare the corpus again") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ConfigError(f"{path}: not what the manifest says; delete it and prepare the corpus again")
        with np.load(io.BytesIO(data)) as part:
            arrays |= {
                f"{prefix}tick" if name == "first_tick" and prefix else name: part[name] for name in part
            }
    return arrays
