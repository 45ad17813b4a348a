"""`avsync web` as browsers reach it: in this process with checks that take no models, or as a command."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

from scan_stubs import LIMITS, load_stub

from avsync_cli.batch.worker import Checker, Settings
from avsync_cli.errors import MediaError
from avsync_cli.fix import name_targets
from avsync_cli.machine import MB
from avsync_cli.report import ModelId, Report
from avsync_cli.web.app import Site, make_app
from avsync_cli.web.desk import Desk
from avsync_cli.web.door import Door, guard
from avsync_cli.web.folder import open_folder
from avsync_cli.web.server import listen, make_server
from avsync_cli.web.work import REPORT, Task

Told = dict[str, Any]


def load_stub_work() -> Checker:
    """Does what the file says, as `scan_stubs`; "fixable" in it lets it be mended."""
    check = load_stub()

    def work(path: Path, *, item: Task, progress: Callable[[float, float], None]) -> Report:
        progress(1.0, 2.0)
        if not item.mend:
            report = check(path)
            path.with_name(REPORT).write_text(f"<p>page of {len(item.file)} characters</p>")
            return report
        if path.stat().st_size > 10:
            raise MediaError(f"{path}: cannot be copied")
        shutil.copy(path, name_targets(path)[0])
        return replace(check(path), status="in_sync", message="sound moved")

    return work


class Visitor:
    """A browser as far as HTTP goes."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.port, self.cookie = port, cookie
        self.origin = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, and body. Underscores in names of headers stand for dashes."""
        told = {"Cookie": self.cookie} if self.cookie else {}
        told |= {"Origin": self.origin} if method not in ("GET", "HEAD") else {}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, {name: value for name, value in told.items() if value})
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()

    def enter(self, token: str) -> "Visitor":
        status, headers, _ = self.ask("GET", f"/?token={token}")
        assert status == 200
        return Visitor(self.port, headers["set-cookie"].partition(";")[0])

    def files(self, tab: str = "") -> list[Told]:
        status, _, body = self.ask("GET", f"/api/files?tab={tab}")
        assert status == 200
        files: list[Told] = json.loads(body)["files"]
        return files

    def file(self, key: str) -> Told:
        return next(file for file in self.files() if file["key"] == key)

    def expect(self, name: str, size: int, tab: str = "") -> tuple[int, Told]:
        asked = urlencode({"name": name, "size": size, "tab": tab})
        status, _, body = self.ask("POST", f"/api/files?{asked}")
        return status, json.loads(body)

    def send(self, name: str, data: bytes, tab: str = "") -> str:
        """The key of a file that was taken."""
        status, told = self.expect(name, len(data), tab)
        assert status == 201, told
        assert self.ask("PUT", f"/api/files/{told['key']}", data)[0] == 201
        return str(told["key"])

    def wait_for(self, key: str, true: Callable[[Told], bool], *, seconds: float = 300) -> Told:
        deadline = time.monotonic() + seconds
        while not true(file := self.file(key)):
            assert time.monotonic() < deadline, file
            time.sleep(0.02)
        return file

    def check(self, name: str, data: bytes) -> Told:
        return self.wait_for(self.send(name, data), lambda file: file["state"] == "done")


@contextmanager
def open_site(
    folder: Path, *, root: Path | None = None, limit_mb: int = 1, linger_s: float = 300, **settings: Any
) -> Iterator[tuple[Door, Desk]]:
    """Files lie in `folder`; checks are those of the stub, with the limits of `settings`."""
    model = ModelId("stub", "0" * 64)
    told = Settings(load_stub_work, LIMITS, watched=True, **settings)
    with listen(0) as listener, Desk(folder, told, model, linger_s=linger_s) as desk:
        door = Door(listener.getsockname()[1])
        site = Site(desk, None if root is None else open_folder(root), limit_mb * MB, linger_s)
        server = make_server(guard(make_app(site), door))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield door, desk
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def run_web(*options: object, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command, and the address that it prints."""
    command = [sys.executable, "-m", "avsync_cli", "web", "--no-browser", *map(str, options)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", said)
        if found is None:  # it has ended, or is made to
            process.terminate()
            raise AssertionError(f"no address: {said}{process.communicate(timeout=300)[1]}")
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=300)
