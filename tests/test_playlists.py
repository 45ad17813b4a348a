"""HLS playlists: followed only where that is asked for, and never out of their folder."""

import json
import os
import shutil

import pytest
from talking import write_talking_head
from test_cli import assert_one_line, avsync

from avsync_cli.errors import MediaError
from avsync_cli.playlists import is_playlist, join_playlist

HEADER = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hls")
    write_talking_head(folder / "a.ts", seconds=4, audio_lead_ms=160)
    shutil.copy(folder / "a.ts", folder / "b.ts")
    (folder / "media.m3u8").write_text(HEADER + "#EXTINF:4,\na.ts\n#EXTINF:4,\n\nb.ts\n#EXT-X-ENDLIST\n")
    (folder / "main.m3u8").write_text(
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100\nnone.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=900\nmedia.m3u8\n"
    )
    return folder


@pytest.mark.parametrize("name", ["media.m3u8", "main.m3u8"])
def test_one_is_followed_where_that_is_asked_for(folder, handmade, name):
    refused = avsync("check", folder / name, "--model", handmade)
    assert refused.returncode == 4
    assert_one_line(refused, "a playlist: open its media")
    result = avsync("check", "--json", "--follow-playlists", folder / name, "--model", handmade)
    report = json.loads(result.stdout)
    assert (result.returncode, report["file"]) == (1, str(folder / name))
    assert report["looked_at_s"] == pytest.approx(8, abs=0.3)


def test_what_is_joined_are_the_files_in_their_order(folder, tmp_path):
    join_playlist(folder / "main.m3u8", tmp_path / "joined", limit_bytes=1 << 30)
    assert (tmp_path / "joined").read_bytes() == (folder / "a.ts").read_bytes() + (
        folder / "b.ts"
    ).read_bytes()
    assert is_playlist(folder / "main.m3u8")
    assert not is_playlist(folder / "a.ts")
    assert not is_playlist(folder)
    os.mkfifo(tmp_path / "fifo.m3u8")
    assert not is_playlist(tmp_path / "fifo.m3u8")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "../secret.ts",
            "/etc/passwd",
            "https://a.test/b.ts",
            "file:///etc/passwd",
            "link.ts",
            "none.ts",
            ".",
        ),
        *('#EXT-X-KEY:METHOD=AES-128,URI="key"', "#EXT-X-BYTERANGE:10@0", '#EXT-X-MAP:URI="../secret.ts"'),
        *("nul\0.ts", "sub/../../secret.ts", "fifo.ts"),
    ],
)
def test_nothing_outside_its_folder_is_read(folder, tmp_path, line):
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "secret.ts").write_bytes(b"secret")
    (here / "link.ts").symlink_to(tmp_path / "secret.ts")
    os.mkfifo(here / "fifo.ts")
    shutil.copy(folder / "a.ts", here)
    (here / "list.m3u8").write_text(f"{HEADER}a.ts\n{line}\n")
    with pytest.raises(MediaError, match=r"names .*, which is no file in its folder|a playlist of parts"):
        join_playlist(here / "list.m3u8", tmp_path / "joined", limit_bytes=1 << 30)
    assert b"secret" not in (tmp_path / "joined").read_bytes()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEADER, "without media"),
        ("#EXTM3U\n" + "#\n" * (3 << 20), "more than"),
        (HEADER + '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="b.m3u8"\n', "open its media, with --audio"),
        (HEADER + "a.ts\n", "more than is copied"),
    ],
)
def test_what_cannot_be_joined_is_told(folder, tmp_path, text, told):
    shutil.copy(folder / "a.ts", tmp_path)
    (tmp_path / "list.m3u8").write_text(text)
    with pytest.raises(MediaError, match=told):
        join_playlist(tmp_path / "list.m3u8", tmp_path / "joined", limit_bytes=1000)


def test_a_scan_follows_them_where_that_is_asked_for(folder, handmade, tmp_path):
    """Two playlists of one talker, and two that lead elsewhere, all as their check says."""
    films = shutil.copytree(folder, tmp_path / "films")
    (films / "out.m3u8").write_text(HEADER + "#EXTINF:4,\n../films.ts\n")
    results = tmp_path / "r.jsonl"
    command = ("scan", films, "-o", results, "--exclude", "*.ts", "--model", handmade, "-q", "--jobs", "1")
    assert avsync(*command, "--follow-playlists", "--fix").returncode == 4
    answers = {
        os.path.basename(each["path"]): each for each in map(json.loads, results.read_text().splitlines())
    }
    assert sorted(answers) == ["main.m3u8", "media.m3u8", "out.m3u8"]
    for name in ("main.m3u8", "media.m3u8"):
        assert answers[name]["status"] == "out_of_sync"
        assert answers[name]["looked_at_s"] == pytest.approx(8, abs=0.3)
    assert "is no file in its folder" in answers["out.m3u8"]["message"]
    assert str(tmp_path / "films/out.m3u8") in answers["out.m3u8"]["message"]
    assert not [path for path in films.iterdir() if ".synced" in path.name]


def test_a_scan_does_not_follow_them_unasked(folder, handmade, tmp_path):
    results = tmp_path / "r.jsonl"
    command = ("scan", folder / "media.m3u8", "-o", results, "--model", handmade, "-q", "--jobs", "1")
    assert avsync(*command).returncode == 4
    assert "a playlist: open its media" in json.loads(results.read_text())["message"]
