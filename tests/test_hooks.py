"""What `avsync watch` tells programs and servers: whoever fails, hangs or may not be ended."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from socketserver import StreamRequestHandler, TCPServer
from threading import Event, Thread

import pytest
from scan_stubs import is_alive, wait_until

from avsync_cli import ConfigError
from avsync_cli.live.hooks import Hooks


def write_sleeper(tmp_path):
    """A program that adds its number to the file `numbers` and sleeps, and how it is called."""
    script, numbers = tmp_path / "sleeper.py", tmp_path / "numbers"
    script.write_text(
        f"import os, time\nopen({str(numbers)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(600)\n"
    )
    return f"'{sys.executable}' '{script}'", numbers


def wait_for_number(numbers):
    """That of the sleeper that was begun first."""
    wait_until(lambda: numbers.exists() and numbers.read_text().endswith(" "), seconds=300)
    return int(numbers.read_text().split()[0])


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
    command, numbers = write_sleeper(tmp_path)
    hooks = Hooks(command, None)
    for _ in range(3):
        hooks.tell({"status": "in_sync"})
    number = wait_for_number(numbers)
    hooks.close(wait_s=3)
    wait_until(lambda: not is_alive(number), seconds=300)
    assert numbers.read_text().split() == [str(number)], "the others were not begun"
    assert "took longer than 3 s" in capsys.readouterr().err


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
    command, numbers = write_sleeper(tmp_path)
    hooks = Hooks(command, None)
    hooks.tell({"status": "in_sync"})
    number = wait_for_number(numbers)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    try:
        hooks.close(wait_s=0)
    finally:
        os.kill(number, signal.SIGKILL)
