"""Whether a file stays what it is while it is looked at: others may write to it, cut it off or replace it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from stat import S_ISREG
from typing import Concatenate, Literal, ParamSpec, TypeVar

from avsync_cli.errors import MediaError
from avsync_cli.report import Report

_BEGINNING_BYTES = 1 << 16

Rest = ParamSpec("Rest")
More = TypeVar("More")
Looking = Callable[Concatenate[str | Path, Rest], tuple[Report, More]]


@dataclass(frozen=True)
class Mark:
    """What tells a file from what becomes of it."""

    identity: tuple[int, int]  # device and inode
    size: int
    written_ns: int
    beginning: bytes


def mark_file(path: str | Path) -> Mark | None:
    """None for what is no file, or cannot be read."""
    try:
        found = Path(path).stat()
        if not S_ISREG(found.st_mode):
            return None
        with Path(path).open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except (OSError, ValueError):
        return None
    return Mark((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, beginning)


def find_change(path: str | Path, before: Mark | None) -> Literal["grew", "changed"] | None:
    """What became of a file since it was marked; nothing of one that is gone: it was open till the end.

    What only grew begins as it did, unless it was written over with something longer; a header that is
    rewritten at a recording's end counts as that, too.
    """
    now = mark_file(path)
    if before is None or now is None:
        return None
    if now.identity != before.identity or now.size < before.size:
        return "changed"
    if now.size > before.size:
        return "grew" if now.beginning.startswith(before.beginning) else "changed"
    return None if now.written_ns == before.written_ns else "changed"


def refuse_change(path: str | Path, before: Mark | None) -> None:
    """Raises MediaError where a file is not what it was, be it that it grew."""
    if find_change(path, before) is not None:
        raise MediaError(f"{path}: was written to while it was read", "changed")


def noting_changes(look: Looking[Rest, More]) -> Looking[Rest, More]:
    """Have a look at a file say so where it grew meanwhile, as recordings do that are not over.

    What was looked at is what was there. A file that became another one is a MediaError.
    """

    @wraps(look)
    def look_and_compare(
        path: str | Path, /, *arguments: Rest.args, **keywords: Rest.kwargs
    ) -> tuple[Report, More]:
        before = mark_file(path)
        try:
            report, more = look(path, *arguments, **keywords)
        except MediaError as error:
            if find_change(path, before) is None:
                raise
            raise MediaError(f"{error}; it was written to while it was looked at", "changed") from error
        change = find_change(path, before)
        if change == "changed":
            raise MediaError(f"{path}: was written to while it was looked at", "changed")
        if change == "grew":
            words = f"{report.message}; the file grew while it was looked at, and what came is not in this"
            return replace(report, message=words), more
        return report, more

    return look_and_compare
