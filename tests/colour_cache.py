"""The synthetic cache in colour, as caches of published crops are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from synthetic_cache import make_cache

from training.data.cache import PUBLISHED, read_manifest, sha256_of, video_path, write_arrays, write_manifest


def make_colour_cache(folder: Path, *, clips: int = 6, frames: int = 40) -> Path:
    """A cache whose crops have three different channels."""
    make_cache(folder, clips=clips, frames=frames)
    entries = []
    for entry in read_manifest(folder):
        path = video_path(folder, entry.file)
        with np.load(path) as part:
            arrays = dict(part)
        arrays["crops"] = np.stack([arrays["crops"] // divisor for divisor in (1, 2, 3)], axis=-1)
        write_arrays(path, arrays)
        entries.append(replace(entry, video_sha256=sha256_of(path)))
    write_manifest(folder, entries, crop=PUBLISHED)
    return folder
