"""`avsync watch`: streams served by the test, their drops, jumps and reconnections, and what is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from fcntl import ioctl
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from termios import FIONREAD
from threading import Thread

import numpy as np
import pytest
from clips import write_clip
from scan_stubs import is_alive, wait_until
from serving import Airing, send_udp, serve
from talking import STREAM_SECONDS, write_talking_head
from test_hooks import wait_for_number, write_sleeper
from watching import changes_of, kinds_of, watch

from avsync_cli import MediaError
from avsync_cli.live.events import MonitorEvent
from avsync_cli.live.hysteresis import Change
from avsync_cli.live.reading import Pace


@pytest.mark.slow
def test_a_lost_connection_is_opened_again_and_the_verdict_follows(engine, streams):
    """Early sound first, in the middle of which the clock jumps; then, on a new connection, none is early."""
    airings = [
        Airing(streams[160], 11, jump_at_s=5.5, jump_s=3600),
        Airing(streams[0], 6),
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
def test_a_drop_of_seconds_does_not_change_the_verdict(engine, streams):
    with serve([Airing(streams[160], 12, drop_at_s=5, drop_s=2.5)], scheme="http") as address:
        happened, watched = watch(engine, address)
    assert (watched.exit_code, changes_of(happened)) == (1, [(None, "out_of_sync")])
    leads = [each.audio_lead_ms for each in happened if isinstance(each, MonitorEvent)]
    assert all(lead is None or lead == pytest.approx(175, abs=30) for lead in leads)


@pytest.mark.slow
def test_datagrams_are_watched_as_they_come(engine, tmp_path):
    """In real time, from anywhere on, until a verdict counts: some may be lost on a busy machine."""
    clip = write_talking_head(tmp_path / "keys.ts", seconds=STREAM_SECONDS, keyframe_every=12)
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
def test_a_quarter_of_an_hour_takes_no_more_memory_than_a_minute(handmade, streams):
    """In real time, with three connections, three drops and three jumps of the clock."""
    from benchmarks.soak_watch import soak

    done = soak(streams[0], 900, options=("--model", str(handmade), "--tolerance", "100"))
    kinds = [line["kind"] for line in done.lines]
    assert (done.exit_code, kinds.count("connected"), kinds.count("given_up")) == (0, 3, 1)
    assert [line["clock_jumps"] for line in done.lines if line["kind"] == "verdict"][-1] == 3
    assert done.resident_mb(600, 1000) <= done.resident_mb(60, 180) + 15
    assert done.load() < 1


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
def test_a_pipe_is_watched_and_a_change_is_told(handmade, streams, tmp_path):
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
    with streams[160].open("rb") as pipe:
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
def test_hooks_that_fail_are_warned_about_once(handmade, streams, tmp_path):
    joined = tmp_path / "joined.ts"
    joined.write_bytes(streams[160].read_bytes() + streams[0].read_bytes())
    hooks = ("--exec", "no-such-program", "--webhook", "http://127.0.0.1:9/")
    ran = run(joined, "--wait", 0, "--tolerance", 100, "--model", handmade, *hooks)
    assert ran.returncode == 1
    assert ran.stdout.count("out of sync") == ran.stdout.count(": in sync") == 1
    assert ran.stderr.count("no-such-program") == ran.stderr.count("--webhook at 127.0.0.1") == 1


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
def test_after_an_interrupt_the_last_change_is_told(handmade, streams, tmp_path, name):
    """The program that is told takes longer than it takes to end the watch, and Ctrl-C does not reach it; a
    service is ended by SIGTERM."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    (tmp_path / "told.py").write_text(
        f"import time, pathlib\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(4)\n"
        f"pathlib.Path({str(ended)!r}).touch()\n"
    )
    with watching(handmade, streams[160], tmp_path / "told.py") as ran:
        wait_until(begun.exists, seconds=300)
        os.killpg(ran.pid, getattr(signal, name))
        ran.wait(300)
        said = ran.stderr.read().decode()
    assert (ran.returncode, ended.exists()) == (130, True)
    assert said.endswith("avsync: interrupted\n")


@pytest.mark.slow
def test_a_second_interrupt_waits_for_nothing(handmade, streams, tmp_path):
    _, numbers = write_sleeper(tmp_path)
    with watching(handmade, streams[160], tmp_path / "sleeper.py") as ran:
        number = wait_for_number(numbers)
        os.killpg(ran.pid, signal.SIGINT)
        assert any(b"waited for" in line for line in ran.stderr)
        os.killpg(ran.pid, signal.SIGINT)
        assert ran.wait(300) == 130
        wait_until(lambda: not is_alive(number), seconds=300)
        assert b"took longer" not in ran.stderr.read(), "as is said after 60 s"


def feed(pipe, data):
    """Write what is asked for, and leave the pipe open."""
    with suppress(OSError):
        pipe.write(data)
        pipe.flush()


@pytest.mark.slow
def test_a_file_is_read_while_it_grows(engine, streams, tmp_path):
    growing = tmp_path / "growing.ts"
    data = streams[160].read_bytes()
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
    assert [each for each in happened if isinstance(each, MonitorEvent)][-1].time_s >= STREAM_SECONDS


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
    entries = "".join(f"#EXTINF:{STREAM_SECONDS},\n{name}\n" for name in names)
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:{STREAM_SECONDS}\n{entries}#EXT-X-ENDLIST\n")
    return path


def test_a_playlist_on_the_network_leads_to_the_network_alone(engine, streams, site):
    folder, address = site
    shutil.copy(streams[160], folder / "part.ts")
    write_playlist(folder / "good.m3u8", "part.ts")
    happened, watched = watch(engine, f"{address}/good.m3u8?token=secret")
    assert (kinds_of(happened), watched.exit_code) == (["connected"], 1)
    for name in (f"file://{streams[160]}", str(streams[160]), f"concat:{streams[160]}"):
        write_playlist(folder / "bad.m3u8", name)
        with pytest.raises(MediaError, match=r"^http://127\.0\.0\.1:\d+/bad\.m3u8: ") as caught:
            watch(engine, f"{address}/bad.m3u8?token=secret")
        assert "secret" not in str(caught.value)


def test_a_playlist_in_a_file_leads_nowhere(engine, streams, tmp_path, site):
    _, address = site
    shutil.copy(streams[160], tmp_path / "part.ts")
    for name in ("part.ts", f"{address}/part.ts"):
        local = write_playlist(tmp_path / "local.m3u8", name)
        with pytest.raises(MediaError, match="a playlist"):
            watch(engine, local)


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
