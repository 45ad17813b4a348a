"""Files that are not on this machine, through fsspec: listed here, copied by the worker that checks them.

They are copied whole, because a video is read from its end (where MP4 keeps its index) and then from its
beginning, and a decoder's many small reads cost a round trip each; the folder they are copied to goes with
the worker, however that ends.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsync_cli.batch.records import FileError, Item
from avsync_cli.errors import ConfigError
from avsync_cli.machine import MB

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")
_CHAIN = re.compile(r"::[a-z][a-z0-9+.-]*://")
_TIME_KEYS = ("LastModified", "mtime", "last_modified", "updated", "modified", "created", "Last-Modified")
_PIECE_BYTES = 32 * MB  # a request each

Wanted = Callable[[str], bool]  # by the path below the folder


@dataclass(frozen=True)
class _Listing:
    """A store that is listed, what is wanted of it, and where folders that cannot be read are told."""

    filesystem: "AbstractFileSystem"
    takes: Wanted
    leaves_out: Wanted
    unread: list[str]


def is_address(source: str) -> bool:
    return _ADDRESS.match(source) is not None


def name_folders(below: str) -> list[str]:
    """The folders that a path leads through, from the first on, and the path itself."""
    parts = below.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def list_address(
    source: str, takes: Wanted, leaves_out: Wanted, unread: list[str], *, listed: bool = False
) -> Iterator[Item]:
    """The wanted files at an address: a file, a folder, or a pattern.

    One from a list is not asked what it is, which would cost a round trip a line: it is a folder if it ends
    with "/". Folders that cannot be read are told to `unread`. Raises ConfigError without the extra.
    """
    filesystem, root = _open_address(source)
    if leaves_out(source):
        return
    listing = _Listing(filesystem, takes, leaves_out, unread)
    try:
        if source.endswith("/"):
            yield from _walk(listing, source, root)
        elif listed:
            yield Item(source, source)
        else:
            yield from _look(listing, source, root)
    except Exception as error:  # each store raises its own, and fsspec lets them pass
        unread.append(f"{source}: {_reason_of(error)}")


def stat_address(item: Item) -> Item:
    """The item with its present size and time, as far as the store tells. Raises FileError."""
    filesystem, path = _reach(item)
    try:
        return _with_details(item, filesystem.info(path))
    except Exception as error:  # as above
        raise FileError("unreachable", _reason_of(error)) from error


def copy_address(item: Item, folder: Path, *, limit_bytes: int) -> Path:
    """Copy a file here, at most `limit_bytes` of it. Raises FileError."""
    filesystem, path = _reach(item)
    name = path.rpartition("/")[2].partition("?")[0]
    copy = folder / f"copy{Path(name).suffix[:16]}"
    if item.size is not None:
        _refuse_large(item.size, limit_bytes)
        if shutil.disk_usage(folder).free < item.size:
            raise FileError("no_space", f"{folder} has no room for its {item.size / MB:.0f} MB")
    copied = 0
    try:
        with filesystem.open(path, "rb", cache_type="none") as source, copy.open("wb") as target:
            while piece := source.read(_PIECE_BYTES):
                copied += len(piece)
                _refuse_large(copied, limit_bytes)
                target.write(piece)
    except FileError:
        raise
    except Exception as error:  # as above
        raise FileError("unreachable", _reason_of(error)) from error
    if item.size is not None and copied != item.size:
        raise FileError("changed", f"has {copied} bytes, but had {item.size} when it was listed")
    return copy


def _look(listing: _Listing, source: str, root: str) -> Iterator[Item]:
    """A file or a folder, whichever is there; a pattern if nothing is."""
    try:
        details = listing.filesystem.info(root)
    except FileNotFoundError:
        # In the addresses of the web "?" begins a query.
        if source.startswith("http") or not has_magic(root):
            raise
        yield from _fit(listing, source, root)
        return
    if details["type"] == "directory":
        yield from _walk(listing, source, root)
    else:
        yield _with_details(Item(source, source), details)


def _fit(listing: _Listing, source: str, root: str) -> Iterator[Item]:
    """The files that a pattern fits, and the wanted ones below the folders that it fits."""
    matches = sorted(listing.filesystem.glob(root, detail=True).items())
    if not matches:
        raise FileNotFoundError("fits no file")
    fixed = next(n for n, part in enumerate(root.split("/")) if has_magic(part))
    walked: set[str] = set()
    for path, details in matches:
        path = path.rstrip("/")
        item = _item(listing.filesystem, source, root, path)
        if any(map(listing.leaves_out, name_folders("/".join(path.split("/")[fixed:])))):
            continue
        if details["type"] != "directory":
            yield _with_details(item, details)
        elif walked.isdisjoint(name_folders(path)):
            walked.add(path)
            yield from _walk(listing, item.path, path)


def _walk(listing: _Listing, source: str, root: str) -> Iterator[Item]:
    """Every wanted file below a folder, one listing at a time: those of a million files fill a gigabyte."""
    ahead, visited = [root], {root.rstrip("/")}
    while ahead:
        folder = ahead.pop()
        try:
            entries = sorted(listing.filesystem.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
            listing.filesystem.invalidate_cache(folder)
        except Exception as error:  # as in `list_address`
            listing.unread.append(
                f"{_item(listing.filesystem, source, root, folder).file}: {_reason_of(error)}"
            )
            continue
        folders = []
        for entry in entries:
            path = str(entry["name"])
            below = path.removeprefix(root.rstrip("/")).strip("/")
            if entry["type"] == "directory":
                if path.rstrip("/") not in visited and not listing.leaves_out(below):
                    folders.append(path)
                    visited.add(path.rstrip("/"))
            elif not path.endswith("/") and listing.takes(below):
                yield _with_details(_item(listing.filesystem, source, root, path), entry)
        ahead += reversed(folders)


def _item(filesystem: "AbstractFileSystem", source: str, root: str, path: str) -> Item:
    """The file at `path` of the store, with the address as the source wrote it: host, user and all."""
    prefix = source.removesuffix("/").removesuffix(root.rstrip("/"))
    known = source.rstrip("/").endswith(root.rstrip("/"))
    address = prefix + path if known else filesystem.unstrip_protocol(path)
    return Item(address, address)


def _with_details(item: Item, details: dict[str, Any]) -> Item:
    size = details.get("size")
    times = (_seconds(details[key]) for key in _TIME_KEYS if details.get(key) is not None)
    return replace(item, size=None if size is None else int(size), mtime=next(times, None))


def _seconds(value: Any) -> float | None:  # noqa: ANN401 - every store has its own
    """A store's time as seconds since 1970."""
    if isinstance(value, int | float):
        return float(value)
    try:
        if isinstance(value, str):
            value = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
    except ValueError:
        return None
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _refuse_large(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise FileError("too_large", f"is larger than the {limit_bytes // MB} MB that are copied")


def _open_address(source: str) -> tuple["AbstractFileSystem", str]:
    """The store of an address, and the path in it. Raises ConfigError."""
    if _CHAIN.search(source):
        raise ConfigError(f"{source}: addresses inside addresses cannot be scanned")
    try:
        from fsspec import get_filesystem_class

        # fsspec's own `url_to_fs` takes any "::" for an address inside an address.
        kind = get_filesystem_class(source.partition("://")[0])
        filesystem, path = kind(**kind._get_kwargs_from_urls(source)), kind._strip_protocol(source)
    except ImportError as error:
        why = "" if "fsspec" in str(error) else f" ({error})"
        raise ConfigError(
            f"{source}: addresses need the extra `remote`: pip install 'avsync-cli[remote]'{why}"
        ) from error
    except Exception as error:  # an unknown protocol, settings that cannot be read
        raise ConfigError(f"{source}: {_reason_of(error)}") from error
    return filesystem, str(path)


def _reach(item: Item) -> tuple["AbstractFileSystem", str]:
    """The store of a file, and the path in it. Raises FileError."""
    try:
        return _open_address(item.path)
    except ConfigError as error:
        raise FileError("unreachable", str(error)) from error


def _reason_of(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
