"""Pictures and sound pushed as they come: verdicts on the last seconds, whatever the clock does."""

import os
import tracemalloc
from contextlib import suppress
from fractions import Fraction
from threading import Thread

import av
import numpy as np
import pytest
from scan_stubs import wait_until
from talking import RATE, TalkingHead, syllables, voice

from avsync_cli import ConfigError, MediaError, Monitor, check_arrays
from avsync_cli.check import Engine
from avsync_cli.live.backlog import Backlog, Waiting
from avsync_cli.live.clock import Epoch, JointClock
from avsync_cli.machine import MB, resident_bytes

SECONDS = 8
LEAD_S = 0.16


@pytest.fixture(scope="module")
def scene():
    """Pictures [N, H, W, 3] of a talking head at 25 fps, and its sound, early by `LEAD_S`."""
    loudness = syllables(SECONDS + 2.0)
    head = TalkingHead(loudness[100:], fps=Fraction(25))
    first = round((1.0 + LEAD_S) * RATE)
    return np.stack([head(number) for number in range(SECONDS * 25)]), voice(loudness)[first:][
        : SECONDS * RATE
    ]


def push_sound(monitor, sound, *, begin_s=0.0, block=1024):
    for first in range(0, len(sound), block):
        monitor.push_sound(sound[first : first + block], begin_s + Fraction(first, RATE), RATE)


def push(monitor, scene, *, begin_s=0, seconds=SECONDS):
    """Both, a picture and the sound beside it in turn, as a camera would."""
    pictures, sound = scene
    for number in range(seconds * 25):
        monitor.push_picture(pictures[number], begin_s + Fraction(number, 25))
        part = sound[number * RATE // 25 : (number + 1) * RATE // 25]
        monitor.push_sound(part, begin_s + Fraction(number, 25), RATE)


def test_a_verdict_comes_every_two_seconds_and_is_that_of_the_whole(scene, engine):
    pictures, sound = scene
    whole = check_arrays(pictures, fps=25, audio=sound, sample_rate=RATE, engine=engine)
    with Monitor(engine) as monitor:
        push(monitor, scene, begin_s=Fraction(7000, 3))
        monitor.finish()
        events = list(monitor)
    begin_s = float(Fraction(7000, 3))
    assert [round(event.time_s - begin_s, 6) for event in events] == [2, 4, 6, 8]
    assert [round(event.start_s - begin_s, 6) for event in events] == [0, 0, 0, 0]
    for event in events:
        assert (event.status, event.reason) == ("out_of_sync", None)
        assert event.audio_lead_ms == pytest.approx(whole.audio_lead_ms, abs=15)
        assert [(face.face, face.speaking) for face in event.faces] == [(1, True)]
    assert events[-1].audio_lead_ms == pytest.approx(whole.audio_lead_ms, abs=5)
    told = events[-1].to_json()
    assert told["status"] == "out_of_sync"
    assert set(told["faces"][0]) == {"face", "box", "speaking", "audio_lead_ms", "confidence"}


def test_a_verdict_does_not_wait_for_more_sound_than_it_needs(scene, engine):
    """The first comes with less than 3 s of stream; pictures and sound come from two threads."""
    pictures, sound = scene
    with Monitor(engine) as monitor:
        hearing = Thread(target=push_sound, args=(monitor, sound[: round(2.9 * RATE)]))
        hearing.start()
        for number in range(72):
            if number == 60:
                hearing.join()  # nothing is looked at until a picture comes
            monitor.push_picture(pictures[number], number / 25)
        assert monitor.wait(300)
        (event,) = monitor.poll()
        assert (event.time_s, event.status) == (2, "out_of_sync")
        assert not monitor.poll()


def test_frames_of_pyav_are_taken_as_they_are(scene, engine):
    pictures, sound = scene
    with Monitor(engine, delay_ms=200, every_s=3) as monitor:
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(pictures[number], format="rgb24")
            monitor.push_picture(frame, Fraction(number, 25))
        block = av.AudioFrame.from_ndarray(sound[None, : 4 * RATE], format="flt", layout="mono")
        block.sample_rate, block.pts = RATE, 17
        monitor.push_sound(block, 0)
        assert block.pts == 17
        monitor.finish()
        (event,) = monitor.poll()
    # Sound that will be heard 200 ms later still is late by 40 ms.
    assert (event.status, event.time_s) == ("in_sync", 3)
    assert event.audio_lead_ms == pytest.approx(LEAD_S * 1000 - 200, abs=25)


def test_a_clock_that_jumps_begins_anew(scene, engine):
    with Monitor(engine) as monitor:
        push(monitor, scene, begin_s=50, seconds=4)
        push(monitor, scene, begin_s=0, seconds=4)
        monitor.finish()
        events = monitor.poll()
    assert [event.start_s for event in events] == pytest.approx([50, 50, 0.04, 0.04])
    assert [event.time_s for event in events] == pytest.approx([52, 54, 2.04, 4])
    assert {event.status for event in events} == {"out_of_sync"}
    assert (events[0].clock_jumps, events[-1].clock_jumps) == (0, 1)


def test_without_faces_or_sound_a_reason_is_given(scene, engine):
    pictures, sound = scene
    with Monitor(engine) as monitor:
        for number in range(80):
            monitor.push_picture(pictures[number], Fraction(number, 25))
        monitor.finish()
        events = monitor.poll()
    assert [(event.status, event.reason) for event in events] == [("undetermined", "no_audio")] * 2
    with Monitor(engine) as monitor:
        push(monitor, (np.zeros_like(pictures), sound), seconds=3)
        monitor.finish()
        assert {event.reason for event in monitor.poll()} == {"no_face"}


def held_mb():
    """Resident memory; pictures of PyAV are not among what Python counts."""
    return resident_bytes(os.getpid()) / MB


@pytest.fixture
def tracing():
    """Python's memory, and so that of NumPy, is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("tracing")
def test_a_long_stream_takes_no_more_memory_than_a_short_one(scene, engine):
    """Held are some pictures, sound, scores and crops; 24 s more of sound are 1.5 MB, of pictures 120."""
    held_bytes: list[int] = []

    def is_settled():
        held_bytes.append(tracemalloc.get_traced_memory()[0])
        return held_bytes[-1] < most_bytes

    with Monitor(engine) as monitor:
        for begin_s in range(0, 5 * SECONDS, SECONDS):
            push(monitor, scene, begin_s=begin_s)
            assert monitor.wait(300)
            monitor.poll()
            if begin_s == SECONDS:
                most_bytes = tracemalloc.get_traced_memory()[0] * 2
                wait_until(lambda: is_settled() and len(held_bytes) > 20, seconds=300)
                most_bytes, early_mb = min(held_bytes) + 150_000, held_mb()
        wait_until(is_settled, seconds=300)
        assert held_mb() < early_mb + 60


@pytest.mark.slow
def test_sound_that_waits_for_pictures_is_bounded(scene, engine):
    with Monitor(engine) as monitor:
        for minute in range(3):
            push_sound(monitor, np.tile(scene[1], 5), begin_s=40 * minute, block=RATE)
            assert monitor._clock._epoch.recorder.held_s <= 31


@pytest.mark.slow
def test_who_does_not_wait_has_few_pictures_held(scene, engine):
    """They come faster than they can be looked at."""
    before_mb, most = held_mb(), 0
    with Monitor(engine, waits=False) as monitor:
        for number in range(2500):
            monitor.push_picture(scene[0][number % 200], Fraction(number, 25))
            most = max(most, len(monitor._backlog._waiting))
        grew_mb = held_mb() - before_mb
        monitor.finish()
        events = monitor.poll()
    assert most <= 50
    assert 2500 * scene[0][0].nbytes > 400 * MB
    assert grew_mb < 200, "64 MB of pictures wait, and work takes some"
    assert events[-1].skipped_pictures > 500


def test_who_does_not_wait_is_not_kept_waiting_by_who_never_takes():
    """Of pictures of 1080p in RGB ten fit into 64 MB."""
    backlog, epoch, frame = Backlog(), Epoch(), av.VideoFrame(1920, 1080, "rgb24")

    def put_all():
        for number in range(2500):
            backlog.put(Waiting(epoch, Fraction(number, 25), frame, None), waits=False)

    pushing = Thread(target=put_all, daemon=True)
    pushing.start()
    pushing.join(300)
    assert not pushing.is_alive()
    assert (len(backlog._waiting), backlog.skipped) == (10, 2490)


def test_a_monitor_ends_at_once(scene, engine):
    monitor = Monitor(engine)
    push(monitor, scene, seconds=1)
    monitor.close()
    assert not monitor.poll()
    assert not list(monitor)
    with pytest.raises(ConfigError, match="has ended"):
        monitor.push_picture(scene[0][0], 0)


def test_what_goes_wrong_is_told_to_who_pushes(engine):
    with Monitor(engine) as monitor:
        with suppress(MediaError):  # which comes when the first two were looked at
            for number in range(3):
                monitor.push_picture(np.zeros((2000, 8, 3), np.uint8), number)
        assert monitor.wait(300)
        with pytest.raises(MediaError, match="picture_aspect"):
            monitor.poll()
        with pytest.raises(MediaError, match="picture_aspect"):
            monitor.push_sound(np.zeros(100, np.float32), 0, RATE)


def test_what_cannot_be_used_is_refused(engine):
    for wrong in ({"every_s": 0.5}, {"window_s": 1}, {"range_frames": 3}, {"delay_ms": float("nan")}):
        with pytest.raises(ConfigError):
            Monitor(engine, **wrong)
    bare = Engine(engine.student, engine.faces, 1)
    with Monitor(bare) as monitor:
        with pytest.raises(ConfigError, match="picture: float64"):
            monitor.push_picture(np.zeros((4, 4, 3)), 0)
        with pytest.raises(ConfigError, match="sound: sample_rate 0"):
            monitor.push_sound(np.zeros(100, np.float32), 0)
        with pytest.raises(ConfigError, match="sound: 'x' is no time"):
            monitor.push_sound(np.zeros(100, np.float32), "x", RATE)


def test_a_single_stray_picture_is_no_jump():
    clock = JointClock()
    first = clock.place("picture", Fraction(100))
    assert clock.place("sound", Fraction(100)) is first
    assert clock.place("picture", Fraction(97)) is None
    assert clock.place("picture", Fraction(101)) is first
    assert clock.place("sound", Fraction(160)) is None  # alone, and far from the pictures
    assert clock.place("sound", Fraction(101)) is first
    assert clock.place("picture", Fraction(160)) is None
    second = clock.place("picture", Fraction(4001, 25))
    assert (first.jumps, second.jumps) == (0, 1)
    assert clock.place("sound", Fraction(102)) is None
    assert clock.place("sound", Fraction(160)) is second
