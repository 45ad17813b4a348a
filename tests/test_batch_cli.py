"""`avsync scan` as a user runs it: the answers of `check`, exit codes, interrupts, a line for each error."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scan_stubs import PROGRAM, wait_until, write_files
from test_cli import FIELDS, assert_one_line, avsync


def paths_in(results: Path) -> list[str]:
    return [json.loads(line)["path"] for line in results.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, heads) -> Path:
    """Videos in sync and out of it, one by more than the usual range, one broken, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for lead_ms, path in heads.items():
        shutil.copy(path, folder / f"lead{lead_ms}.mp4")
    (folder / "broken.mp4").write_bytes(heads[0].read_bytes()[:1000])
    (folder / "notes.txt").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def scanned(tmp_path_factory, folder, handmade):
    """One scan of the folder: what it printed, and the folder with what it wrote."""
    out = tmp_path_factory.mktemp("out")
    tables = ["--csv", out / "r.csv", "--parquet", out / "r.parquet", "--summary", out / "s.json"]
    return avsync("scan", folder, "-o", out / "r.jsonl", "--model", handmade, "--jobs", 2, *tables), out


def records_of(path: Path) -> dict[str, dict]:
    return {Path(r["path"]).name: r for r in map(json.loads, path.read_bytes().splitlines())}


def test_every_video_has_the_answer_of_check(scanned, folder, handmade):
    records = records_of(scanned[1] / "r.jsonl")
    result = avsync("check", *sorted(folder.glob("*.mp4")), "--model", handmade, "--json")
    reports = {Path(r["file"]).name: r for r in map(json.loads, result.stdout.splitlines())}
    assert records.keys() == reports.keys()
    for name, record in records.items():
        assert list(record) == [*FIELDS, "path", "size", "mtime"]
        status = (folder / name).stat()
        assert (record["path"], record["size"], record["mtime"]) == (
            str((folder / name).resolve()),
            status.st_size,
            status.st_mtime,
        )
        assert record["model"]["name"] == "lips-and-loudness"
        for field in set(FIELDS) - {"timings_s", "model"}:
            assert record[field] == reports[name][field], field


def test_the_table_counts_and_the_gravest_answer_is_the_exit_code(scanned):
    result, out = scanned
    assert result.returncode == 4
    text = result.stdout
    for words in ("5", "20.0%  in sync", "60.0%  out of sync", "furthest out of sync", "unreadable", "█"):
        assert words in text
    assert "5 of 5 files" in result.stderr
    assert json.loads((out / "s.json").read_text())["statuses"]["out_of_sync"] == 3
    with (out / "r.csv").open(newline="") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)].count("broken.mp4") == 1
    assert (out / "r.parquet").read_bytes().startswith(b"PAR1")


def test_resume_does_nothing_again_and_ends_with_the_same_code(scanned, folder, handmade):
    results = scanned[1] / "r.jsonl"
    before = results.read_bytes()
    arguments = ("scan", folder, "-o", results, "--model", handmade)
    again = avsync(*arguments, "--resume")
    assert (again.returncode, results.read_bytes()) == (4, before)
    assert "5 answered before" in again.stderr
    assert avsync(*arguments, "--resume", "--exit-zero", "-q").returncode == 0
    quiet = avsync(*arguments, "--resume", "-q")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert_one_line(avsync(*arguments), "--resume")
    assert results.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing-*.mp4"], "fits no file"),
        (["."], "no videos"),
        ([".", "--include", "*", "--jobs", "0"], "--jobs 0"),
        ([".", "--include", "*", "--jobs", "many"], "--jobs many"),
        ([".", "--include", "*", "--timeout", "0"], "above 0"),
        ([".", "--include", "*", "--timeout", "inf"], "at most 1e+08 s"),
        ([".", "--include", "*", "--cpu-time", "nan"], "at most 1e+08 s"),
        ([".", "--include", "*", "--memory", "1"], "64 MB"),
        ([".", "--include", "*", "--memory", "1048577"], "at most 1048576 MB"),
        ([".", "--include", "*", "--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"], "--jobs"),
        ([".", "--include", "*", "--tolerance", "wide"], "wide"),
        ([".", "--include", "*", "--csv", "nowhere/r.csv"], "nowhere/r.csv"),
        ([".", "--include", "*", "--scheduler", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1"),
        ([], "PATH"),
    ],
)
def test_usage_is_2_and_one_line(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.data").touch()
    environment = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    result = avsync("scan", *arguments, "-o", tmp_path / "r.jsonl", **environment)
    assert result.returncode == 2, result.stderr
    assert_one_line(result, told)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("fsspec", ["s3://bucket/a.mp4"], "remote"),
        ("s3fs", ["s3://bucket/a.mp4"], "remote"),
        ("distributed", [".", "--scheduler", "tcp://127.0.0.1:1"], "cluster"),
        ("pyarrow", [".", "--parquet", "r.parquet"], "parquet"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, module, arguments, extra):
    (tmp_path / "a.mp4").touch()
    program = f"import sys; sys.modules[{module!r}] = None; import avsync_cli.cli; avsync_cli.cli.main()"
    command = [sys.executable, "-c", program, "scan", *arguments, "-o", tmp_path / "r.jsonl"]
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"PYTHONPATH": paths}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 2, result.stderr
    assert_one_line(result, f"pip install 'avsync-cli[{extra}]'")


def test_a_model_that_cannot_be_used_is_5(tmp_path, folder):
    result = avsync("scan", folder, "-o", tmp_path / "r.jsonl", "--model", tmp_path / "missing")
    assert result.returncode == 5
    assert_one_line(result, "model.json")


def test_the_first_interrupt_lets_files_finish_and_the_second_does_not(tmp_path):
    begun, mark, hung = tmp_path / "begun", tmp_path / "mark", tmp_path / "hung"
    words = (f"touch {begun} wait-for {mark}", "lead 0", "lead 0", f"touch {hung} hang", "lead 0")
    files = [str(path) for path in write_files(tmp_path / "in", *words)]
    results = tmp_path / "r.jsonl"
    command = [sys.executable, PROGRAM, tmp_path / "in", results, "--resume", "--jobs", "1"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(begun.exists)
    first.send_signal(signal.SIGINT)
    mark.touch()
    assert first.communicate(timeout=900)[1] == "interrupted\n"
    assert paths_in(results) == files[:1]
    second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(hung.exists)
    while second.poll() is None:
        second.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert "KeyboardInterrupt" in second.communicate()[1]
    assert paths_in(results) == files[:3]


def test_an_interrupted_scan_is_130_and_its_answers_are_kept(tmp_path, folder, handmade):
    results = tmp_path / "r.jsonl"
    # With two, one file is still in work when the other's answer is there.
    options = ["-o", results, "--model", handmade, "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "avsync_cli", "scan", folder, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: results.exists() and results.stat().st_size > 0)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "finishing" in errors
    assert 1 <= len(paths_in(results)) < 5
    assert " files" in out


def test_the_help_names_every_option():
    text = avsync("scan", "--help").stdout
    for option in ("--output", "--include", "--exclude", "--resume", "--retry-errors", "--jobs", "--timeout"):
        assert option in text
    for option in ("--memory", "--cpu-time", "--scheduler", "--csv", "--parquet", "--summary", "--exit-zero"):
        assert option in text
    for option in ("--tolerance", "--model", "--copy-limit", "--quiet"):
        assert option in text


def test_what_is_out_of_sync_is_fixed_once(tmp_path, heads, handmade):
    """Also where an earlier scan without --fix, or one that was stopped, left it."""
    folder, results = tmp_path / "videos", tmp_path / "r.jsonl"
    folder.mkdir()
    for lead_ms in (0, 160):
        shutil.copy(heads[lead_ms], folder / f"lead{lead_ms}.mp4")
    arguments = ("scan", folder, "-o", results, "--model", handmade, "--jobs", 1)
    assert avsync(*arguments).returncode == 1
    fixed = avsync(*arguments, "--resume", "--fix")
    assert "1 fixed, 0 not fixed" in fixed.stdout, fixed.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "lead0.mp4",
        "lead160.mp4",
        "lead160.synced.mp4",
    ]
    copy = folder / "lead160.synced.mp4"
    written = copy.stat().st_mtime_ns
    again = avsync(*arguments, "--resume", "--fix")
    assert "0 fixed, 0 not fixed" in again.stdout
    assert copy.stat().st_mtime_ns == written
    assert records_of(results)["lead160.synced.mp4"]["status"] == "in_sync"
