"""The cache of prepared clips: what its files hold, how they are written, and which cache fits.

Each clip has two parts beside each other, so that a corrected offset redoes only the sound:
    <file>.video.npz   crops uint8 [N, 48, 96] or [N, 48, 96, 3], lips float16 [N, 40, 3], first_tick
    <file>.audio.npz   mel float16 [T, 80], origin_tick, first_tick, ticks, advance_samples; with --sound
                       also sound int16 [S], the samples from the mel's origin on

All crops of a cache are of one kind, which its manifest names:
    grey                  the tool's own: mouths with level eyes, grey, beside their lip geometry
    published             the paper's: the lower half of a face detector's box, RGB; lips are zeros
    published-own-boxes   the same from the boxes of the tool's detector, which are tighter than S3FD's
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avsync_cli.contract import contract
from avsync_cli.errors import ConfigError
from avsync_cli.spec import CROP_DEFINITION
from training.whole_file import whole_file, write_json

VERSION = 1
MANIFEST = "manifest.json"
SOUND_FULL_SCALE = 32767  # what a sample of 1 is kept as
GREY = "grey"
PUBLISHED = "published"
PUBLISHED_OWN_BOXES = "published-own-boxes"
CROPS = (GREY, PUBLISHED, PUBLISHED_OWN_BOXES)

# What prepared clips depend on, of a student's contract.
_TERMS = ("video_fps", "sample_rate_hz", "window_frames", "window_mel_steps", "mel", "lips")
# The first caches did not declare the scale of the mel; it has never been another.
_FIRST_MEL_TERMS = ("n_fft", "hop_samples", "bins", "min_hz", "max_hz")


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


def prepared_inputs() -> dict[str, Any]:
    """What is prepared, for caches and shards to declare: plain JSON values."""
    declared = contract()
    return {key: declared[key] for key in _TERMS} | {"crop": CROP_DEFINITION}


def are_ours(declared: Any) -> bool:  # noqa: ANN401 - what a file holds
    """Whether a cache or shards declare the inputs that this version prepares; other terms do not count."""
    ours = prepared_inputs()
    first = ours | {"mel": {key: ours["mel"][key] for key in _FIRST_MEL_TERMS}}
    return isinstance(declared, dict) and {key: declared.get(key) for key in ours} in (ours, first)


def video_path(cache: Path, file: str) -> Path:
    return cache / f"{file}.video.npz"


def audio_path(cache: Path, file: str) -> Path:
    return cache / f"{file}.audio.npz"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write an npz file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for options


def write_manifest(cache: Path, clips: list[CachedClip], *, crop: str = GREY) -> None:
    """Write the manifest that makes a folder of parts a cache."""
    content = {
        "version": VERSION,
        "contract": prepared_inputs(),
        "crop": crop,
        "clips": [asdict(clip) for clip in sorted(clips, key=lambda clip: clip.file)],
    }
    write_json(cache / MANIFEST, content)


def open_cache(cache: Path, *, crop: str = GREY) -> list[CachedClip]:
    """What a cache to be filled holds already; a new one gets its manifest before its first part.

    So parts of another definition are never taken for ours. Raises ConfigError where they would be.
    """
    if (cache / MANIFEST).exists():
        clips, held = _read(cache)
        if held != crop:
            raise ConfigError(f"{cache}: holds {held} crops, not {crop} ones; use an empty folder")
        return clips
    if any(cache.rglob("*.npz")):
        raise ConfigError(f"{cache}: holds parts without a manifest; use an empty folder")
    write_manifest(cache, [], crop=crop)
    return []


def read_manifest(cache: Path) -> list[CachedClip]:
    """The clips of a cache. Raises ConfigError where it is missing or made by another definition."""
    return _read(cache)[0]


def read_crop(cache: Path) -> str:
    """The kind of the crops of a cache. Raises ConfigError as `read_manifest`."""
    return _read(cache)[1]


def require_grey(cache: Path) -> None:
    """Raises ConfigError where a cache holds other crops than the tool's own."""
    crop = read_crop(cache)
    if crop != GREY:
        raise ConfigError(f"{cache}: holds {crop} crops (RGB faces), but this needs the tool's own grey ones")


def require_rgb(cache: Path) -> None:
    """Raises ConfigError where a cache holds grey crops."""
    if read_crop(cache) == GREY:
        raise ConfigError(f"{cache}: holds grey crops, but this needs RGB faces (prepare --crop published)")


def _read(cache: Path) -> tuple[list[CachedClip], str]:
    path = cache / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, made_for, rows = content["version"], content["contract"], content["clips"]
        crop = content.get("crop", GREY)  # caches made before there were other kinds do not say
        clips = [CachedClip(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: no manifest of a cache; run `python -m training prepare`") from error
    if version != VERSION or not are_ours(made_for) or crop not in CROPS:
        raise ConfigError(f"{path}: made for another version or other inputs; prepare the corpus again")
    return clips, crop


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_parts(cache: Path, clip: CachedClip) -> tuple[bytes, bytes]:
    """The files of both parts, video and audio.

    Raises ConfigError where one is missing or is not the one of the manifest.
    """
    parts = (
        (video_path(cache, clip.file), clip.video_sha256),
        (audio_path(cache, clip.file), clip.audio_sha256),
    )
    files = []
    for path, sha256 in parts:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; prepare the corpus again") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ConfigError(f"{path}: not what the manifest says; delete it and prepare the corpus again")
        files.append(data)
    return files[0], files[1]


def unpack_parts(video: bytes, audio: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of both parts; the tick of the video's first frame is `video_tick`."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    with np.load(io.BytesIO(video)) as part:
        arrays |= {"video_tick" if name == "first_tick" else name: part[name] for name in part}
    with np.load(io.BytesIO(audio)) as part:
        arrays |= {name: part[name] for name in part}
    return arrays
