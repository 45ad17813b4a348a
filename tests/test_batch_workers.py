"""Workers: whatever a file does to the one that checks it, it gets one answer and the others theirs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from scan_stubs import (
    LIMITS,
    PROGRAM,
    is_alive,
    load_and_die,
    load_hasty_stub,
    load_nothing,
    load_stub,
    wait_until,
    write_files,
)

from avsync_cli.batch import limits
from avsync_cli.batch.limits import LEAST_BYTES_PER_S, check_time_s, count_jobs
from avsync_cli.batch.records import Item
from avsync_cli.batch.run import scan_files
from avsync_cli.batch.worker import Settings
from avsync_cli.batch.workers import Worker
from avsync_cli.errors import ModelError, ScanError
from avsync_cli.machine import count_cores, free_memory_bytes
from avsync_cli.report import Report

SETTINGS = Settings(load_stub, LIMITS)
GOOD = Report("", "in_sync", "", (LIMITS.latest_ms, LIMITS.earliest_ms)).to_json()


def scan(folder: Path, *, load=load_stub, **options) -> dict[str, dict]:
    """Scan a folder with stubs; the records by file name."""
    results = folder.parent / "results.jsonl"
    scan_files([str(folder)], results, load=load, **({"jobs": 2} | options))
    records = [json.loads(line) for line in results.read_bytes().splitlines()]
    assert len({record["path"] for record in records}) == len(records)
    return {Path(record["path"]).name: record for record in records}


DEEDS = {
    "exit 3": ("crashed", "status 3"),
    "exit 0": ("crashed", "status 0"),
    "segfault": ("crashed", "SIGSEGV"),
    "abort": ("crashed", "SIGABRT"),
    "kill": ("crashed", "SIGKILL"),
    "swell": ("memory_limit", "200 MB"),
    "leap": ("memory_limit", "200 MB"),
    "divide": ("failed", "ZeroDivisionError"),
    "refuse": ("no_audio", "no sound in it"),
    "grow": ("changed", "written to"),
}


def test_what_a_file_does_to_its_worker_is_its_own_affair(tmp_path):
    words = [word for deed in DEEDS for word in (deed, "lead 80")]
    write_files(tmp_path / "in", *words)
    records = scan(tmp_path / "in", timeout_s=100, memory_mb=200)
    for number, word in enumerate(words):
        record = records[f"{number:03}.mp4"]
        if word == "lead 80":
            assert (record["status"], record["audio_lead_ms"]) == ("out_of_sync", 80)
        else:
            reason, told = DEEDS[word]
            assert (record["status"], record["reason"]) == ("error", reason)
            assert told in record["message"]
        assert list(record) == list(records["001.mp4"])


def test_a_file_that_never_ends_is_given_up(tmp_path):
    write_files(tmp_path / "in", "lead 0", "hang", "lead 0")
    records = scan(tmp_path / "in", timeout_s=10, jobs=1)
    assert [record["reason"] for _, record in sorted(records.items())] == [None, "timeout", None]
    assert "10 s" in records["001.mp4"]["message"]


def test_cpu_time_is_limited_where_the_clock_is_not(tmp_path):
    write_files(tmp_path / "in", "lead 0", "spin", "lead 0")
    records = scan(tmp_path / "in", cpu_s=1, timeout_s=100)
    assert [record["reason"] for _, record in sorted(records.items())] == [None, "cpu_limit", None]


def test_models_are_loaded_once_for_each_worker_and_again_only_for_a_lost_one(tmp_path):
    log = tmp_path / "loaded"
    write_files(tmp_path / "in", *["lead 0"] * 20, "exit 1", *["sleep 0.2 lead 0"] * 5)
    records = scan(tmp_path / "in", load=partial(load_stub, log))
    loaded = log.read_text().split()
    assert len(loaded) == 3
    workers = {record["message"].removeprefix("checked by ") for record in records.values()}
    assert workers - {records["020.mp4"]["message"]} <= set(loaded)


def test_all_workers_work_at_once(tmp_path):
    """The first file waits for a mark that is set once the two after it are answered."""
    write_files(tmp_path / "in", f"wait-for {tmp_path / 'mark'}", "lead 0", "lead 0")
    results = tmp_path / "out.jsonl"
    process = subprocess.Popen([sys.executable, PROGRAM, tmp_path / "in", results])
    wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 2)
    assert process.poll() is None  # the first file waits still
    (tmp_path / "mark").touch()
    assert process.wait(900) == 0
    assert results.read_bytes().count(b"\n") == 3


def test_a_model_that_cannot_be_loaded_ends_the_scan(tmp_path):
    write_files(tmp_path / "in", "lead 0")
    with pytest.raises(ModelError, match="no such model"):
        scan(tmp_path / "in", load=load_nothing)
    with pytest.raises(ScanError, match="status 7"):
        scan(tmp_path / "in", load=load_and_die)


@pytest.mark.parametrize("words", [("hang", "hang"), ("sleep 0.01 lead 0",) * 2000])
def test_a_killed_scan_leaves_no_worker_and_no_folder_behind(tmp_path, words):
    log, temporary = tmp_path / "loaded", tmp_path / "tmp"
    temporary.mkdir()
    write_files(tmp_path / "in", *words)
    command = [sys.executable, PROGRAM, tmp_path / "in", tmp_path / "out.jsonl", "--log", log]
    process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)})
    wait_until(lambda: log.exists() and log.read_text().count("\n") == 2)
    assert len(list(temporary.glob("avsync-*"))) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(int(pid)) for pid in log.read_text().split()))
    assert not list(temporary.glob("avsync-*"))


def test_an_idle_workers_folder_goes_with_a_killed_scan(tmp_path):
    """One file hangs, the other worker has answered and waits for more."""
    log, temporary, results = tmp_path / "loaded", tmp_path / "tmp", tmp_path / "out.jsonl"
    temporary.mkdir()
    write_files(tmp_path / "in", "lead 0", "hang")
    process = subprocess.Popen(
        [sys.executable, PROGRAM, tmp_path / "in", results, "--log", log],
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    wait_until(lambda: results.exists() and results.stat().st_size > 0 and log.read_text().count("\n") == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not list(temporary.glob("avsync-*")), seconds=300)


def test_a_worker_that_cannot_be_started_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ScanError, match="cannot be started: No such file"):
        Worker(SETTINGS).begin(Item("a", "/a"))
    assert not list(tmp_path.glob("avsync-*"))


def test_files_in_work_are_watched_while_others_are_skipped(tmp_path, monkeypatch):
    """Every look at a file is slow, as on a tired file server: the hanging one is still given up in time."""
    hung, *files = write_files(tmp_path / "in", "hang", *["lead 0"] * 60)
    results = tmp_path / "results.jsonl"
    scan_files([str(path) for path in files], results, load=load_stub, jobs=2)
    skipped = {str(path) for path in files}
    stat, seen = os.stat, []

    def look_slowly(path, *arguments, **keywords):
        if str(path) in skipped:
            seen.append(b"timeout" in results.read_bytes())
            time.sleep(0 if seen[-1] else 1)
        return stat(path, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", look_slowly)
    scan_files([str(hung.parent)], results, load=load_stub, jobs=2, resume=True, timeout_s=1)
    assert not seen[0]
    assert seen[-1], "its answer was written before the last of the others was looked at"


FALSE_MESSAGES = [
    "[]",
    "{}",
    '{"allowed_s": NaN}',
    '{"allowed_s": -1}',
    '{"allowed_s": 1e999}',
    '{"share": 2}',
    '{"share": "half"}',
    '{"failure": ["unheard of", "x"]}',
    '{"report": {}}',
    '{"report": [1, 2]}',
    '{"unusable": "x", "exit_code": 5}',
    json.dumps({"report": GOOD | {"status": "fine"}}),
    json.dumps({"report": GOOD | {"audio_lead_ms": float("nan")}}),
    json.dumps({"report": GOOD | {"timings_s": {}}}),
    "[" * 100_000,
    "\0",
]


def test_a_worker_that_talks_nonsense_has_crashed(tmp_path):
    words = [f"say {message.encode().hex()}" for message in FALSE_MESSAGES]
    write_files(tmp_path / "in", *words, "lead 0")
    records = scan(tmp_path / "in", timeout_s=60, jobs=1)
    reasons = [record["reason"] for _, record in sorted(records.items())]
    assert reasons == ["crashed"] * len(FALSE_MESSAGES) + [None]


def test_a_worker_cannot_give_itself_more_time_than_the_user_did(tmp_path):
    more = json.dumps({"allowed_s": 1000}).encode().hex()
    write_files(tmp_path / "in", f"say {more} hang")
    begin = time.monotonic()
    assert scan(tmp_path / "in", timeout_s=2, jobs=1)["000.mp4"]["reason"] == "timeout"
    assert time.monotonic() - begin < 600


def test_one_that_stands_still_is_given_up_long_before_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "STILL_S", 5.0)
    write_files(tmp_path / "in", "hang", "lead 0")
    records = scan(tmp_path / "in", jobs=1)
    assert [record["reason"] for _, record in sorted(records.items())] == ["timeout", None]
    assert "stood still for" in records["000.mp4"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_stub, load_hasty_stub])
def test_a_pause_of_both_counts_for_no_file(tmp_path, load):
    """The worker does nothing for longer than its file may take, and nobody looks.

    One that ends itself then is no fault of the file, either.
    """
    (path,) = write_files(tmp_path, "sleep 1 lead 0")
    worker = Worker(replace(SETTINGS, load=load, timeout_s=5))
    worker.begin(Item(path.name, str(path)))
    try:
        while not worker._begun:
            assert worker.poll() is None
            time.sleep(0.1)
        os.kill(worker._process.pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(worker._process.pid, signal.SIGCONT)
        while (answer := worker.poll()) is None:
            time.sleep(0.1)
        assert answer["status"] == "in_sync"
    finally:
        worker.close()


def test_time_grows_with_the_video_but_not_with_what_it_claims():
    minute, hour = check_time_s(60, 10**9), check_time_s(3600, 10**9)
    assert minute < hour < 60 * minute
    lie = check_time_s(1e12, 100_000)  # a header that promises 30,000 years in 100 kB
    assert lie <= check_time_s(100_000 / LEAST_BYTES_PER_S, 10**9)
    assert check_time_s(float("nan"), 1000) == check_time_s(None, 1000) < minute


def test_jobs_follow_memory_and_cores():
    assert 1 <= count_jobs(1) <= count_cores()
    assert count_jobs(1 << 60) == 1


def test_what_a_container_keeps_of_files_is_free(tmp_path):
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("99000000\n")
    assert free_memory_bytes(tmp_path) == 1_000_000
    (tmp_path / "memory.stat").write_text("anon 50000000\ninactive_file 20000000\nactive_file 7000000\n")
    assert free_memory_bytes(tmp_path) == 28_000_000
    assert count_jobs(28_000_001, tmp_path) == 1
