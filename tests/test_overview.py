"""The page over all files of a scan: every answer is in it, and leads to a page of its own."""

import json
import re
from pathlib import Path

import pytest
from browser import make_records
from test_cli import assert_one_line, avsync

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

from avsync_cli.batch.options import ScanOptions
from avsync_cli.batch.overview import page_name, report_of, write_overview
from avsync_cli.errors import ConfigError
from avsync_cli.report import NOT_WRITTEN


def rows_of(folder: Path) -> list[list]:
    text = (folder / "index.html").read_text()
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data)


def test_a_scan_has_a_page_over_all_files_and_one_of_each(tmp_path, heads, handmade):
    videos, pages, results = tmp_path / "videos", tmp_path / "pages", tmp_path / "r.jsonl"
    videos.mkdir()
    hostile = videos / "<img src=x onerror=alert(1)>.mp4"
    hostile.write_bytes(heads[160].read_bytes())
    (videos / "bad.mp4").write_bytes(b"no video")
    (videos / "later.mp4").write_bytes(heads[0].read_bytes())
    scan = ("scan", "-o", results, "--model", handmade, "--exit-zero", "--jobs", 1, "-q")
    # First without pages, as by somebody who thinks of them too late.
    assert avsync(*scan, videos / "bad.mp4", videos / "later.mp4").returncode == 0
    result = avsync(*scan, videos, "--resume", "--report", pages)
    assert (result.returncode, result.stderr) == (0, "")
    rows = rows_of(pages)
    assert [(Path(row[0]).name, row[1]) for row in rows] == [
        (hostile.name, "out_of_sync"),
        ("bad.mp4", "error"),
        ("later.mp4", "in_sync"),
    ]
    assert rows[0][2] == pytest.approx(160, abs=25)
    assert {path.name for path in (pages / "files").iterdir()} == {row[-1] for row in rows}
    of_hostile, of_bad, of_later = ((pages / "files" / row[-1]).read_text() for row in rows)
    assert of_hostile.count("<svg") == 4
    assert "data:image/jpeg" in of_hostile
    assert "avsync fix" in of_hostile
    assert "<img src=x" not in of_hostile + (pages / "index.html").read_text()
    assert "Could not be checked" in of_bad
    assert "Voices are heard" in of_later, "an answer of the earlier run"
    assert ("<svg" in of_later, "There are no pictures here" in of_later) == (False, True)
    assert all('href="../index.html"' in text for text in (of_hostile, of_bad, of_later))
    # What is checked again gets a new page, and never keeps that of what it was.
    hostile.write_bytes(b"no video any more")
    assert avsync(*scan, videos, "--resume", "--report", pages).returncode == 0
    again = {Path(row[0]).name: row for row in rows_of(pages)}
    assert again[hostile.name][1] == "error"
    assert "<svg" not in (pages / "files" / again[hostile.name][-1]).read_text()


def test_what_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    result = avsync("scan", tmp_path, "-o", tmp_path / "r.jsonl", "--report", tmp_path / "file" / "pages")
    assert result.returncode == 2
    assert_one_line(result, "no folder for pages")
    with pytest.raises(ConfigError, match="--scheduler"):
        ScanOptions(pages=tmp_path, scheduler="tcp://a:1")


def test_names_of_pages_are_plain_and_differ():
    names = [
        page_name(path)
        for path in ("/a/b.mp4", "/c/b.mp4", "/a/\udcff<\n>.mp4", "/a/.mp4", "/a/" + "é" * 900)
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,90}\.html", name) for name in names)
    assert names[0].startswith("b-")


def test_a_line_of_results_becomes_its_report_again():
    for record in make_records(30):
        report = report_of(record)
        values = report.to_json()
        assert {name: record[name] for name in values} == values
        assert not report.agreed, "nothing tells, so no command is offered"
        assert NOT_WRITTEN


def test_many_files_and_nothing_of_their_names_is_markup(tmp_path):
    (tmp_path / "files").mkdir()
    write_overview(make_records(300), tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert len(rows_of(tmp_path)) == 300
    assert text.count("<script") == 2
    assert "alert(1)</script>" not in text
    statuses = [row[1] for row in rows_of(tmp_path)]
    assert statuses == sorted(statuses, key=("out_of_sync", "error", "undetermined", "in_sync").index)
    worst = [abs(row[2]) for row in rows_of(tmp_path) if row[1] == "out_of_sync"]
    assert worst == sorted(worst, reverse=True)
    assert len(list((tmp_path / "files").iterdir())) == 300
