"""Which verdicts of a watch count: those that hold; and how they are shown."""

import pytest

from avsync_cli.live.display import Board, draw_curve
from avsync_cli.live.events import MonitorEvent
from avsync_cli.live.hysteresis import Change, Hysteresis
from avsync_cli.live.reading import Note
from avsync_cli.spec import TOLERANCES

ITU = TOLERANCES["itu-detect"]


def events_of(*leads, heard_s=4.0, uncertainty_ms=10.0):
    """Verdicts with these leads in ms, every 2 s; None where there is none."""
    for number, lead in enumerate(leads):
        status = "undetermined" if lead is None else "in_sync" if ITU.contains(lead) else "out_of_sync"
        yield MonitorEvent(
            2.0 * number, 0.0, status, None if lead is not None else "no_speech", lead, uncertainty_ms, 0.99,
            heard_s, (), 0, 0, "words",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("leads", "changes"),
    [
        ((0, 0, 0), ["in_sync"]),
        ((0, 200, 0, 200, 0), []),  # no two in a row
        ((0, 0, 200, 0, 200, 0), ["in_sync"]),
        ((0, 0, 200, None, None, 200), ["in_sync", "out_of_sync"]),  # who is silent says nothing
        ((0, 0, 50, 50, 50, 54), ["in_sync"]),  # at the limit of 45 ms
        ((50, 50, 40, 40, 20, 20), ["out_of_sync", "in_sync"]),
        ((None, None), []),
    ],
)
def test_a_change_counts_when_it_holds(leads, changes):
    held = Hysteresis(ITU)
    told = [change for event in events_of(*leads) if (change := held.take(event)) is not None]
    assert [change.status for change in told] == changes
    assert held.seen == set(changes)
    assert held.status == (changes[-1] if changes else None)


def test_one_piece_of_two_seconds_changes_nothing():
    held = Hysteresis(ITU)
    assert [held.take(event) for event in events_of(200, 200, 200, heard_s=1.84)] == [None] * 3


def test_the_board_shows_verdict_curve_and_faces():
    assert draw_curve([-200, 0, None, 200, 900], span_ms=200) == "▁▅ ██"
    board = Board("camera", ITU, delay_ms=80)
    for event in events_of(0, 160):
        board.tell(event)
    board.tell(Change("out_of_sync", "in_sync", event))
    board.tell(Note("connected", "pictures of 640 x 480"))
    lines = [str(line) for line in board._lines()]
    assert lines[0] == "camera: out of sync"
    assert any("▅█" in line or "▅▇" in line for line in lines)
    assert any("with a delay of 80 ms" in line for line in lines)
    assert lines[-1].endswith("pictures of 640 x 480")
