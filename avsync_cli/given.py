"""What users name as a video or a sound: a file, or what is copied into one while it is looked at."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsync_cli.batch.limits import DEFAULT_COPY_MB
from avsync_cli.batch.records import FileError, Item
from avsync_cli.batch.remote import copy_address, is_address, stat_address
from avsync_cli.errors import MediaError
from avsync_cli.given_bytes import naming_given
from avsync_cli.machine import MB
from avsync_cli.playlists import is_playlist, join_playlist

STANDARD_INPUT = "-"


@contextmanager
def given_file(name: str, *, follow_playlists: bool = False) -> Iterator[Path]:
    """The file to look at; one for as long of what is on standard input, at an address or in a playlist.

    Raises MediaError where it cannot be copied, and for a folder, with what to do instead.
    """
    name = name.removeprefix("file://")
    is_here = name != STANDARD_INPUT and not is_address(name)
    is_list = is_here and follow_playlists and is_playlist(Path(name))
    if is_here and not is_list:
        path = Path(name)
        if path.is_dir():
            hint = "`avsync scan FOLDER -o results.jsonl` checks all videos in it"
            raise MediaError(f"{name}: is a folder, not a video; {hint}")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="avsync-") as made:
        folder = Path(made)
        if name == STANDARD_INPUT:
            path = folder / "standard-input"
            with path.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        elif is_list:
            path = folder / "joined"
            join_playlist(Path(name), path, limit_bytes=DEFAULT_COPY_MB * MB)
        else:
            try:
                path = copy_address(stat_address(Item(name, name)), folder, limit_bytes=DEFAULT_COPY_MB * MB)
            except FileError as error:
                raise MediaError(f"{name}: {error.message}") from error
        with naming_given(path, name):
            yield path


@contextmanager
def given_sound(name: str | Path | None) -> Iterator[Path | None]:
    """The sound file to hear instead of a video's own sound, if there is one, likewise."""
    if isinstance(name, str) and is_address(name):
        with given_file(name) as path:
            yield path
    else:
        yield None if name is None else Path(name)
