"""A video that is handed over as bytes or as an open file: a file of its own for as long as it is looked at.

Decoders go back and forth in a video, and some are opened twice; of a file all of that is known to work.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from avsync_cli.errors import ConfigError, MediaError, first_line

Bytes = bytes | bytearray | memoryview
Video = str | Path | Bytes | BinaryIO


@contextmanager
def as_file(video: Video) -> Iterator[tuple[Path, str]]:
    """The path of a video, and what it is called: a path as it is, others copied to a private folder.

    An open file is read from where it stands, and is called as its `name`. The copy is removed. Raises
    ConfigError for what is none of these, MediaError where it cannot be read or copied.
    """
    if isinstance(video, str | Path):
        yield Path(video), str(video)
        return
    name = _name_of(video)
    with tempfile.TemporaryDirectory(prefix="avsync-") as folder:
        path = Path(folder) / "given"
        try:
            with path.open("wb") as copy:
                _copy(video, copy, name)
        except (OSError, ValueError) as error:
            raise MediaError(f"{name}: {first_line(error)}") from error
        with naming_given(path, name):
            yield path, name


@contextmanager
def naming_given(copy: Path, name: str) -> Iterator[None]:
    """Have a MediaError about a copy name what it is a copy of."""
    try:
        yield
    except MediaError as error:
        raise MediaError(str(error).replace(str(copy), name), error.reason) from error.__cause__


def _copy(video: Bytes | BinaryIO, copy: BinaryIO, name: str) -> None:
    if isinstance(video, bytes | bytearray | memoryview):
        copy.write(video)
        return
    try:
        shutil.copyfileobj(video, copy)
    except TypeError:
        raise ConfigError(f"{name}: must be open for reading bytes") from None


def _name_of(video: object) -> str:
    """What a video is called that has no path."""
    if isinstance(video, bytes | bytearray | memoryview):
        return "bytes"
    if isinstance(video, io.TextIOBase) or not callable(getattr(video, "read", None)):
        raise ConfigError(f"a {type(video).__name__} is no video: a path, bytes, or a file open for bytes")
    name = getattr(video, "name", None)
    return name if isinstance(name, str) and name else "file object"
