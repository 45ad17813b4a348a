"""A watch in the test's own process, and what happened in it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from avsync_cli import Engine, Monitor
from avsync_cli.live import reading
from avsync_cli.live.hysteresis import Change
from avsync_cli.live.reading import Note
from avsync_cli.live.source import Source
from avsync_cli.live.watch import Happening, Watched, watch_source
from avsync_cli.spec import parse_tolerance

LIMITS = parse_tolerance("100")  # further from both streams than the hand-made student is uncertain


def watch(
    engine: Engine,
    address: Path | str,
    *,
    retries: int | None = 0,
    tell: Callable[[Happening], object] = lambda _: None,
    **source: Any,
) -> tuple[list[Happening], Watched]:
    """What happened, and what it came to; the reader waits for the monitor, so that nothing is skipped."""
    happened: list[Happening] = []

    def tell_both(happening: Happening) -> None:
        happened.append(happening)
        tell(happening)

    with pytest.MonkeyPatch.context() as patch, Monitor(engine, tolerance=LIMITS) as monitor:
        patch.setattr(reading, "_MOST_BEHIND_S", 1e9)  # a slow machine skips none of what it is sent at once
        named = Source(str(address), **source)
        watched = watch_source(named, monitor, LIMITS, tell_both, retries=retries)
    return happened, watched


def kinds_of(happened: Iterable[Happening]) -> list[str]:
    return [each.kind for each in happened if isinstance(each, Note)]


def notes_of(happened: Iterable[Happening]) -> list[str]:
    return [each.message for each in happened if isinstance(each, Note)]


def changes_of(happened: Iterable[Happening]) -> list[tuple[str | None, str]]:
    return [(each.previous, each.status) for each in happened if isinstance(each, Change)]
