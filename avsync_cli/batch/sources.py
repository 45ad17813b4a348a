"""Which files a scan is about: folders, patterns, lists and addresses become items, each file once."""

import glob
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from avsync_cli.batch.records import FileError, Item
from avsync_cli.batch.remote import is_address, list_address, name_folders, stat_address
from avsync_cli.errors import ConfigError, first_line

STDIN = "-"
LIST_SUFFIXES = frozenset((".txt", ".list", ".lst"))
PLAYLIST_SUFFIXES = frozenset((".m3u", ".m3u8"))
VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m1v", ".m2t", ".m2ts", ".m2v"),
        *(".m4v", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv"),
        *(".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
    )
)


@dataclass(frozen=True)
class Filter:
    """Which files of a folder are taken; shell patterns without regard to case, videos where none is given.

    A pattern is compared with the name and with the path below the folder. What `exclude` matches is left
    out everywhere, and a folder with all that is in it. `outputs` are the scan's own files. With `playlists`
    these are taken as videos are.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    outputs: frozenset[str] = frozenset()
    playlists: bool = False

    def takes(self, below: str) -> bool:
        """Whether a file in a folder is wanted, by its path below the folder."""
        if self.include:
            return _matches(below, self.include) and not self.leaves_out(below)
        name = os.path.basename(below)
        suffix = os.path.splitext(name)[1].lower()
        is_video = suffix in VIDEO_SUFFIXES or (self.playlists and suffix in PLAYLIST_SUFFIXES)
        # macOS leaves a "._" beside each file that it copies to another file system.
        return is_video and not name.startswith("._") and not self.leaves_out(below)

    def leaves_out(self, name: str) -> bool:
        return _matches(name, self.exclude)


@dataclass
class Found:
    """The files by path, in the order in which they came, and a line for every folder that cannot be read."""

    items: dict[str, Item] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def find_files(sources: Sequence[str], filters: Filter) -> Found:
    """Find the files of all `sources`.

    A source is a folder, a file, a shell pattern, an address (`s3://...`), a list of any but patterns (a
    file in .txt, .list or .lst) or "-" for such a list on standard input. Raises ConfigError where a list
    cannot be read, a pattern fits nothing, or nothing is found at all.
    """
    found, visited = Found(), set[tuple[int, int]]()
    for source in sources:
        for item in _expand(source, filters, found, visited):
            if item.path not in filters.outputs:
                found.items.setdefault(item.path, item)
    if not found.items and not found.unread:
        shown = ", ".join(sources[:3]) + (", ..." if len(sources) > 3 else "")
        raise ConfigError(f"no videos in {shown}")
    return found


def examine(item: Item) -> Item:
    """The item with its present size and time. Raises FileError where it cannot be a video."""
    if is_address(item.path):
        return item if item.size is not None else stat_address(item)
    try:
        status = os.stat(item.path)
    except (OSError, ValueError) as error:
        raise FileError("unreadable", first_line(error)) from error
    if not stat.S_ISREG(status.st_mode):
        # Reading a pipe or a device may never end.
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise FileError("unreadable", f"is {kind}, not a file")
    return replace(item, size=status.st_size, mtime=status.st_mtime)


def _expand(
    source: str, filters: Filter, found: Found, visited: set[tuple[int, int]], *, listed: bool = False
) -> Iterator[Item]:
    if source == STDIN and not listed:
        for line in _read_list(sys.stdin.buffer.read()):
            yield from _expand(line, filters, found, visited, listed=True)
        return
    source = source.removeprefix("file://")
    if is_address(source):
        yield from list_address(source, filters.takes, filters.leaves_out, found.unread, listed=listed)
    elif os.path.isdir(source):
        yield from _walk(source, filters, found, visited)
    elif os.path.lexists(source):
        if Path(source).suffix.lower() in LIST_SUFFIXES and not listed:
            for line in _read_list(_read_bytes(source)):
                yield from _expand(line, filters, found, visited, listed=True)
        elif not filters.leaves_out(source):
            yield Item(source, os.path.realpath(source))
    elif glob.has_magic(source) and not listed:
        source = re.sub("/{2,}", "/", source.replace(os.sep, "/"))
        names = _fit(source, found)
        if not names:
            raise ConfigError(f"{source}: fits no file")
        fixed = next(n for n, part in enumerate(source.split("/")) if glob.has_magic(part))
        for name in names:
            below = "/".join(name.split("/")[fixed:])
            if not any(map(filters.leaves_out, name_folders(below))):
                yield from _expand(name, filters, found, visited, listed=True)
    else:
        yield Item(source, os.path.realpath(source))  # its record will say that there is none


def _fit(pattern: str, found: Found) -> list[str]:
    """What a shell pattern fits, in order, where "**" stands for any folders.

    `glob` would follow links round and round below "**".
    """
    parts = pattern.split("/")
    if "**" not in parts:
        return sorted(glob.glob(pattern))
    at = parts.index("**")
    head, tail = "/".join(parts[:at]), "/".join(parts[at + 1 :]) or "*"
    starts = glob.glob(head + "/") if head else ["/" if at else ""]
    folders = (folder for start in starts for folder in _folders_below(start, found))
    return sorted({name for folder in folders for name in _fit(glob.escape(folder) + tail, found)})


def _folders_below(start: str, found: Found) -> Iterator[str]:
    """`start` and the folders below it that are not hidden, each once; all end with "/"."""
    ahead, visited = [start], set[tuple[int, int]]()
    while ahead:
        folder = ahead.pop()
        try:
            status = os.stat(folder or ".")
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder or ".") as listing:
                inner = [
                    entry.name for entry in listing if not entry.name.startswith(".") and _is_folder(entry)
                ]
        except OSError as error:
            found.unread.append(f"{folder}: {error.strerror or error}, so its files are not known")
            continue
        yield folder
        ahead += (f"{folder}{name}/" for name in inner)


def _walk(folder: str, filters: Filter, found: Found, visited: set[tuple[int, int]]) -> Iterator[Item]:
    """Every wanted file below a folder; one that links lead to again and again is entered once."""
    ahead = [(folder, os.path.realpath(folder), "")]
    while ahead:
        name, real, below = ahead.pop()
        try:
            status = os.stat(real)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(real) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            found.unread.append(f"{name}: {error.strerror or error}, so its files are not known")
            continue
        folders = []
        for entry in entries:
            inner = os.path.join(below, entry.name)
            path = os.path.join(real, entry.name)
            if entry.is_symlink():
                path = os.path.realpath(path)
            if _is_folder(entry):
                if not filters.leaves_out(inner):
                    folders.append((os.path.join(name, entry.name), path, inner))
            elif filters.takes(inner):
                shown = os.path.join(name, entry.name)
                yield Item(path if shown == path else shown, path)
        ahead += reversed(folders)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _read_list(data: bytes) -> Iterable[str]:
    """One name a line, or, as `find -print0` writes them, each ended by a NUL."""
    parts = data.split(b"\0") if b"\0" in data else data.splitlines()
    return (os.fsdecode(part) for part in parts if part)


def _read_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _matches(name: str, patterns: Iterable[str]) -> bool:
    lower = name.lower().replace(os.sep, "/")
    short = lower.rpartition("/")[2]
    return any(fnmatchcase(short, p.lower()) or fnmatchcase(lower, p.lower()) for p in patterns)
