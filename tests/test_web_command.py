"""`avsync web` as a process: how it ends, and what ends it."""

import re
import signal
import subprocess
import sys

import psutil
import pytest
from scan_stubs import is_alive, wait_until
from students import write_student
from test_cli import assert_one_line

pytest.importorskip("starlette", reason="needs the extra `web`")
pytest.importorskip("uvicorn", reason="needs the extra `web`")
pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

from web_site import Visitor, run_web

from avsync_cli.errors import ConfigError
from avsync_cli.web.folder import open_folder
from avsync_cli.web.options import WebOptions
from avsync_cli.web.server import listen


def split(address: str) -> tuple[int, str]:
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", address)
    return int(found[1]), found[2]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_however_it_ends(tmp_path, handmade, number):
    """What SIGKILL leaves is removed at the next start."""
    options = ("--model", handmade)
    with run_web(*options, TMPDIR=str(tmp_path)) as (process, address):
        port, token = split(address)
        visitor = Visitor(port).enter(token)
        key = visitor.send("a.mp4", bytes(100_000))
        visitor.wait_for(key, lambda file: file["state"] in ("checking", "done"))
        main = psutil.Process(process.pid)
        wait_until(lambda: bool(main.children()), seconds=300)  # it is said to be checked before one begins
        children = main.children(recursive=True)
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        status = process.wait(300)
        if number == signal.SIGKILL:
            assert [path.name.startswith("avsync-web-") for path in tmp_path.glob("avsync-web-*")] == [True]
            with run_web(*options, TMPDIR=str(tmp_path)) as (_, again):
                assert again != address
                assert len(list(tmp_path.glob("avsync-web-*"))) == 1
                assert not list(tmp_path.rglob("video.mp4"))
        else:
            assert status == 0
            assert process.stderr.read() == ""
            assert list(tmp_path.iterdir()) == []
        wait_until(lambda: not any(is_alive(child.pid) for child in children), seconds=300)


def test_what_cannot_be_served_is_a_wrong_call(tmp_path):
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: .*in use"), listen(port):
            pass
    with pytest.raises(ConfigError, match="is no folder"):
        open_folder(tmp_path / "none")
    for wrong in ({"port": 70000}, {"port": -1}, {"max_upload_mb": 0}, {"memory_mb": 1}, {"timeout_s": 0.0}):
        with pytest.raises(ConfigError):
            WebOptions(**wrong)


@pytest.mark.slow
def test_a_model_that_cannot_be_used_ends_it(tmp_path):
    """It can be opened, but its first check finds that it says nothing of how sure it is."""
    model = write_student(tmp_path / "model", calibration=None)
    with run_web("--model", model, TMPDIR=str(tmp_path)) as (process, address):
        port, token = split(address)
        Visitor(port).enter(token).send("a.mp4", b"no video")
        assert process.wait(300) == 5
        assert "not calibrated" in process.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['uvicorn'] = None; from avsync_cli.cli import main; main()"
    command = [sys.executable, "-c", code, "web", "--no-browser"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert_one_line(result, "pip install 'avsync-cli[web]'")
