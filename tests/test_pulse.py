"""Signs of life, and the clock of who waits for them."""

from avsync_cli import pulse
from avsync_cli.pulse import PatientClock, beat, hear_pulse


def test_a_sign_is_told_once_a_second_at_most(monkeypatch):
    monkeypatch.setattr(pulse, "monotonic", iter((100.0, 100.2, 100.9, 101.0, 101.5, 130.0, 130.5)).__next__)
    told, counts = [], []
    hear_pulse(lambda: told.append(None))
    try:
        for _ in range(7):
            beat()
            counts.append(len(told))
    finally:
        hear_pulse(None)
    beat()
    assert counts == [1, 1, 1, 2, 2, 3, 3]
    assert len(told) == 3


def test_a_clock_leaves_out_the_time_in_which_nobody_looked(monkeypatch):
    monkeypatch.setattr(pulse, "monotonic", iter((0.0, 1.0, 5.0, 3605.0, 3606.0, 3620.0)).__next__)
    clock = PatientClock()
    assert [clock.read() for _ in range(5)] == [1, 5, 5, 6, 6]
