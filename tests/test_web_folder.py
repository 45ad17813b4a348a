"""`avsync web --root`: what of a folder is shown, and that nothing else is ever read."""

import json
import os

import pytest

pytest.importorskip("starlette", reason="needs the extra `web`")
pytest.importorskip("uvicorn", reason="needs the extra `web`")
pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

from web_site import Visitor, open_site


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
