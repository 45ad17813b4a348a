"""The results file: every line whole, nothing lost, nothing twice, whatever ends the scan and wherever."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_stubs import LIMITS, PROGRAM, load_stub, wait_until, write_files

from avsync_cli.batch.journal import open_journal, read_answers
from avsync_cli.batch.progress import ScanProgress
from avsync_cli.batch.records import FileError, Item, encode_record, make_record
from avsync_cli.batch.run import scan_files
from avsync_cli.batch.summary import summarise
from avsync_cli.batch.tables import COLUMNS, check_outputs, write_csv, write_faces, write_parquet
from avsync_cli.errors import ConfigError, ModelError, ScanError
from avsync_cli.escapes import printable
from avsync_cli.report import ModelId, Report
from avsync_cli.spec import REPORT_SCHEMA_VERSION, Tolerance

MODEL = ModelId("a student", "5" * 64)


def make_line(path: str, *, lead_ms: float | None = 0.0, size: int = 1, model: ModelId = MODEL) -> dict:
    if lead_ms is None:
        answer = FileError("timeout", "took too long")
    else:
        status = "in_sync" if LIMITS.contains(lead_ms) else "out_of_sync"
        answer = Report(
            path, status, "", (-125, 45), audio_lead_ms=lead_ms, duration_s=3600.0, confidence=0.5
        ).to_json()
    return make_record(Item(path, path, size, 12.5), answer, limits=LIMITS, model=model)


def paths_in(results: Path) -> list[str]:
    return [json.loads(line)["path"] for line in results.read_bytes().splitlines()]


@pytest.mark.parametrize("times", [6, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.repeats])])
def test_killed_at_random_moments_nothing_is_lost_and_nothing_twice(tmp_path, times):
    rng = random.Random(6)
    marks = [tmp_path / f"{number}.mark" for number in range(times)]
    parts = [["sleep 0.005 lead 0"] * (400 // times) + [f"wait-for {mark} lead 0"] * 2 for mark in marks]
    files = write_files(tmp_path / "in", *chain(*parts))
    results = tmp_path / "out.jsonl"
    command = [sys.executable, PROGRAM, tmp_path / "in", results, "--resume"]
    kept = b""
    for number in range(times):
        for mark in marks[:number]:  # no run comes further than its part, however late it is killed
            mark.touch()
        process = subprocess.Popen(command)
        wait_until(lambda: results.exists() and results.stat().st_size > len(kept))  # noqa: B023
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = results.read_bytes()
        assert now.startswith(kept), "what was answered before is still there"
        kept = now[: now.rfind(b"\n") + 1]
    assert kept.count(b"\n") < len(files), "all came in the middle"
    marks[-1].touch()
    assert subprocess.run(command, check=True).returncode == 0
    assert results.read_bytes().startswith(kept)
    assert sorted(paths_in(results)) == sorted(map(str, files))


def test_a_line_counts_when_it_is_on_the_disk(tmp_path, monkeypatch):
    """Whole lines are flushed, each before `append` returns, and the folder when the file is made."""
    flushed: list[tuple[int, int]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        flushed.append((status.st_ino, status.st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    results = tmp_path / "out.jsonl"
    with open_journal(results, limits=LIMITS) as journal:
        assert flushed[-1][0] == tmp_path.stat().st_ino
        for name in ("/a", "/b"):
            journal.append(make_line(name))
            assert flushed[-1] == (results.stat().st_ino, results.stat().st_size)
    assert len(flushed) == 3


def test_a_line_torn_anywhere_is_cut_off_and_its_file_done_again(tmp_path):
    results = tmp_path / "out.jsonl"
    first, second = encode_record(make_line("/a")), encode_record(make_line("/b"))
    for length in (*range(0, len(second), 9), len(second) - 1):
        results.write_bytes(first + second[:length])
        with open_journal(results, limits=LIMITS, resume=True) as journal:
            assert journal.has_answer(Item("/a", "/a", 1, 12.5), MODEL.sha256)
            assert not journal.has_answer(Item("/b", "/b", 1, 12.5), MODEL.sha256)
            journal.append(make_line("/b"))
        assert results.read_bytes() == first + second
    for length in (*range(0, len(first), 9), len(first) - 1):
        results.write_bytes(first[:length])
        with open_journal(results, limits=LIMITS, resume=True) as journal:
            assert len(journal) == 0
        assert results.read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a video, a letter, anything", "not a results file"),
        (b"a letter\nof two lines", "line 1: is not a result"),
        (b'{"schema_version": %d}\n' % REPORT_SCHEMA_VERSION, "line 1: is not a result"),
        (encode_record(make_line("/a")) + b"[]\n", "line 2: is not a result"),
        (encode_record(make_line("/a") | {"schema_version": 1}), "has version 1"),
        (encode_record(make_line("/a") | {"limits_ms": [-60.0, 40.0]}), "--tolerance -60,40"),
    ],
)
def test_what_cannot_be_continued_is_left_as_it_is(tmp_path, content, told):
    results = tmp_path / "out.jsonl"
    results.write_bytes(content)
    for resume in (True, False):
        with (
            pytest.raises(ConfigError, match=told if resume else "holds results already"),
            open_journal(results, limits=LIMITS, resume=resume),
        ):
            pass
        assert results.read_bytes() == content


def test_two_scans_never_write_to_one_file(tmp_path):
    results = tmp_path / "out.jsonl"
    with (
        open_journal(results, limits=LIMITS),
        pytest.raises(ConfigError, match="another scan"),
        open_journal(results, limits=LIMITS, resume=True),
    ):
        pass
    for _ in range(2):  # free again
        with open_journal(results, limits=LIMITS):
            pass


def test_a_scan_keeps_other_processes_out_through_a_link_too(tmp_path):
    """And lets them in once it is over, or was killed."""
    results, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    results.touch()
    link.symlink_to(results)
    code = (
        "import sys, time; from avsync_cli.batch.journal import open_journal; "
        "from avsync_cli.spec import parse_tolerance\n"
        "with open_journal(sys.argv[1], limits=parse_tolerance('itu-detect')):\n"
        "    print('open', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, link], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match="another scan"), open_journal(results, limits=LIMITS):
            pass
        process.kill()
    with open_journal(results, limits=LIMITS):
        pass


@pytest.mark.parametrize("place", ["missing/out.jsonl", "."])
def test_a_place_that_cannot_hold_results_is_refused(tmp_path, place):
    with pytest.raises(ConfigError), open_journal(tmp_path / place, limits=LIMITS):
        pass


def test_a_full_disk_ends_the_scan_and_keeps_the_lines_that_fit(tmp_path):
    """The limit of the process stands for the disk's: a write that stops in the middle of a line."""
    resource = pytest.importorskip("resource", reason="Windows has no such limits")
    line = encode_record(make_line("/a"))
    results = tmp_path / "out.jsonl"
    with open_journal(results, limits=LIMITS) as journal:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) * 5 // 2, hard))
        try:
            journal.append(make_line("/a"))
            journal.append(make_line("/b"))
            with pytest.raises(ScanError, match="--resume"):
                journal.append(make_line("/c"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert paths_in(results) == ["/a", "/b"]


@given(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name))
def test_a_name_of_any_bytes_comes_back(name):
    path = "/" + os.fsdecode(name)
    line = encode_record(make_line(path))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert os.fsencode(json.loads(line)["path"]) == b"/" + name


def test_only_the_same_file_and_model_are_skipped(tmp_path):
    with open_journal(tmp_path / "out.jsonl", limits=LIMITS) as journal:
        journal.append(make_line("/a"))
        journal.append(make_line("/bad", lead_ms=None))
        assert journal.has_answer(Item("as given", "/a", 1, 12.5), MODEL.sha256)
        for other in (Item("/a", "/a", 2, 12.5), Item("/a", "/a", 1, 12.6), Item("/a", "/a/a", 1, 12.5)):
            assert not journal.has_answer(other, MODEL.sha256)
        assert not journal.has_answer(Item("/a", "/a", 1, 12.5), "6" * 64)
        bad = Item("/bad", "/bad", 1, 12.5)
        assert journal.has_answer(bad, MODEL.sha256)
        assert not journal.has_answer(bad, MODEL.sha256, accept_errors=False)
        journal.append(make_line("/a", size=2))  # written to, checked again ...
        assert not journal.has_answer(Item("/a", "/a", 1, 12.5), MODEL.sha256)  # ... and put back


def test_a_changed_file_is_checked_again_and_its_last_answer_counts(tmp_path):
    one, two = write_files(tmp_path / "in", "lead 80", "divide")
    results = tmp_path / "out.jsonl"
    options = {"load": load_stub, "jobs": 1}
    first = scan_files([str(tmp_path / "in")], results, **options)
    again = scan_files([str(tmp_path / "in")], results, resume=True, **options)
    assert (first.answered, again.answered, again.skipped) == (2, 0, 2)
    one.write_text("lead 0")
    two.write_text("lead -1")
    os.utime(two, (1, 1))
    assert scan_files([str(one)], results, resume=True, **options).answered == 1
    assert scan_files([str(two)], results, retry_errors=True, **options).answered == 1
    assert paths_in(results) == [str(one), str(two), str(one), str(two)]
    assert {r["path"]: r["audio_lead_ms"] for r in read_answers(results)} == {str(one): 0, str(two): -1}


def test_an_answer_of_another_model_is_never_written():
    answer = Report("f", "in_sync", "", (-125, 45), model=ModelId("other", "6" * 64)).to_json()
    with pytest.raises(ModelError, match="another model"):
        make_record(Item("f", "/f", 1, 1.0), answer, limits=LIMITS, model=MODEL)


def test_the_summary_counts_what_is_there():
    leads_ms = [0.0, 10.0, -80.0, 300.0, -500.0, *[160.0] * 12]
    lines = [make_line(f"/{number}", lead_ms=lead_ms) for number, lead_ms in enumerate(leads_ms)]
    summary = summarise([*lines, make_line("/late", lead_ms=None)])
    assert summary.files == 18
    assert summary.statuses == {"in_sync": 3, "out_of_sync": 14, "undetermined": 0, "error": 1}
    assert summary.errors == {"timeout": 1}
    assert summary.histogram == [(-480, 1), (-80, 1), (0, 2), (160, 12), (320, 1)]
    assert [offender.audio_lead_ms for offender in summary.worst[:3]] == [-500, 300, 160]
    assert len(summary.worst) == 10
    assert summary.percentiles_ms["50%"] == 160
    assert summary.video_hours == 17
    assert summary.exit_code == 4
    assert summarise(lines).exit_code == 1
    assert summarise([]).exit_code == 0
    bug = make_line("/bug") | {"status": "error", "reason": "failed"}
    assert summarise([*lines, bug]).exit_code == 70


def test_tables_say_what_the_lines_say(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    names = ["/plain", "/two\nlines", '/"quoted", too', "/=1+1", "/ü", os.fsdecode(b"/\xff")]
    leads_ms = [0, 1.5, None, 80, 2, 3]
    lines = [make_line(name, lead_ms=lead_ms) for name, lead_ms in zip(names, leads_ms, strict=True)]
    write_csv(lines, tmp_path / "out.csv")
    write_parquet(lines, tmp_path / "out.parquet")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(rows[0]) == list(table[0]) == list(COLUMNS)
    shown = [*names[:-1], "/\\udcff"]
    assert [row["path"] for row in table] == shown
    kept = [name if "\n" in name else printable(name) for name in names]  # a cell keeps its ends of lines
    assert [row["path"] for row in rows] == kept
    assert [row["file"] for row in rows] == [row["path"] for row in rows]
    assert [row["audio_lead_ms"] for row in table] == leads_ms
    assert [row["audio_lead_ms"] for row in rows] == ["0", "1.5", "", "80", "2", "3"]
    assert {row["size"] for row in table} == {1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.parquet"]


def test_no_output_takes_the_place_of_another_or_of_what_is_no_file(tmp_path):
    results, table, link, pipe = (tmp_path / name for name in ("r.jsonl", "r.csv", "link", "pipe"))
    link.symlink_to("r.jsonl")
    os.mkfifo(pipe)
    for tables in ([results], [link], [table, table], [table, tmp_path / "." / "r.csv"], [pipe], [tmp_path]):
        with pytest.raises(ConfigError, match=r"two outputs|cannot be written"):
            check_outputs(results, tables, parquet=False)
    check_outputs(results, [table, tmp_path / "s.json"], parquet=False)


def test_a_link_is_written_through_and_what_fails_leaves_nothing(tmp_path):
    (tmp_path / "link.csv").symlink_to("r.csv")
    write_csv([make_line("/a")], tmp_path / "link.csv")
    before = (tmp_path / "r.csv").read_bytes()
    assert (tmp_path / "link.csv").is_symlink()
    with pytest.raises(KeyError):
        write_csv([make_line("/b"), {}], tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "r.csv"]


def test_passages_and_whole_videos_do_not_mix_in_one_file(tmp_path):
    results = tmp_path / "out.jsonl"
    with open_journal(results, limits=LIMITS, full=True) as journal:
        journal.append(make_line("/a") | {"full": True})
    with open_journal(results, limits=LIMITS, full=True, resume=True) as journal:
        assert len(journal) == 1
    with (
        pytest.raises(ConfigError, match="was made with --full"),
        open_journal(results, limits=LIMITS, resume=True),
    ):
        pass


def test_a_video_that_has_no_answer_still_tells_what_was_asked(tmp_path):
    failed = FileError("timeout", "too slow")
    record = make_record(Item("f", "/f", 1, 1.0), failed, limits=LIMITS, model=MODEL, full=True)
    with open_journal(tmp_path / "out.jsonl", limits=LIMITS, full=True) as journal:
        journal.append(record)
    with open_journal(tmp_path / "out.jsonl", limits=LIMITS, full=True, resume=True) as journal:
        assert len(journal) == 1


def test_limits_that_only_look_different_are_the_same(tmp_path):
    with open_journal(tmp_path / "out.jsonl", limits=LIMITS) as journal:
        journal.append(make_line("/a"))
    with open_journal(tmp_path / "out.jsonl", limits=Tolerance(-125, 45), resume=True) as journal:
        assert len(journal) == 1


def test_every_face_is_a_row(tmp_path):
    track = {
        "start_s": 1.0,
        "end_s": 2.0,
        "box": [10.0, 20.0, 40.0, 70.0],
        "audio_lead_ms": None,
        "confidence": 0.5,
        "speaking": None,
        "mouth_motion": 0.1,
        "yaw_degrees": -12.5,
        "curve": [0.1, 0.5, None, 0.2],
    }
    lines = [
        make_line("/a") | {"tracks": [track, track | {"speaking": True}]},
        make_line("/b") | {"tracks": []},
    ]
    write_faces(lines, tmp_path / "faces.csv")
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["face"], row["speaking"]) for row in rows] == [
        ("/a", "1", ""),
        ("/a", "2", "True"),
    ]
    assert [rows[0][name] for name in ("x0", "width", "height", "curve_peak")] == [
        "10.0",
        "30.0",
        "50.0",
        "0.5",
    ]
    assert float(rows[0]["curve_peak_over_median"]) == pytest.approx(0.3)
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    write_faces(lines, tmp_path / "faces.parquet")
    assert [row["speaking"] for row in pq.read_table(tmp_path / "faces.parquet").to_pylist()] == [None, True]


def test_a_resumed_scan_shares_what_was_answered_before(capsys):
    with ScanProgress(4, shown=True) as progress:
        for status in ("in_sync", "in_sync", "error"):
            progress.skip(status)
        progress.count("out_of_sync")
    assert "4 of 4 files, 3 answered before, 50% in sync, 25% out of sync" in capsys.readouterr().err
