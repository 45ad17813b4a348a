"""HLS playlists, followed only where the user asks for it, and only to files in their own folder.

The decoder never follows one: the files that it names are joined into one, which is then a file like any
other. RFC 8216.
"""

import re
import shutil
from io import BufferedWriter
from pathlib import Path

from avsync_cli.errors import MediaError, first_line

_MOST_BYTES = 4 << 20  # of a playlist
_MOST_FILES = 100_000
_BANDWIDTH = re.compile(r"[:,]BANDWIDTH=(\d+)")
_MAP = re.compile(r'#EXT-X-MAP:.*URI="([^"]*)"')
_SEPARATE = re.compile(r"#EXT-X-MEDIA:.*TYPE=AUDIO.*URI=")


def is_playlist(path: Path) -> bool:
    """Whether a file is one, by its first word."""
    try:
        if not path.is_file():  # opening a pipe may never end
            return False
        with path.open("rb") as file:
            return file.read(16).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"#EXTM3U")
    except (OSError, ValueError):
        return False


def join_playlist(path: Path, target: Path, *, limit_bytes: int) -> None:
    """Write what a playlist names into one file; of several renditions that of the highest rate.

    Raises MediaError for files outside the playlist's folder and for what cannot be joined.
    """
    lines = _read_lines(path)
    if any(_SEPARATE.match(line) for line in lines):
        raise MediaError(f"{path}: a playlist whose sound is in another one: open its media, with --audio")
    renditions = [
        (int(rate.group(1)), lines[place + 1])
        for place, line in enumerate(lines[:-1])
        if line.startswith("#EXT-X-STREAM-INF") and (rate := _BANDWIDTH.search(line))
    ]
    if renditions:
        path = _inside(path, max(renditions)[1])
        lines = _read_lines(path)
    copied, begins = 0, None
    with target.open("wb") as joined:
        for line in lines:
            if line.startswith(("#EXT-X-BYTERANGE", "#EXT-X-STREAM-INF")) or (
                line.startswith("#EXT-X-KEY") and "METHOD=NONE" not in line
            ):
                raise MediaError(f"{path}: a playlist of parts of files, of encrypted ones or of playlists")
            header = _MAP.match(line)
            if header and header.group(1) != begins:
                begins = name = header.group(1)
            elif line.startswith("#"):
                continue
            else:
                name = line
            copied += _append(_inside(path, name), joined, limit_bytes - copied, path)
    if not copied:
        raise MediaError(f"{path}: a playlist without media")


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise MediaError(f"{path}: {first_line(error)}") from error
    lines = [line.strip() for line in data.decode("utf-8-sig", "surrogateescape").splitlines()]
    if len(data) > _MOST_BYTES or len(lines) > 2 * _MOST_FILES:
        raise MediaError(f"{path}: a playlist of more than {_MOST_BYTES >> 20} MB or {_MOST_FILES} files")
    return [line for line in lines if line]


def _inside(playlist: Path, name: str) -> Path:
    """The file that a playlist names. Raises MediaError where it does not lie in its folder."""
    folder = playlist.parent.resolve()
    try:
        path = (folder / name).resolve()
        is_inside = "\0" not in name and path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError, RuntimeError):
        is_inside = False
    if not is_inside:
        raise MediaError(f"{playlist}: names {name!r}, which is no file in its folder")
    return path


def _append(path: Path, joined: BufferedWriter, most_bytes: int, playlist: Path) -> int:
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise MediaError(f"{playlist}: what it names is more than is copied")
        with path.open("rb") as part:
            shutil.copyfileobj(part, joined)
    except OSError as error:
        raise MediaError(f"{path}: {first_line(error)}") from error
    return size
