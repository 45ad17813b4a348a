"""Where uploads, reports and copies lie until they are erased: a folder that only its user can read.

Every file has a folder in it. What a file is called elsewhere is never part of a path here.
"""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from errno import EDQUOT, ENOSPC
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from avsync_cli.batch.sources import VIDEO_SUFFIXES
from avsync_cli.errors import WriteError
from avsync_cli.machine import MB
from avsync_cli.scratch import make_scratch, sweep_scratch

PREFIX = "avsync-web-"  # and the process that made it
_STEM = "video"
_BLOCK_BYTES = MB  # written at once


class Refusal(Exception):  # noqa: N818 - becomes an answer
    """Why something is not done, for the page, and the HTTP status of that."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


def describe_limit(limit_bytes: int) -> str:
    size_mb = limit_bytes // MB
    return f"{size_mb} MB" if size_mb % 1000 else f"{size_mb // 1000} GB"


def make_folder() -> Path:
    """A folder for this run; those that runs left which were killed are removed. Raises WriteError."""
    sweep_scratch(PREFIX)
    try:
        return make_scratch(PREFIX)
    except OSError as error:
        raise WriteError(f"no temporary folder: {error.strerror or error}") from error


def place_video(folder: Path, name: str) -> Path:
    """The path of a video in its folder. Of its name the suffix is kept, where it is one of a video."""
    suffix = os.path.splitext(name)[1].lower()
    return folder / f"{_STEM}{suffix if suffix in VIDEO_SUFFIXES else ''}"


def link_video(path: Path, real: Path) -> None:
    """Have a video of this machine at `path`, without a copy. Raises Refusal."""
    try:
        path.symlink_to(real)
    except OSError as error:
        raise Refusal(500, f"cannot be opened: {error.strerror or error}") from error


async def receive(
    blocks: AsyncIterator[bytes], path: Path, *, limit_bytes: int, count: Callable[[int], None]
) -> None:
    """Write what comes to a new file. `count` is told how much it has; what it raises ends the writing.

    Raises Refusal where it grows beyond the limit or the disk is full.
    """
    written, waiting = 0, bytearray()
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
            async for block in blocks:
                waiting += block
                if written + len(waiting) > limit_bytes:
                    raise Refusal(413, f"larger than the {describe_limit(limit_bytes)} that are taken")
                if len(waiting) >= _BLOCK_BYTES or not block:
                    await run_in_threadpool(_write_all, file.fileno(), bytes(waiting))
                    written += len(waiting)
                    waiting.clear()
                    count(written)
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise Refusal(507, "no room for it: the disk is full") from error
        raise Refusal(500, f"cannot be kept: {error.strerror or error}") from error


def erase(folder: Path) -> None:
    """Remove a folder with all that is in it; what a link in it leads to stays."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
