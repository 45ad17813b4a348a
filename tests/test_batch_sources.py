"""Which files a scan takes: every one once, whatever leads to it, and none that was not meant."""

import http.server
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import pytest

from avsync_cli.batch.records import FileError, Item
from avsync_cli.batch.sources import Filter, examine, find_files
from avsync_cli.errors import ConfigError


def names(found, folder: Path) -> list[str]:
    return [os.path.relpath(item.path, folder) for item in found.items.values()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in (
        "b.mp4",
        "a.MKV",
        "notes.txt",
        "sub/c.webm",
        "sub/deep/d.mov",
        "raw/e.mp4",
        "out.jsonl",
        "._b.mp4",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_a_folder_gives_its_videos_in_order(tree):
    found = find_files([str(tree)], Filter())
    assert names(found, tree) == ["a.MKV", "b.mp4", "raw/e.mp4", "sub/c.webm", "sub/deep/d.mov"]
    assert found.unread == []


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        (("[!.]*.mp4",), (), ["b.mp4", "raw/e.mp4"]),
        (("*.MP4", "*.mkv"), ("._*",), ["a.MKV", "b.mp4", "raw/e.mp4"]),
        (("*",), ("raw", "sub"), ["._b.mp4", "a.MKV", "b.mp4", "notes.txt", "out.jsonl"]),
        (("sub/*",), (), ["sub/c.webm", "sub/deep/d.mov"]),
        ((), ("raw", "deep"), ["a.MKV", "b.mp4", "sub/c.webm"]),
        ((), ("sub/*.webm", "b.*"), ["a.MKV", "raw/e.mp4", "sub/deep/d.mov"]),
    ],
)
def test_include_and_exclude(tree, include, exclude, taken):
    assert names(find_files([str(tree)], Filter(include, exclude)), tree) == taken


def test_the_scans_own_files_are_never_taken(tree):
    own = frozenset([str(tree / "out.jsonl"), str(tree / "b.mp4")])
    found = find_files([str(tree), str(tree / "b.mp4")], Filter(("*",), outputs=own))
    assert not {"out.jsonl", "b.mp4"} & set(names(found, tree))


def test_links_lead_to_each_file_once_and_never_round_and_round(tree):
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "again.mp4").symlink_to(tree / "b.mp4")
    (tree / "self").symlink_to("self")
    (tree / "self.mp4").symlink_to("self.mp4")
    (tree / "gone.mp4").symlink_to("nowhere.mp4")
    found = find_files([str(tree)], Filter())
    kept = ["a.MKV", "b.mp4", "nowhere.mp4", "raw/e.mp4", "self.mp4", "sub/c.webm", "sub/deep/d.mov"]
    assert sorted(names(found, tree)) == kept


def test_a_pattern_is_not_led_round_by_links(tree):
    for name in ("up", "back"):
        (tree / "sub" / name).symlink_to(tree)
    program = "import sys; from avsync_cli.batch.sources import *; "
    program += "print(*find_files([sys.argv[1]], Filter()).items, sep='\\n')"
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-c", program, f"{tree}/**/*.m*"]
    told = subprocess.check_output(command, text=True, timeout=300, env=os.environ | {"PYTHONPATH": paths})
    assert [os.path.relpath(line, tree) for line in told.splitlines()] == [
        "b.mp4",
        "raw/e.mp4",
        "sub/deep/d.mov",
    ]


def test_exclude_holds_for_what_a_pattern_fits(tree):
    found = find_files([f"{tree}/**/*.mp4", f"{tree}/*"], Filter(exclude=("raw", "*.txt", "*.jsonl")))
    assert sorted(names(found, tree)) == ["a.MKV", "b.mp4", "sub/c.webm", "sub/deep/d.mov"]


def test_what_is_named_twice_is_taken_once(tree, monkeypatch):
    monkeypatch.chdir(tree)
    sources = ["b.mp4", str(tree), "./sub/../b.mp4", "sub", "**/*.mp4", f"file://{tree}/b.mp4"]
    found = find_files(sources, Filter())
    assert sorted(names(found, tree)) == ["a.MKV", "b.mp4", "raw/e.mp4", "sub/c.webm", "sub/deep/d.mov"]
    assert next(iter(found.items.values())) == Item("b.mp4", str(tree / "b.mp4"))


def test_what_is_named_is_taken_whatever_its_name(tree):
    (tree / "odd[1].data").write_bytes(b"x")
    found = find_files(
        [str(tree / "odd[1].data"), str(tree / "*.jsonl"), str(tree / "missing.mp4")], Filter()
    )
    assert names(found, tree) == ["odd[1].data", "out.jsonl", "missing.mp4"]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_lists(tree, monkeypatch, separator):
    lines = separator.join([os.fsencode(tree / "b.mp4"), b"", os.fsencode(tree / "sub"), b"/no/[x]*.mp4"])
    (tree / "list.txt").write_bytes(lines)
    (tree / "nested.txt").write_bytes(os.fsencode(tree / "list.txt"))
    taken = [str(tree / "b.mp4"), str(tree / "sub/c.webm"), str(tree / "sub/deep/d.mov"), "/no/[x]*.mp4"]
    assert list(find_files([str(tree / "list.txt")], Filter()).items) == taken
    assert list(find_files([str(tree / "nested.txt")], Filter()).items) == [str(tree / "list.txt")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert list(find_files(["-"], Filter()).items) == taken


def test_names_of_any_bytes(tmp_path):
    wanted = [b"two\nlines.mp4", b"\xff\xfe.mp4", "ü.mp4".encode()]
    for name in wanted:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    found = find_files([str(tmp_path)], Filter())
    assert sorted(os.fsencode(Path(path).name) for path in found.items) == sorted(wanted)
    (tmp_path / "list.txt").write_bytes(b"\0".join(os.fsencode(path) for path in found.items))
    assert find_files([str(tmp_path / "list.txt")], Filter()).items.keys() == found.items.keys()


@pytest.mark.parametrize("source", ["empty", "empty/*.mp4", "empty/list.txt"])
def test_nothing_to_scan_is_said(tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "list.txt").touch()
    with pytest.raises(ConfigError, match=r"no videos|fits no file"):
        find_files([str(tmp_path / source)], Filter())


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_taken(tree):
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        Path(place).chmod(0o755)
        folder = shutil.copytree(tree, Path(place) / "tree")
        (folder / "sub").chmod(0)
        if user == 0:
            os.seteuid(65534)  # root may read every folder
        try:
            found = find_files([str(folder)], Filter())
        finally:
            os.seteuid(user)
            (folder / "sub").chmod(0o755)
        assert names(found, folder) == ["a.MKV", "b.mp4", "raw/e.mp4"]
    assert len(found.unread) == 1
    assert "sub: Permission denied" in found.unread[0]


def test_what_is_no_file_is_not_opened(tree):
    os.mkfifo(tree / "pipe.mp4")
    (tree / "folder.mp4").mkdir()
    for name, told in (("pipe.mp4", "a pipe"), ("folder.mp4", "a folder"), ("none.mp4", "No such file")):
        with pytest.raises(FileError, match=told) as failure:
            examine(Item(name, str(tree / name)))
        assert failure.value.reason == "unreadable"
    status = (tree / "b.mp4").stat()
    item = examine(Item("b.mp4", str(tree / "b.mp4")))
    assert (item.size, item.mtime) == (1, status.st_mtime)


def test_addresses_of_a_store_in_memory():
    fsspec = pytest.importorskip("fsspec", reason="needs the extra `remote`")
    store = fsspec.filesystem("memory")
    for name in ("/videos/a.mp4", "/videos/b.txt", "/videos/sub/c.mkv", "/videos/raw/d.mp4"):
        store.pipe(name, b"12345")
    found = find_files(["memory://videos", "memory://videos/sub/c.mkv"], Filter(exclude=("raw",)))
    assert list(found.items) == ["memory://videos/a.mp4", "memory://videos/sub/c.mkv"]
    assert all(item.size == 5 and item.mtime for item in found.items.values())
    assert list(find_files(["memory://videos/*.mp4"], Filter()).items) == ["memory://videos/a.mp4"]
    fitting = find_files(["memory://videos/*"], Filter(exclude=("raw", "*.txt")))
    assert list(fitting.items) == ["memory://videos/a.mp4", "memory://videos/sub/c.mkv"]
    for nothing in ("memory://nothing/here.mp4", "memory://videos/*.nothing"):
        missing = find_files([nothing], Filter())
        assert (len(missing.items), len(missing.unread)) == (0, 1)


@pytest.fixture
def web(tree: Path):
    """A plain web server that knows nothing of ranges."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(tree))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_addresses_of_the_web_are_copied_whole_up_to_a_limit(tree, web, tmp_path):
    pytest.importorskip("aiohttp", reason="needs the extra `remote`")
    from avsync_cli.batch.remote import copy_address

    content = os.urandom(3_000_000)
    (tree / "large.mp4").write_bytes(content)
    item = examine(next(iter(find_files([f"{web}/large.mp4"], Filter()).items.values())))
    assert item.size == len(content)
    assert copy_address(item, tmp_path, limit_bytes=1 << 22).read_bytes() == content
    with pytest.raises(FileError, match="larger than the 1 MB") as failure:
        copy_address(item, tmp_path, limit_bytes=1 << 20)
    assert failure.value.reason == "too_large"
    with pytest.raises(FileError, match="larger than the 1 MB"):
        copy_address(Item(item.file, item.path), tmp_path, limit_bytes=1 << 20)
    (tree / "large.mp4").write_bytes(content[:-1])
    with pytest.raises(FileError) as failure:
        copy_address(item, tmp_path, limit_bytes=1 << 22)
    assert failure.value.reason == "changed"
    with pytest.raises(FileError) as failure:
        examine(Item("", f"{web}/missing.mp4"))
    assert failure.value.reason == "unreachable"
    listed = find_files([f"{web}/"], Filter())
    assert f"{web}/b.mp4" in listed.items


def test_two_colons_in_a_name_are_no_address_inside_an_address(tmp_path):
    pytest.importorskip("fsspec", reason="needs the extra `remote`")
    from avsync_cli.batch.remote import copy_address

    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a::b.mp4").write_bytes(b"123")
    item = next(iter(find_files([f"local://{tmp_path}/odd"], Filter()).items.values()))
    assert item.path == f"local://{tmp_path}/odd/a::b.mp4"
    assert copy_address(item, tmp_path, limit_bytes=10).read_bytes() == b"123"
    with pytest.raises(FileError) as failure:
        copy_address(Item("x", "memory://odd/a::zip://b.mp4"), tmp_path, limit_bytes=10)
    assert failure.value.reason == "unreachable"


@pytest.mark.parametrize("address", ["nonsense://a.mp4", "zip://a.mp4::memory://b.zip"])
def test_addresses_that_nobody_knows(address):
    with pytest.raises(ConfigError, match=address.split(":", maxsplit=1)[0]):
        find_files([address], Filter())
