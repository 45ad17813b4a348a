"""`avsync watch`: streams served by the test, their drops, jumps and reconnections, and what is told."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from fcntl import ioctl
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from io import StringIO
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from termios import FIONREAD
from threading import Event, Thread
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
from clips import write_clip
from hypothesis import given
from hypothesis import strategies as st
from scan_stubs import is_alive, wait_until
from serving import Airing, send_udp, serve
from talking import write_talking_head

from avsync_cli import ConfigError, MediaError, Monitor
from avsync_cli.live import reading
from avsync_cli.live import source as source_module
from avsync_cli.live.display import Board, draw_curve
from avsync_cli.live.events import MonitorEvent
from avsync_cli.live.hooks import Hooks
from avsync_cli.live.hysteresis import Change, Hysteresis
from avsync_cli.live.reading import Listener, Note, Pace, Reader
from avsync_cli.live.source import Source
from avsync_cli.live.watch import watch_source
from avsync_cli.spec import TOLERANCES, parse_tolerance

ITU = TOLERANCES["itu-detect"]
LIMITS = parse_tolerance("100")  # further from both clips than the hand-made student is uncertain
SECONDS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Talking heads as MPEG-TS by the ms their sound is early."""
    folder = tmp_path_factory.mktemp("streams")
    return {
        lead: write_talking_head(folder / f"head{lead}.ts", audio_lead_ms=lead, seconds=SECONDS)
        for lead in (0, 160)
    }


def watch(engine, address, *, retries=0, tell=lambda _: None, **source):
    """What happened, and what it came to; the reader waits for the monitor, so that nothing is skipped."""
    happened = []

    def tell_both(happening):
        happened.append(happening)
        tell(happening)

    with pytest.MonkeyPatch.context() as patch, Monitor(engine, tolerance=LIMITS) as monitor:
        patch.setattr(reading, "_MOST_BEHIND_S", 1e9)  # a slow machine skips none of what it is sent at once
        named = Source(str(address), **source)
        watched = watch_source(named, monitor, LIMITS, tell_both, retries=retries)
    return happened, watched


def kinds_of(happened):
    return [each.kind for each in happened if isinstance(each, Note)]


def notes_of(happened):
    return [each.message for each in happened if isinstance(each, Note)]


def changes_of(happened):
    return [(each.previous, each.status) for each in happened if isinstance(each, Change)]


@pytest.mark.slow
def test_a_lost_connection_is_opened_again_and_the_verdict_follows(engine, clips):
    """Early sound first, in the middle of which the clock jumps; then, on a new connection, none is early."""
    airings = [
        Airing(clips[160], 11, jump_at_s=5.5, jump_s=3600),
        Airing(clips[0], 6),
    ]
    with serve(airings) as address:
        happened, watched = watch(engine, address, retries=2)
    assert kinds_of(happened) == ["connected", "lost", "connected", "lost", "given_up"]
    assert changes_of(happened) == [(None, "out_of_sync"), ("out_of_sync", "in_sync")]
    assert (watched.exit_code, watched.status) == (1, "in_sync")
    assert "out of sync before" in watched.message
    assert watched.message.endswith("opened again once")
    told = [each for each in happened if isinstance(each, MonitorEvent | Change)]
    assert [type(each) for each in told[:3]] == [MonitorEvent, MonitorEvent, Change]
    assert told[0].time_s - told[0].start_s == pytest.approx(2)
    assert told[-1].clock_jumps >= 1


@pytest.mark.slow
def test_a_drop_of_seconds_does_not_change_the_verdict(engine, clips):
    with serve([Airing(clips[160], 12, drop_at_s=5, drop_s=2.5)], scheme="http") as address:
        happened, watched = watch(engine, address)
    assert (watched.exit_code, changes_of(happened)) == (1, [(None, "out_of_sync")])
    leads = [each.audio_lead_ms for each in happened if isinstance(each, MonitorEvent)]
    assert all(lead is None or lead == pytest.approx(175, abs=30) for lead in leads)


@pytest.mark.slow
def test_datagrams_are_watched_as_they_come(engine, tmp_path):
    """In real time, from anywhere on, until a verdict counts: some may be lost on a busy machine."""
    clip = write_talking_head(tmp_path / "keys.ts", seconds=SECONDS, keyframe_every=12)
    with send_udp(Airing(clip, 300, paced=True)) as (address, end):
        happened, watched = watch(
            engine, address, timeout_s=10, tell=lambda each: end() if isinstance(each, Change) else None
        )
    assert kinds_of(happened) == ["connected", "given_up"]
    assert changes_of(happened)[:1] == [(None, "in_sync")]
    assert watched.exit_code == 0


def take_live(times_s, came_s, *, takes_s):
    """Numbers of pictures that are skipped, and how late each other is done, where each takes `takes_s`."""
    pace, now_s, skipped, late_s = Pace(), 0.0, [], []
    for number, (time_s, at_s) in enumerate(zip(times_s, came_s, strict=True)):
        now_s = max(now_s, at_s)
        if pace.is_to_skip(time_s, now_s):
            skipped.append(number)
        else:
            now_s += takes_s
            late_s.append(now_s - at_s)
    return skipped, late_s


def test_who_falls_behind_skips_up_to_now_and_bursts_are_no_falling_behind():
    times_s = [Fraction(number, 25) for number in range(2500)]  # 100 s
    steady = [float(time_s) for time_s in times_s]
    bursts = [6.0 * (time_s // 6) for time_s in times_s]  # segments of 6 s
    jumps = [*times_s[:500], *(time_s - 5000 for time_s in times_s[500:])]
    for given_s, came_s in ((times_s, steady), (times_s, bursts), (jumps, steady)):
        assert take_live(given_s, came_s, takes_s=0.03)[0] == []
    # Each takes as long as two, or five, come: every second or fifth is looked at, none too late.
    for takes_s, looked_at, first_s in ((0.08, 1250, 10), (0.2, 500, 2.5)):
        skipped, late_s = take_live(times_s, steady, takes_s=takes_s)
        assert len(late_s) == pytest.approx(looked_at, rel=0.05)
        assert max(late_s) <= 10 + 2 * takes_s
        begins = [number for number in skipped if number - 1 not in skipped]
        assert begins[0] / 25 == pytest.approx(first_s, abs=0.1)
        assert len(skipped) / len(begins) > 200  # many in a row: nothing is saved by skipping single ones


@pytest.mark.slow
@pytest.mark.repeats
def test_a_quarter_of_an_hour_takes_no_more_memory_than_a_minute(handmade, clips):
    """In real time, with three connections, three drops and three jumps of the clock."""
    from benchmarks.soak_watch import soak

    done = soak(clips[0], 900, options=("--model", str(handmade), "--tolerance", "100"))
    kinds = [line["kind"] for line in done.lines]
    assert (done.exit_code, kinds.count("connected"), kinds.count("given_up")) == (0, 3, 1)
    assert [line["clock_jumps"] for line in done.lines if line["kind"] == "verdict"][-1] == 3
    assert done.resident_mb(600, 1000) <= done.resident_mb(60, 180) + 15
    assert done.load() < 1


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


def run(*words, **kwargs):
    line = [sys.executable, "-m", "avsync_cli", "watch", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=600, **kwargs)


class Post(BaseHTTPRequestHandler):
    """Takes what is posted."""

    posted: list[dict] = []  # noqa: RUF012

    def do_POST(self):
        self.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Nothing."""


@pytest.mark.slow
def test_a_pipe_is_watched_and_a_change_is_told(handmade, clips, tmp_path):
    script = tmp_path / "told.py"
    script.write_text(
        "import os, sys\n"
        "open(sys.argv[1], 'a').write(os.environ['AVSYNC_STATUS'] + ' ' + os.environ['AVSYNC_PREVIOUS'])\n"
        "print('to stderr')\n"
    )
    Post.posted.clear()
    server = HTTPServer(("127.0.0.1", 0), Post)
    Thread(target=server.serve_forever, daemon=True).start()
    words = ("--exec", f"'{sys.executable}' '{script}' '{tmp_path / 'told'}'")
    words += ("--webhook", f"http://127.0.0.1:{server.server_port}/hook")
    with clips[160].open("rb") as pipe:
        ran = run("-", "--json", "--model", handmade, *words, stdin=pipe)
    server.shutdown()
    server.server_close()
    assert ran.returncode == 1
    assert "to stderr\n" in ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["kind"] for line in lines] == [
        "connected", "verdict", "verdict", "change", "verdict", "end",
    ]  # fmt: skip
    assert {line["schema_version"] for line in lines} == {1}
    assert lines[-1]["exit_code"] == 1
    (change,) = Post.posted
    assert change == lines[3]
    assert (change["status"], change["previous"], change["source"]) == ("out_of_sync", None, "-")
    assert (tmp_path / "told").read_text() == "out_of_sync "


@pytest.mark.slow
def test_hooks_that_fail_are_warned_about_once(handmade, clips, tmp_path):
    joined = tmp_path / "joined.ts"
    joined.write_bytes(clips[160].read_bytes() + clips[0].read_bytes())
    hooks = ("--exec", "no-such-program", "--webhook", "http://127.0.0.1:9/")
    ran = run(joined, "--wait", 0, "--tolerance", 100, "--model", handmade, *hooks)
    assert ran.returncode == 1
    assert ran.stdout.count("out of sync") == ran.stdout.count(": in sync") == 1
    assert ran.stderr.count("no-such-program") == ran.stderr.count("--webhook at 127.0.0.1") == 1


class Nonsense(StreamRequestHandler):
    """Answers that are none of HTTP, to all of what was posted: who hangs up on the rest of it resets it."""

    def handle(self):
        length = 0
        while line := self.rfile.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name == b"Content-Length" else length
        self.rfile.read(length)
        self.wfile.write(b"nonsense\r\n\r\n")


def test_a_hook_that_fails_keeps_no_other_from_being_called(tmp_path, capsys):
    with TCPServer(("127.0.0.1", 0), Nonsense) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        log = tmp_path / "told"
        script = f"import os; open({str(log)!r}, 'a').write(os.environ['AVSYNC_STATUS'] + ' ')"
        (tmp_path / "told.py").write_text(script)
        command = f"'{sys.executable}' '{tmp_path / 'told.py'}'"
        hooks = Hooks(command, f"http://127.0.0.1:{server.server_address[1]}/?key=secret")
        for status in ("in_sync", "out_of_sync", "in_sync"):
            hooks.tell({"status": status})
        hooks.close()
        server.shutdown()
    assert log.read_text() == "in_sync out_of_sync in_sync "
    assert complaints(capsys) == [
        "avsync: --webhook at 127.0.0.1: BadStatusLine: no answer of HTTP (said once)"
    ]


def complaints(capsys):
    """What was said, but that one waits: on a slow machine."""
    return [line for line in capsys.readouterr().err.splitlines() if "are waited for" not in line]


class Moved(BaseHTTPRequestHandler):
    """Sends on, without a word."""

    def do_POST(self):
        self.send_response(302, "")
        self.send_header("Location", "http://127.0.0.1:9/secret")
        self.end_headers()

    def log_message(self, *_):
        """Nothing."""


def test_what_a_server_answers_is_told_with_its_number(capsys):
    with HTTPServer(("127.0.0.1", 0), Moved) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hooks = Hooks(None, f"http://127.0.0.1:{server.server_port}/?key=secret")
        hooks.tell({"status": "in_sync"})
        hooks.close()
        server.shutdown()
    assert complaints(capsys) == ["avsync: --webhook at 127.0.0.1: answers 302 (said once)"]


@pytest.mark.parametrize(
    "webhook",
    [
        *(
            "ftp://a/",
            "http://",
            "http://[",
            "http://a:b/",
            "http://[::1/",
            "http://a:0/",
            "http://a:99999/",
            "x",
        ),
        *("http://u:Zq@a/", "http://u:Zq/b@a/", "http://@a/", "ftp://a/?key=Zq", "u:Zq@a", "http://[Zq@a/"),
        *("http://a/ Zq", "http://a b/", "http://a/\n?Zq", "http://a/ü?Zq", "//u:Zq@a/"),
    ],
)
def test_an_address_that_can_be_none_is_no_webhook(webhook):
    with pytest.raises(ConfigError, match="--webhook") as caught:
        Hooks(None, webhook)
    assert "Zq" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_hooks_go_on_where_nobody_can_be_warned(tmp_path, monkeypatch):
    log, closed = tmp_path / "told", StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    script = tmp_path / "told.py"
    script.write_text(f"open({str(log)!r}, 'a').write('called '); raise SystemExit(1)")
    hooks = Hooks(f"'{sys.executable}' '{script}'", "http://127.0.0.1:9/")
    for _ in range(3):
        hooks.tell({"status": "in_sync"})
    hooks.close()
    assert log.read_text() == "called " * 3


def test_hooks_are_waited_for_so_long_and_no_longer(tmp_path, capsys):
    log = tmp_path / "told"
    script = tmp_path / "told.py"
    script.write_text(f"import os, time; open({str(log)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(600)")
    hooks = Hooks(f"'{sys.executable}' '{script}'", None)
    for _ in range(3):
        hooks.tell({"status": "in_sync"})
    wait_until(lambda: log.exists() and log.read_text().endswith(" "), seconds=300)
    hooks.close(wait_s=3)
    (number,) = log.read_text().split()
    wait_until(lambda: not is_alive(int(number)), seconds=300)
    assert "took longer than 3 s" in capsys.readouterr().err


def write_sleeper(tmp_path):
    """A program that writes its number into the file `number` and sleeps, and how it is called."""
    script, number = tmp_path / "sleeper.py", tmp_path / "number"
    script.write_text(
        f"import os, time\nopen({str(number)!r}, 'w').write(f'{{os.getpid()}} ')\ntime.sleep(600)\n"
    )
    return f"'{sys.executable}' '{script}'", number


def test_a_program_that_is_just_being_started_is_ended_too(tmp_path, monkeypatch):
    """However long the system takes to start it: here until all else has ended."""
    command, _ = write_sleeper(tmp_path)
    begun, started = Event(), []
    start = subprocess.Popen

    def start_late(*words, **options):
        begun.set()
        time.sleep(1)
        started.append(start(*words, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start_late)
    hooks = Hooks(command, None)
    hooks.tell({"status": "in_sync"})
    assert begun.wait(60)
    hooks.close(wait_s=0)
    wait_until(lambda: started, seconds=60)
    try:
        assert started[0].wait(60) == -signal.SIGKILL
    finally:
        started[0].kill()


def test_a_program_that_may_not_be_ended_is_let_go(tmp_path, monkeypatch):
    """As one that has become another user's, by sudo."""
    command, number = write_sleeper(tmp_path)
    hooks = Hooks(command, None)
    hooks.tell({"status": "in_sync"})
    wait_until(lambda: number.exists() and number.read_text().endswith(" "), seconds=60)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    try:
        hooks.close(wait_s=0)
    finally:
        os.kill(int(number.read_text()), signal.SIGKILL)


@contextmanager
def watching(handmade, clip, script):
    """A watch of a pipe that does not end, in a group of its own as in a terminal; a change runs a script."""
    hook = f"'{sys.executable}' '{script}'"
    words = [sys.executable, "-m", "avsync_cli", "watch", "-", "--model", str(handmade), "--exec", hook]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(words, start_new_session=True, **pipes) as ran:
        feeding = Thread(target=feed, args=(ran.stdin, clip.read_bytes()))
        feeding.start()
        try:
            yield ran
        finally:
            ran.kill()
            feeding.join()
            with suppress(BrokenPipeError):  # of what was not read
                ran.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_after_an_interrupt_the_last_change_is_told(handmade, clips, tmp_path, name):
    """The program that is told takes longer than it takes to end the watch, and Ctrl-C does not reach it; a
    service is ended by SIGTERM."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    (tmp_path / "told.py").write_text(
        f"import time, pathlib\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(4)\n"
        f"pathlib.Path({str(ended)!r}).touch()\n"
    )
    with watching(handmade, clips[160], tmp_path / "told.py") as ran:
        wait_until(begun.exists, seconds=300)
        os.killpg(ran.pid, getattr(signal, name))
        ran.wait(300)
        said = ran.stderr.read().decode()
    assert (ran.returncode, ended.exists()) == (130, True)
    assert said.endswith("avsync: interrupted\n")


@pytest.mark.slow
def test_a_second_interrupt_waits_for_nothing(handmade, clips, tmp_path):
    _, number = write_sleeper(tmp_path)
    with watching(handmade, clips[160], tmp_path / "sleeper.py") as ran:
        wait_until(lambda: number.exists() and number.read_text().endswith(" "), seconds=300)
        os.killpg(ran.pid, signal.SIGINT)
        assert any(b"waited for" in line for line in ran.stderr)
        os.killpg(ran.pid, signal.SIGINT)
        assert ran.wait(300) == 130
        wait_until(lambda: not is_alive(int(number.read_text())), seconds=300)
        assert b"took longer" not in ran.stderr.read(), "as is said after 60 s"


def feed(pipe, data):
    """Write what is asked for, and leave the pipe open."""
    with suppress(OSError):
        pipe.write(data)
        pipe.flush()


@pytest.mark.slow
def test_a_file_is_read_while_it_grows(engine, clips, tmp_path):
    growing = tmp_path / "growing.ts"
    data = clips[160].read_bytes()
    growing.write_bytes(data[: len(data) // 3])

    def grow():
        with growing.open("ab") as file:
            for part in (data[len(data) // 3 : -5000], data[-5000:]):
                time.sleep(0.7)
                file.write(part)
                file.flush()

    writer = Thread(target=grow)
    writer.start()
    happened, watched = watch(engine, growing, wait_s=6)
    writer.join()
    assert watched.exit_code == 1
    assert [each for each in happened if isinstance(each, MonitorEvent)][-1].time_s >= SECONDS


@pytest.fixture
def site(tmp_path):
    """A folder that is served at an address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_playlist(path: Path, *names) -> Path:
    entries = "".join(f"#EXTINF:{SECONDS},\n{name}\n" for name in names)
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:{SECONDS}\n{entries}#EXT-X-ENDLIST\n")
    return path


def test_a_playlist_on_the_network_leads_to_the_network_alone(engine, clips, site):
    folder, address = site
    shutil.copy(clips[160], folder / "part.ts")
    write_playlist(folder / "good.m3u8", "part.ts")
    happened, watched = watch(engine, f"{address}/good.m3u8?token=secret")
    assert (kinds_of(happened), watched.exit_code) == (["connected"], 1)
    for name in (f"file://{clips[160]}", str(clips[160]), f"concat:{clips[160]}"):
        write_playlist(folder / "bad.m3u8", name)
        with pytest.raises(MediaError, match=r"^http://127\.0\.0\.1:\d+/bad\.m3u8: ") as caught:
            watch(engine, f"{address}/bad.m3u8?token=secret")
        assert "secret" not in str(caught.value)


def test_a_playlist_in_a_file_leads_nowhere(engine, clips, tmp_path, site):
    _, address = site
    shutil.copy(clips[160], tmp_path / "part.ts")
    for name in ("part.ts", f"{address}/part.ts"):
        local = write_playlist(tmp_path / "local.m3u8", name)
        with pytest.raises(MediaError, match="a playlist"):
            watch(engine, local)


@pytest.mark.parametrize(
    ("address", "changes", "words"),
    [
        ("gopher://a/b", {}, "gopher is none of http"),
        ("file:///etc/passwd", {}, "file is none of"),
        ("/dev/video0", {"form": "lavfi"}, "is for cameras"),
        ("a.ts", {"sound": "hw:0", "sound_form": "alsa"}, "with --format"),
        ("/dev/video0", {"form": "v4l2", "sound": "hw:0"}, "--sound-format"),
        ("a.ts", {"wait_s": -1}, "--wait"),
    ],
)
def test_what_cannot_be_watched_is_refused(address, changes, words):
    with pytest.raises(ConfigError, match=words):
        Source(address, **changes)


@given(
    user=st.text("abz%", min_size=1, max_size=5),
    secret=st.text("ab@:%!$&'()*+,;=-._~", min_size=1, max_size=12).map(lambda text: f"Zq{text}Zq"),
    path=st.sampled_from(["", "/", "/live@home", "/a/b.m3u8"]),
    query=st.sampled_from(["?", "?key=", "#", "?a=b&c=/"]),
)
def test_a_name_keeps_no_secret(user, secret, path, query):
    assert Source(f"rtsp://{user}:{secret}@camera.local:554{path}").name == f"rtsp://camera.local:554{path}"
    assert Source(f"https://camera.local{path}{query}{secret}").name == f"https://camera.local{path}"
    assert secret not in Source(f" rtsp://{user}:{secret}@camera.local{path}").name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://user:Zq/Zq@camera.local:554/live", "rtsp://camera.local:554/live"),
        ("rtsp://user:5Zq#Z@Zq@camera.local/live", "rtsp://camera.local/live"),
        ("http://user:?Zq@camera.local", "http://camera.local"),
        ("http://user:/Zq@camera.local", "http://camera.local"),
        ("http://user:Zq?Zq@camera.local/live?key=Zq", "http://camera.local/live"),
        ("rtsp://[::1]:554/live@home", "rtsp://[::1]:554/live@home"),
        ("http://camera.local:80", "http://camera.local:80"),
        ("http://camera.local/12:30@home", "http://camera.local/12:30@home"),
    ],
)
def test_a_password_that_had_to_be_written_otherwise_is_not_shown_either(address, name):
    """What it is taken for cannot be opened, and the name is in what is said of that."""
    assert Source(address).name == name


@pytest.fixture
def devices(monkeypatch):
    """Streams of MPEG-TS may stand for a camera and its microphone: how a source says so."""
    monkeypatch.setattr(source_module, "_DEVICES", ("v4l2", "mpegts"))
    monkeypatch.setattr(source_module, "_SOUND_DEVICES", ("mpegts",))
    return {"form": "mpegts", "sound_form": "mpegts"}


def listeners():
    return [each for each in enumerate_threads() if each.name == "avsync-microphone"]


@pytest.mark.slow
def test_of_a_camera_the_pictures_count_and_of_its_microphone_the_sound(engine, clips, devices):
    """Both have both. The camera ends first, while the microphone goes on."""
    with (
        serve([Airing(clips[160], 8)]) as camera,
        serve([Airing(clips[0], 600, paced=True, ahead_s=8)]) as microphone,
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
def test_a_microphone_that_is_lost_is_told_and_opened_again(engine, clips, devices, silent, words):
    with (
        serve([Airing(clips[0], 600, paced=True, ahead_s=4), Airing(clips[0], 8)]) as camera,
        serve(
            [Airing(clips[0], 4, silent=silent), Airing(clips[0], 600, paced=True, ahead_s=8)]
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
def test_why_a_connection_was_lost_is_told(engine, clips):
    with serve([Airing(clips[0], 2, silent=True)]) as address:
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


def test_what_fails_after_it_was_connected_is_a_lost_connection(engine, clips, monkeypatch):
    """Sound that is refused as it comes stands for all that may go wrong in it."""
    with serve([Airing(clips[0], 2)] * 2) as address:
        told, reader = read_with_limits(engine, address, monkeypatch, "sound_rate=8000", retries=1)
    assert kinds_of(told) == ["connected", "lost", "connected", "given_up"]
    assert "sound_rate" in told[1].message
    assert (reader.error, reader.reconnects) == (None, 1)


def test_a_file_that_fails_ends_the_watch(engine, clips, monkeypatch):
    told, reader = read_with_limits(engine, clips[0], monkeypatch, "sound_rate=8000", retries=None)
    assert kinds_of(told) == ["connected"]
    assert "sound_rate" in str(reader.error)


def test_what_goes_wrong_in_the_monitor_is_no_lost_connection(engine, clips, monkeypatch):
    with serve([Airing(clips[0], 12)]) as address:
        told, reader = read_with_limits(engine, address, monkeypatch, "picture_pixels=100", retries=None)
    assert kinds_of(told) == ["connected"]
    assert str(reader.error).startswith("monitor: ")


def test_attempts_that_fail_are_no_reconnections(engine, clips):
    with serve([Airing(clips[0], 1)]) as address:
        happened, watched = watch(engine, address, retries=2)
    assert kinds_of(happened) == ["connected", "lost", "lost", "given_up"]
    assert "opened again" not in watched.message


def test_pictures_that_are_too_large_end_the_watch(engine, clips, monkeypatch):
    monkeypatch.setenv("AVSYNC_LIMITS", "picture_pixels=40000")
    with serve([Airing(clips[0], 2)]) as address:
        for watched in (clips[0], address):
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


@pytest.mark.slow
def test_the_command_has_its_exit_codes(handmade, tmp_path):
    assert run(tmp_path / "missing.ts").returncode == 4
    assert run("a.ts", "--webhook", "ftp://a/").returncode == 2
    assert run("a.ts", "--exec", "'").returncode == 2
    bars = write_clip(tmp_path / "bars.ts", seconds=2, sound=np.zeros(32_000, np.float32), rate=16_000)
    ours, theirs = os.pipe()  # that never gives anything
    words = [sys.executable, "-m", "avsync_cli", "watch", "-", "--model", str(handmade)]
    assert subprocess.run([*words, "--for", "0.5"], stdin=ours, check=False, timeout=300).returncode == 3
    with subprocess.Popen(words, stdin=ours, stderr=subprocess.PIPE, text=True) as interrupted:
        os.write(theirs, bytes(188))
        wait_until(lambda: ioctl(ours, FIONREAD, bytes(4)) == bytes(4), seconds=300)  # it was read
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.communicate(timeout=300)[1] == "avsync: interrupted\n"
    assert interrupted.returncode == 130
    os.close(ours)
    os.close(theirs)
    quiet = run(bars, "--wait", 0, "--model", handmade, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (3, "", "")


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
