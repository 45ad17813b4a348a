"""Connections of a watch that fail, are lost or refused, and a camera with its microphone."""

import re
from contextlib import ExitStack
from threading import Event
from threading import enumerate as enumerate_threads

import pytest
from clips import write_clip
from scan_stubs import wait_until
from serving import Airing, serve
from watching import kinds_of, notes_of, watch

from avsync_cli import MediaError, Monitor
from avsync_cli.live import source as source_module
from avsync_cli.live.reading import Listener, Reader
from avsync_cli.live.source import Source


@pytest.fixture
def devices(monkeypatch):
    """Streams of MPEG-TS may stand for a camera and its microphone: how a source says so."""
    monkeypatch.setattr(source_module, "_DEVICES", ("v4l2", "mpegts"))
    monkeypatch.setattr(source_module, "_SOUND_DEVICES", ("mpegts",))
    return {"form": "mpegts", "sound_form": "mpegts"}


def listeners():
    return [each for each in enumerate_threads() if each.name == "avsync-microphone"]


@pytest.mark.slow
def test_of_a_camera_the_pictures_count_and_of_its_microphone_the_sound(engine, streams, devices):
    """Both have both. The camera ends first, while the microphone goes on."""
    with (
        serve([Airing(streams[160], 8)]) as camera,
        serve([Airing(streams[0], 600, paced=True, ahead_s=8)]) as microphone,
    ):
        happened, watched = watch(engine, camera, sound=microphone, timeout_s=20, **devices)
    assert kinds_of(happened) == ["connected", "given_up"]
    assert notes_of(happened)[1] == "the connection ended; not opened again"
    assert watched.status == "in_sync"
    (pictures,) = re.findall(r"; (\d+) pictures$", watched.message)
    assert 150 < int(pictures) <= 200  # those of one of them
    assert not listeners()


@pytest.mark.slow
@pytest.mark.parametrize(("silent", "words"), [(False, "the sound ended"), (True, "nothing came in time")])
def test_a_microphone_that_is_lost_is_told_and_opened_again(engine, streams, devices, silent, words):
    with (
        serve([Airing(streams[0], 600, paced=True, ahead_s=4), Airing(streams[0], 8)]) as camera,
        serve(
            [Airing(streams[0], 4, silent=silent), Airing(streams[0], 600, paced=True, ahead_s=8)]
        ) as microphone,
    ):
        happened, watched = watch(engine, camera, sound=microphone, timeout_s=5, retries=1, **devices)
    assert kinds_of(happened) == ["connected", "lost", "connected", "given_up"]
    assert notes_of(happened)[1] == f"{microphone}: {words}; opened again in 0.5 s"
    assert watched.status == "in_sync"
    assert watched.message.endswith("opened again once")
    assert not listeners()


def test_a_microphone_is_not_closed_while_it_is_read():
    """As closing it then would crash: who reads it closes it, also where nobody could wait for that."""
    released, closed = Event(), Event()
    opened = ExitStack()
    opened.callback(closed.set)
    with Listener(opened, lambda _: released.wait(60) and None, wait_s=-0.8):
        pass
    assert not closed.is_set()
    released.set()
    assert closed.wait(60)


@pytest.mark.slow
def test_why_a_connection_was_lost_is_told(engine, streams):
    with serve([Airing(streams[0], 2, silent=True)]) as address:
        happened, _ = watch(engine, address, timeout_s=5)
    assert notes_of(happened)[1] == f"{address}: nothing came in time; not opened again"


def read_with_limits(engine, address, monkeypatch, limits, *, retries):
    """What a reader tells, and its error; the first connection has other limits from its beginning on."""
    told = []

    def tell(note):
        told.append(note)
        if note.kind == "connected" and len(told) == 1:
            monkeypatch.setenv("AVSYNC_LIMITS", limits)
        else:
            monkeypatch.delenv("AVSYNC_LIMITS", raising=False)

    with Monitor(engine) as monitor:
        reader = Reader(Source(str(address), wait_s=0), monitor, threads=1, retries=retries, tell=tell)
        wait_until(lambda: reader.is_over, seconds=600)
        return told, reader


def test_what_fails_after_it_was_connected_is_a_lost_connection(engine, streams, monkeypatch):
    """Sound that is refused as it comes stands for all that may go wrong in it."""
    with serve([Airing(streams[0], 2)] * 2) as address:
        told, reader = read_with_limits(engine, address, monkeypatch, "sound_rate=8000", retries=1)
    assert kinds_of(told) == ["connected", "lost", "connected", "given_up"]
    assert "sound_rate" in told[1].message
    assert (reader.error, reader.reconnects) == (None, 1)


def test_a_file_that_fails_ends_the_watch(engine, streams, monkeypatch):
    told, reader = read_with_limits(engine, streams[0], monkeypatch, "sound_rate=8000", retries=None)
    assert kinds_of(told) == ["connected"]
    assert "sound_rate" in str(reader.error)


def test_what_goes_wrong_in_the_monitor_is_no_lost_connection(engine, streams, monkeypatch):
    with serve([Airing(streams[0], 12)]) as address:
        told, reader = read_with_limits(engine, address, monkeypatch, "picture_pixels=100", retries=None)
    assert kinds_of(told) == ["connected"]
    assert str(reader.error).startswith("monitor: ")


def test_attempts_that_fail_are_no_reconnections(engine, streams):
    with serve([Airing(streams[0], 1)]) as address:
        happened, watched = watch(engine, address, retries=2)
    assert kinds_of(happened) == ["connected", "lost", "lost", "given_up"]
    assert "opened again" not in watched.message


def test_pictures_that_are_too_large_end_the_watch(engine, streams, monkeypatch):
    monkeypatch.setenv("AVSYNC_LIMITS", "picture_pixels=40000")
    with serve([Airing(streams[0], 2)]) as address:
        for watched in (streams[0], address):
            with pytest.raises(MediaError, match="picture_pixels"):
                watch(engine, watched, wait_s=0, retries=None)


def test_what_cannot_be_opened_at_first_ends_the_watch(engine, tmp_path):
    mute = write_clip(tmp_path / "mute.ts", seconds=0.4)
    for address, words in (
        ("tcp://user:secret@127.0.0.1:9", "^tcp://127.0.0.1:9: "),
        ("srt://127.0.0.1:9", "no srt.*avsync watch -|refused|came in time"),
        (tmp_path / "missing.ts", "No such file"),
        (mute, "no audio stream"),
    ):
        with pytest.raises(MediaError, match=words) as caught:
            watch(engine, address, wait_s=0)
        assert "secret" not in str(caught.value)
