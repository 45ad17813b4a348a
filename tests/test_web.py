"""`avsync web`: who is let in, what becomes of what is sent, and that nothing of it is left."""

import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest
from scan_stubs import wait_until

pytest.importorskip("starlette", reason="needs the extra `web`")
pytest.importorskip("uvicorn", reason="needs the extra `web`")
pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

from web_site import Visitor, open_site

from avsync_cli.batch.records import Item
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
