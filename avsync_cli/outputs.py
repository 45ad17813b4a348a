"""Files that are written whole or not at all, and that never take the place of what they are made from."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from avsync_cli.errors import ConfigError, WriteError


@contextmanager
def written_whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """An empty file beside `path` to write, which takes its place when the block ends without an error.

    Where `path` is a link, the file that it leads to is replaced. Unless `overwrite`, what came to be there
    meanwhile is left alone. Raises WriteError.
    """
    real = Path(os.path.realpath(path))
    part = real.with_name(f".{real.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield part
        _flush(part)
        if not overwrite and os.path.lexists(real):
            raise WriteError(f"{path}: exists by now; it was left as it is")
        part.replace(real)
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def refuse_target(path: Path, source: Path, *, overwrite: bool) -> None:
    """Raises ConfigError where `path` is `source`, by whatever name or link, or exists and may not."""
    if os.path.realpath(path) == os.path.realpath(source) or (path.exists() and path.samefile(source)):
        raise ConfigError(f"{path}: is the input, which is never written to")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file")
    if path.is_file() and not overwrite:
        raise ConfigError(f"{path}: exists already; --overwrite replaces it")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no file that could be replaced")


def _flush(path: Path) -> None:
    """Have the disk itself keep what was written before it gets its name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
