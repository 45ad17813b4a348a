"""What is done when the verdict changes: a program is run, an address is told. Neither holds up the watch."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from avsync_cli import __version__
from avsync_cli.errors import ConfigError, complain

_MOST_WAITING = 100
_POST_S = 10.0
_RUN_S = 60.0
_SOON_S = 2.0  # for which nobody asks why nothing happens
_LOOK_S = 0.2  # as on Windows no interrupt comes through while a thread is waited for
_WRITTEN_OUT = re.compile("[!-~]+")
_MOST_WORDS = 200  # characters of what a server says


class Hooks:
    """Runs `command` and posts to `webhook` for each change, one after the other, in a thread.

    The command is no shell's: its words are split, and it is told in the environment (`variables`). What
    fails is warned about, once of each. Raises ConfigError.
    """

    def __init__(self, command: str | None, webhook: str | None) -> None:
        self._words = _split(command)
        self._webhook = webhook
        self._host = None if webhook is None else _host_of(webhook)
        self._waiting: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = Lock()  # of a program: none begins that nobody would end
        self._is_over = False
        self._warned: set[str] = set()
        self._worker = Thread(target=self._work, name="avsync-hooks", daemon=True)
        self._worker.start()

    def tell(self, told: Mapping[str, Any]) -> None:
        """Hand on a change, as it is written in JSON."""
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(told)
        else:
            self._warn("hooks", "too many changes wait for --exec and --webhook: some are left out")

    def close(self, *, wait_s: float = _RUN_S + _POST_S) -> None:
        """Wait for what is still to be told, but not for ever, and say so where it takes long.

        An interrupt ends it at once. A program that still runs then is ended, too.
        """
        self._waiting.put(None)
        try:
            if not self._joins_in(min(wait_s, _SOON_S)):
                self._say("--exec and --webhook are waited for; Ctrl-C ends this at once")
                if not self._joins_in(wait_s - _SOON_S):
                    self._warn("hooks", f"--exec and --webhook took longer than {wait_s:g} s at the end")
        finally:
            with self._starting:
                self._is_over = True
            if self._child is not None:
                _kill(self._child)

    def _joins_in(self, wait_s: float) -> bool:
        """Whether all was told within so many seconds."""
        end_s = monotonic() + wait_s
        while self._worker.is_alive() and (left_s := end_s - monotonic()) > 0:
            self._worker.join(min(left_s, _LOOK_S))
        return not self._worker.is_alive()

    def _work(self) -> None:
        while (told := self._waiting.get()) is not None and not self._is_over:
            if self._words:
                self._attempt("exec", f"--exec {self._words[0]}", partial(self._run, told))
            if self._webhook is not None:
                post = partial(self._post, self._webhook, told)
                self._attempt("webhook", f"--webhook at {self._host}", post)

    def _attempt(self, which: str, name: str, hook: Callable[[], None]) -> None:
        """Whatever goes wrong in one hook, the next change is told all the same."""
        try:
            hook()
        except Exception as error:
            self._warn(which, f"{name}: {_words_of(error)}")

    def _run(self, told: Mapping[str, Any]) -> None:
        with self._starting:
            if self._is_over:
                return
            # In a session of its own a terminal's Ctrl-C does not reach it: the watch waits for its end.
            self._child = subprocess.Popen(
                self._words,
                env=os.environ | variables(told),
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,
                start_new_session=True,
            )
        with self._child as child:
            try:
                code = child.wait(_RUN_S)
            except subprocess.TimeoutExpired:
                _kill(child)
                raise
        if code:
            raise OSError(f"ended with {code}")

    def _post(self, address: str, told: Mapping[str, Any]) -> None:
        data = json.dumps(told, allow_nan=False).encode("ascii")
        headers = {"Content-Type": "application/json", "User-Agent": f"avsync/{__version__}"}
        request = Request(address, data, headers, method="POST")
        with build_opener(_NoRedirect).open(request, timeout=_POST_S):
            pass

    def _warn(self, which: str, words: str) -> None:
        if which not in self._warned:
            self._warned.add(which)
            self._say(f"{words} (said once)")

    @staticmethod
    def _say(words: str) -> None:
        """Where nobody can be told any more, what is to be done goes on."""
        with suppress(OSError, ValueError):
            complain(words)


def variables(told: Mapping[str, Any]) -> dict[str, str]:
    """A change as environment variables: its plain values, as AVSYNC_STATUS is its `status`."""
    plain = {
        key: value for key, value in told.items() if value is None or isinstance(value, str | int | float)
    }
    return {f"AVSYNC_{key.upper()}": "" if value is None else str(value) for key, value in plain.items()}


class _NoRedirect(HTTPRedirectHandler):
    """What is posted goes to the address that the user gave, and nowhere else."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _split(command: str | None) -> list[str]:
    if command is None:
        return []
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise ConfigError(f"--exec {command}: {error}") from error
    if not words:
        raise ConfigError("--exec: names no program")
    return words


def _host_of(webhook: str) -> str:
    """Where changes are posted to, without what may be secret. Raises ConfigError."""
    try:
        parts = urlsplit(webhook)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose text may hold part of a password
        raise ConfigError("--webhook: its host or port can be none") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigError("--webhook: must be an address of http or https, with a host")
    if "@" in parts.netloc:
        raise ConfigError("--webhook: an address with a name and a password in it is not taken")
    if not _WRITTEN_OUT.fullmatch(webhook):
        raise ConfigError("--webhook: blanks, and what is no ASCII, must be written as %20 and the like")
    return host


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a program, and where there are sessions what it started, too; what is another user's goes on."""
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        child.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _words_of(error: Exception) -> str:
    """What went wrong. What other errors than these say may hold the address, and what is secret in it."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"took longer than {_RUN_S:g} s"
    if isinstance(error, HTTPError):
        return f"answers {error.code} {error.reason or ''}".strip()[:_MOST_WORDS]
    if isinstance(error, HTTPException):
        return f"{type(error).__name__}: no answer of HTTP"
    if isinstance(error, OSError):
        return str(getattr(error, "reason", None) or error.strerror or error)[:_MOST_WORDS]
    return type(error).__name__
