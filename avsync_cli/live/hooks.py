"""What is done when the verdict changes: a program is run, an address is told. Neither holds up the watch."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from queue import Full, Queue
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from avsync_cli import __version__
from avsync_cli.errors import ConfigError, complain

_MOST_WAITING = 100
_POST_S = 10.0
_RUN_S = 60.0
_SOON_S = 2.0  # for which nobody asks why nothing happens


class Hooks:
    """Runs `command` and posts to `webhook` for each change, one after the other, in a thread.

    The command is no shell's: its words are split, and it is told in the environment (`variables`). What
    fails is warned about, once of each. Raises ConfigError.
    """

    def __init__(self, command: str | None, webhook: str | None) -> None:
        self._words = _split(command)
        self._webhook = webhook
        self._host = None if webhook is None else _host_of(webhook)
        self._waiting: Queue[Mapping[str, Any] | None] = Queue(_MOST_WAITING)
        self._warned: set[str] = set()
        self._worker = Thread(target=self._work, name="avsync-hooks", daemon=True)
        self._worker.start()

    def tell(self, told: Mapping[str, Any]) -> None:
        """Hand on a change, as it is written in JSON."""
        try:
            self._waiting.put_nowait(told)
        except Full:
            self._warn("hooks", "too many changes wait for --exec and --webhook: some are left out")

    def close(self, *, wait_s: float = _RUN_S + _POST_S) -> None:
        """Wait for what is still to be told, but not for ever, and say so where it takes long."""
        end_s = monotonic() + wait_s
        with suppress(Full):
            self._waiting.put(None, timeout=wait_s)
        self._worker.join(min(wait_s, _SOON_S))
        if self._worker.is_alive() and wait_s > _SOON_S:
            complain("--exec and --webhook are waited for; Ctrl-C ends this at once")
            self._worker.join(max(0.0, end_s - monotonic()))

    def _work(self) -> None:
        while (told := self._waiting.get()) is not None:
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
        done = subprocess.run(
            self._words,
            env=os.environ | variables(told),
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__,
            timeout=_RUN_S,
            check=False,
        )
        if done.returncode:
            raise OSError(f"ended with {done.returncode}")

    def _post(self, address: str, told: Mapping[str, Any]) -> None:
        data = json.dumps(told, allow_nan=False).encode("ascii")
        headers = {"Content-Type": "application/json", "User-Agent": f"avsync/{__version__}"}
        request = Request(address, data, headers, method="POST")
        with build_opener(_NoRedirect).open(request, timeout=_POST_S):
            pass

    def _warn(self, which: str, words: str) -> None:
        if which not in self._warned:
            self._warned.add(which)
            complain(f"{words} (said once)")


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
        host, _ = parts.hostname, parts.port  # which is a number, or nothing
    except ValueError as error:
        raise ConfigError(f"--webhook: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("--webhook: must be an address of http or https, with a host")
    if parts.username is not None:
        raise ConfigError("--webhook: an address with a name and a password in it is not taken")
    return host


def _words_of(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"took longer than {_RUN_S:g} s"
    if isinstance(error, HTTPException):
        return f"{type(error).__name__}: no answer of HTTP"
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
