"""Progress: what a scan shows on a terminal of 80 columns, and in a pipe."""

import io
import re

import pytest
from rich.console import Console

from avsync_cli.batch import progress
from avsync_cli.batch.progress import ScanProgress
from avsync_cli.batch.records import Item

NAMES = [Item(f"/films/{'a' * 200}{number}.mp4", "/films") for number in range(6)]


@pytest.fixture
def clock(monkeypatch):
    """The time that a scan reads, in seconds, set by the test."""
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def shown(clock, *, terminal: bool) -> list[str]:
    """Ten of 40 files were answered before, ten within a minute: what is shown then."""
    file = io.StringIO()
    console = Console(
        file=file, width=80, force_terminal=terminal, color_system=None, highlight=False, soft_wrap=True
    )
    with ScanProgress(40, shown=True, console=console) as tool:
        for _ in range(10):
            tool.skip("in_sync")
        for _ in range(10):
            clock[0] += 6
            tool.count("in_sync")
        tool.show(NAMES)
        text = file.getvalue()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


def test_the_time_left_is_never_cut_off_on_a_terminal(clock):
    lines = shown(clock, terminal=True)
    assert all(len(line.rstrip()) <= 80 for line in lines)
    told = next(line for line in lines if "left" in line)
    assert "10/30 files" in told
    hours, minutes, seconds = map(int, re.search(r"(\d+):(\d\d):(\d\d) left", told).groups())
    assert 3600 * hours + 60 * minutes + seconds == pytest.approx(120, abs=15)
    assert any(line.startswith("10 answered before, 100% in sync") for line in lines)
    assert sum(line.startswith("  /films/") for line in lines) == 4
    assert any(line.strip() == "and 2 more" for line in lines)


def test_in_a_pipe_a_line_tells_the_time_left_first(clock):
    [line] = shown(clock, terminal=False)
    assert line.startswith("20 of 40 files, 2 min left, 10 answered before, 100% in sync")
    assert line.endswith(f"now {NAMES[0].file}")
