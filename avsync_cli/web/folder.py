"""The videos of the folder that was opened to the page, and nothing that lies elsewhere."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from avsync_cli.batch.records import FileError, Item
from avsync_cli.batch.sources import Filter, examine
from avsync_cli.errors import ConfigError

MOST_VIDEOS = 1000  # that are listed


@dataclass
class Folder:
    """`root` is absolute and without links. The page names a video by a key, and never by a path."""

    root: Path
    videos: dict[str, Item] = field(default_factory=dict)  # as listed last
    is_cut: bool = False  # whether there are more


def open_folder(path: Path) -> Folder:
    """Raises ConfigError."""
    root = Path(os.path.realpath(path))
    if not root.is_dir():
        raise ConfigError(f"{path}: is no folder")
    return Folder(root)


def list_videos(folder: Folder) -> None:
    """Look what there is now, in the order of names; each item is called by its path below the folder.

    Folders that links lead to are not entered.
    """
    videos: dict[str, Item] = {}
    folder.is_cut = False
    for name in _walk(folder.root):
        with suppress(FileError):
            item = _examine_inside(Item(name, str(folder.root / name)), folder)
            if len(videos) >= MOST_VIDEOS:
                folder.is_cut = True
                break
            videos[hashlib.sha256(os.fsencode(name)).hexdigest()[:16]] = item
    folder.videos = videos


def find_video(folder: Folder, key: str) -> Item | None:
    """A video that was listed, if it still lies in the folder, with its path as it is now."""
    item = folder.videos.get(key)
    if item is None:
        return None
    try:
        return _examine_inside(replace(item, path=str(folder.root / item.file)), folder)
    except FileError:
        return None


def _walk(root: Path) -> Iterator[str]:
    for place, folders, names in os.walk(root):
        folders.sort()
        below = (os.path.relpath(os.path.join(place, name), root) for name in sorted(names))
        yield from filter(Filter().takes, below)


def _examine_inside(item: Item, folder: Folder) -> Item:
    """The item with its real path, size and time. Raises FileError where that is not in the folder."""
    real = os.path.realpath(item.path)
    if not Path(real).is_relative_to(folder.root):
        raise FileError("unreadable", "lies elsewhere")
    return examine(replace(item, path=real))
