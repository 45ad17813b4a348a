"""`avsync web`: who is let in, what becomes of what is sent, and that nothing of it is left."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import psutil
import pytest
from scan_stubs import is_alive, wait_until
from students import write_student
from test_cli import assert_one_line

pytest.importorskip("starlette", reason="needs the extra `web`")
pytest.importorskip("uvicorn", reason="needs the extra `web`")
pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

from web_site import Visitor, open_site, run_web

from avsync_cli.batch.records import Item
from avsync_cli.errors import ConfigError
from avsync_cli.web.folder import open_folder
from avsync_cli.web.options import WebOptions
from avsync_cli.web.server import listen
from avsync_cli.web.storage import Refusal
from avsync_cli.web.tabs import FORGET_S, Tabs


@pytest.fixture
def site(tmp_path):
    (tmp_path / "files").mkdir()
    with open_site(tmp_path / "files") as (door, desk):
        yield door, desk, tmp_path / "files"


@pytest.fixture
def visitor(site):
    return Visitor(site[0].port).enter(site[0].token)


def split(address: str) -> tuple[int, str]:
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", address)
    return int(found[1]), found[2]


def test_the_address_is_good_for_one_visit_and_its_browser(site):
    door = site[0]
    stranger = Visitor(door.port)
    for path in ("/", "/?token=wrong", "/?token=%ff", "/page.js", "/api/files", "/nothing"):
        assert stranger.ask("GET", path)[0] == 403
    assert stranger.ask("HEAD", f"/?token={door.token}")[0] == 403, "only looking does not use it up"
    status, headers, body = stranger.ask("GET", f"/?token={door.token}")
    assert status == 200
    assert door.token.encode() not in body
    assert {"HttpOnly", "SameSite=strict", "Path=/"} < set(headers["set-cookie"].split("; "))
    visitor = Visitor(door.port, headers["set-cookie"].partition(";")[0])
    assert visitor.ask("GET", "/")[0] == visitor.ask("GET", "/api/files")[0] == 200
    assert stranger.ask("GET", f"/?token={door.token}")[0] == 403, "a second use without the cookie"
    status, headers, _ = visitor.ask("GET", f"/?token={door.token}")
    assert (status, headers["location"]) == (303, "/"), "and a second tab comes in"
    neighbour = Visitor(door.port, f"a[b]=1; ={{; {visitor.cookie}; x")
    assert neighbour.ask("GET", "/")[0] == 200, "cookies of other ports do not hide it"
    assert Visitor(door.port, f"{door.cookie}=wrong").ask("GET", "/")[0] == 403


def test_names_and_pages_of_others_do_not_reach_it(site, visitor):
    door = site[0]
    for host in ("evil.example", f"localhost:{door.port}", "127.0.0.1", f"127.0.0.1:{door.port + 1}"):
        assert visitor.ask("GET", "/", Host=host)[0] == 421
    assert visitor.ask("GET", f"/?token={door.token}", Host=f"evil.example:{door.port}")[0] == 421
    path = "/api/files?name=a.mp4&size=1"
    for origin in ("", "null", "https://evil.example", f"http://localhost:{door.port}", "http://127.0.0.1"):
        assert visitor.ask("POST", path, Origin=origin)[0] == 403
        assert visitor.ask("DELETE", "/api/files/0", Origin=origin)[0] == 403
    for where in ("cross-site", "same-site"):
        assert visitor.ask("GET", "/api/files", Sec_Fetch_Site=where)[0] == 403
        assert visitor.ask("GET", "/", Sec_Fetch_Site=where)[0] == 200, "a link may lead here"
    assert visitor.files() == []
    assert visitor.ask("POST", path)[0] == 201


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/api/files", "/api/folder", "/nothing"])
def test_every_answer_keeps_to_itself(visitor, path):
    _, headers, _ = visitor.ask("GET", path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_it_is_reached_from_this_machine_alone(site):
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", site[0].port)) == 0
    with socket.socket() as probe:
        probe.settimeout(5)  # where only 127.0.0.1 is of this machine, nobody answers
        assert probe.connect_ex(("127.0.0.2", site[0].port)) != 0


def test_a_video_is_checked_shown_mended_and_erased(site, visitor):
    folder = site[2]
    told = visitor.check("C:\\talks\\../talk <b>.MP4", b"lead 80")
    key = told["key"]
    assert (told["name"], told["verdict"]["status"]) == ("talk <b>.MP4", "out_of_sync")
    assert told["verdict"]["title"] == "Out of sync"
    assert told["verdict"]["sentence"] == "Voices are heard 80 ms before lips move (2.0 frames)."
    assert visitor.ask("GET", f"/files/{key}/copy")[0] == 404
    status, headers, body = visitor.ask("GET", f"/files/{key}/report")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<p>page of")
    assert headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in headers["content-security-policy"]
    assert visitor.ask("POST", f"/api/files/{key}/mend")[0] == 202
    told = visitor.wait_for(key, lambda file: file["mending"] == "done")
    assert (told["words"], told["may_be_mended"]) == ("sound moved", False)
    status, headers, body = visitor.ask("GET", f"/files/{key}/copy")
    assert (status, body) == (200, b"lead 80")
    assert headers["content-disposition"].startswith("attachment; filename")
    assert headers["content-type"] == "application/octet-stream"
    assert visitor.ask("POST", f"/api/files/{key}/mend")[0] == 409
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in paths} == {"video.mp4", "video.synced.mp4", "report.html"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in folder.iterdir())
    for _ in range(2):  # two tabs may ask for it
        assert visitor.ask("DELETE", f"/api/files/{key}")[0] == 200
    assert (list(folder.iterdir()), visitor.files()) == ([], [])
    for path in (f"/files/{key}/report", f"/files/{key}/copy"):
        assert visitor.ask("GET", path)[0] == 404


NAMES = {
    "../../etc/passwd": "passwd",
    "..\\..\\a.mp4": "a.mp4",
    "/": "video",
    "..": "..",
    "\0\n.mp4": "\0\n.mp4",
    "x" * 5000 + ".mov": "x" * 200 + "….mov",
    "影片 é.MKV": "影片 é.MKV",
}


def test_a_name_is_shown_and_never_a_path(site, visitor):
    keys = {name: visitor.send(name, b"lead 0") for name in NAMES}
    for name, key in keys.items():
        told = visitor.wait_for(key, lambda file: file["state"] == "done")
        assert (told["name"], told["verdict"]["status"]) == (NAMES[name], "in_sync")
        assert visitor.ask("GET", f"/files/{key}/report")[0] == 200
    names = {path.name for path in site[2].rglob("*") if path.is_file()}
    assert names == {"video", "video.mp4", "video.mov", "video.mkv", "report.html"}
    assert {path.name for path in site[2].iterdir()} == set(keys.values())
    assert [path.name for path in site[2].parent.iterdir()] == ["files"]


@pytest.mark.parametrize(
    "path", ["/files/..%2f..%2fetc/report", "/files/../../etc/passwd", "/..%2f..%2fpage.js"]
)
def test_no_path_of_an_address_leads_to_a_file(visitor, path):
    assert visitor.ask("GET", path)[0] == 404


def test_what_is_too_large_is_refused_while_it_comes(site, visitor):
    status, told = visitor.expect("big.mp4", 10**12)
    assert (status, told["words"]) == (413, "larger than the 1 MB that are taken")
    key = visitor.expect("liar.mp4", 5)[1]["key"]

    def endless():
        while True:
            yield b"x" * 65536

    with suppress(ConnectionError):  # it hangs up on who goes on
        status, _, _ = visitor.ask("PUT", f"/api/files/{key}", endless())
        assert status == 413
    told = visitor.wait_for(key, lambda file: file["state"] == "refused")
    assert "larger than the 1 MB" in told["words"]
    assert list(site[2].iterdir()) == []
    assert visitor.ask("PUT", f"/api/files/{key}", b"lead 0")[0] == 409
    assert visitor.check("next.mp4", b"lead 0")["verdict"]["status"] == "in_sync"


def test_a_full_disk_is_told_and_what_came_is_erased(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a small disk")
    try:
        with open_site(disk, limit_mb=50) as (door, _):
            visitor = Visitor(door.port).enter(door.token)
            key = visitor.expect("film.mp4", 8 << 20)[1]["key"]
            with suppress(ConnectionError):  # as above
                assert visitor.ask("PUT", f"/api/files/{key}", bytes(8 << 20))[0] == 507
            told = visitor.wait_for(key, lambda file: file["state"] == "refused")
            assert told["words"] == "no room for it: the disk is full"
            assert list(disk.iterdir()) == []
            assert visitor.check("small.mp4", b"lead 0")["verdict"]["status"] == "in_sync"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_who_hangs_up_leaves_nothing(site, visitor):
    key = visitor.expect("half.mp4", 1000)[1]["key"]
    with socket.create_connection(("127.0.0.1", visitor.port)) as line:
        head = (
            f"PUT /api/files/{key} HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\nOrigin: {visitor.origin}\r\n"
        )
        line.sendall(f"{head}Cookie: {visitor.cookie}\r\nContent-Length: 1000\r\n\r\n".encode() + bytes(10))
        visitor.wait_for(key, lambda file: file["state"] == "uploading")
    wait_until(lambda: visitor.files() == [], seconds=300)
    wait_until(lambda: not list(site[2].iterdir()), seconds=300)


BROKEN = {
    "segfault": "SIGSEGV",
    "refuse": "no sound in it",
    "divide": "ZeroDivisionError",
    "say 00": "sensible",
}


def test_a_file_that_is_broken_is_its_own_error(visitor):
    keys = {word: visitor.send("bad.mp4", word.encode()) for word in BROKEN}
    good = visitor.send("good.mp4", b"lead 0")
    told = visitor.wait_for(good, lambda file: file["state"] == "done")
    assert (told["verdict"]["status"], told["has_report"]) == ("in_sync", True)
    for word, key in keys.items():
        told = visitor.file(key)
        assert (told["verdict"]["status"], told["has_report"]) == ("error", False)
        assert told["verdict"]["title"] == "Could not be checked"
        assert BROKEN[word] in told["verdict"]["words"]


def test_the_limits_of_scan_hold(tmp_path):
    with open_site(tmp_path, timeout_s=6.0) as (door, _):
        visitor = Visitor(door.port).enter(door.token)
        slow, quick = visitor.send("slow.mp4", b"hang"), visitor.send("quick.mp4", b"lead 0")
        visitor.wait_for(quick, lambda file: file["state"] == "done")
        assert visitor.file(slow)["verdict"]["words"] == "took longer than the 6 s it may"
        assert not visitor.file(slow)["has_report"]


def test_others_wait_their_turn_and_what_is_removed_is_checked_no_further(site, visitor):
    key, queued = visitor.send("slow.mp4", b"hang"), visitor.send("next.mp4", b"lead 0")
    visitor.wait_for(key, lambda file: file["share"] == 0.5)
    assert visitor.ask("GET", "/")[0] == 200
    states = {file["key"]: file["state"] for file in visitor.files()}
    assert states == {key: "checking", queued: "waiting"}, "the page answers meanwhile"
    assert visitor.ask("DELETE", f"/api/files/{key}")[0] == 200
    assert visitor.wait_for(queued, lambda file: file["state"] == "done")["verdict"]["status"] == "in_sync"
    assert [path.name for path in site[2].iterdir()] == [queued]


def test_all_is_erased_when_the_last_tab_is_gone_for_long(tmp_path):
    with open_site(tmp_path, linger_s=0.5) as (door, _):
        visitor = Visitor(door.port).enter(door.token)
        visitor.files("one")
        visitor.files("two")
        key = visitor.send("a.mp4", b"lead 0", "one")
        half = visitor.expect("half.mp4", 1000, "one")[1]["key"]
        assert visitor.ask("POST", "/api/leave?tab=one")[0] == 200
        assert [file["key"] for file in visitor.files()] == [key] != [half], (
            "what it had not sent never comes"
        )
        visitor.ask("POST", "/api/leave?tab=two")
        wait_until(lambda: not list(tmp_path.iterdir()), seconds=300)
        assert visitor.files() == []


def test_the_page_is_over_when_its_last_tab_was_gone_for_long(monkeypatch):
    now = 0.0
    monkeypatch.setattr("avsync_cli.web.tabs.monotonic", lambda: now)
    tabs = Tabs(linger_s=3)
    for now, doing, is_over in (
        (0, None, False),
        (9, None, False),  # none has come yet
        (10, ("hear", "one"), False),
        (10, ("hear", "two"), False),
        (11, ("leave", "one"), False),
        (99, None, False),  # the other is there
        (100, ("leave", "two"), False),
        (102, ("hear", "two"), False),  # was loaded anew
        (110, None, False),
        (110, ("leave", "two"), False),
        (112.9, None, False),
        (113.1, None, True),
        (200, None, False),  # told once
        (300, ("hear", "three"), False),
        (300 + FORGET_S, None, False),
        (301 + FORGET_S, None, False),  # it never said that it goes
        (305 + FORGET_S, None, True),
    ):
        if doing is not None:
            getattr(tabs, doing[0])(doing[1])
        assert tabs.is_over() is is_over, now


def test_a_video_of_the_folder_is_listed_once_whoever_asks_for_it(site, tmp_path):
    desk, video = site[1], tmp_path / "video.mp4"
    video.write_bytes(b"lead 0")
    item = Item("video.mp4", str(video), 6)

    def borrow(_) -> int:
        meeting.wait()
        try:
            desk.borrow(item)
        except Refusal:
            return 0
        return 1

    switched_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as asking:
            for _ in range(20):
                meeting = Barrier(8)
                assert sum(asking.map(borrow, range(8))) == 1
                desk.remove(*(file["key"] for file in desk.to_json()))
    finally:
        sys.setswitchinterval(switched_s)


def test_only_so_many_files_are_kept(visitor):
    for number in range(100):
        assert visitor.expect(f"{number}.mp4", 1)[0] == 201
    assert visitor.expect("more.mp4", 1)[0] == 409


def test_a_video_that_leads_elsewhere_by_now_is_neither_mended_nor_checked(tmp_path):
    """It keeps the verdict that it had."""
    kept, root, away = tmp_path / "kept", tmp_path / "videos", tmp_path / "away.mp4"
    kept.mkdir()
    root.mkdir()
    one, two = root / "one.mp4", root / "two.mp4"
    for video in (one, two, away):
        video.write_bytes(b"lead 160")
    with open_site(kept, root=root) as (door, _):
        visitor = Visitor(door.port).enter(door.token)
        listed = {
            each["name"]: each["key"] for each in json.loads(visitor.ask("GET", "/api/folder")[2])["videos"]
        }
        key = json.loads(visitor.ask("POST", f"/api/folder/{listed['one.mp4']}")[2])["key"]
        checked = visitor.wait_for(key, lambda file: file["state"] == "done")
        one.unlink()
        one.symlink_to(away)
        assert visitor.ask("POST", f"/api/files/{key}/mend")[0] == 202
        told = visitor.wait_for(key, lambda file: file["mending"] not in ("waiting", "working"))
        assert (told["state"], told["mending"], told["words"]) == ("done", "failed", "is not where it was")
        assert (told["verdict"], told["has_report"]) == (checked["verdict"], True)
        slow = visitor.send("slow.mp4", b"hang")
        visitor.wait_for(slow, lambda file: file["state"] == "checking")
        key = json.loads(visitor.ask("POST", f"/api/folder/{listed['two.mp4']}")[2])["key"]
        two.unlink()
        two.symlink_to(away)
        visitor.ask("DELETE", f"/api/files/{slow}")
        told = visitor.wait_for(key, lambda file: file["state"] not in ("waiting", "checking"))
        assert (told["state"], told["words"]) == ("refused", "is not where it was")


def test_the_folder_is_shown_and_nothing_beside_it(tmp_path):
    root, away, kept = tmp_path / "root", tmp_path / "away", tmp_path / "kept"
    for folder in (root / "season 1", away, kept):
        folder.mkdir(parents=True)
    (root / "season 1" / "<i>one.mp4").write_bytes(b"lead 80")
    (root / "two.mkv").write_bytes(b"lead 0")
    (root / "notes.txt").write_text("no video")
    (away / "secret.mp4").write_bytes(b"lead 0")
    (root / "link.mp4").symlink_to(away / "secret.mp4")
    (root / "folder").symlink_to(away)
    (root / "inner.mp4").symlink_to(root / "two.mkv")
    os.mkfifo(root / "pipe.mp4")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    with open_site(kept, root=root) as (door, _):
        visitor = Visitor(door.port).enter(door.token)
        told = json.loads(visitor.ask("GET", "/api/folder")[2])
        keys = {video["name"]: video["key"] for video in told["videos"]}
        assert sorted(keys) == ["inner.mp4", "season 1/<i>one.mp4", "two.mkv"]
        for key in ("", "..", "link.mp4", "two.mkv", "..%2faway%2fsecret.mp4", "0" * 16):
            assert visitor.ask("POST", f"/api/folder/{key}")[0] in (404, 405)
        status, _, body = visitor.ask("POST", f"/api/folder/{keys['season 1/<i>one.mp4']}")
        assert status == 201
        key = json.loads(body)["key"]
        visitor.wait_for(key, lambda file: file["state"] == "done")
        assert visitor.ask("POST", f"/api/folder/{keys['season 1/<i>one.mp4']}")[0] == 409
        visitor.ask("POST", f"/api/files/{key}/mend")
        told = visitor.wait_for(key, lambda file: file["mending"] == "done")
        assert told["copy_name"] == "<i>one.synced.mp4"
        assert (kept / key / "video.synced.mp4").read_bytes() == b"lead 80"
        (root / "two.mkv").unlink()
        (root / "two.mkv").symlink_to(away / "secret.mp4")
        assert visitor.ask("POST", f"/api/folder/{keys['two.mkv']}")[0] == 404, "leads elsewhere by now"
        visitor.ask("DELETE", f"/api/files/{key}")
    assert all(path.exists() for path in before if path.name != "two.mkv")
    assert (root / "season 1" / "<i>one.mp4").read_bytes() == b"lead 80"


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
