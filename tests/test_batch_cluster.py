"""A cluster: every file one answer, whatever becomes of its machines."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from scan_stubs import is_alive, load_stub, wait_until, write_files
from test_cli import avsync

from avsync_cli.batch.run import scan_files
from avsync_cli.errors import ConfigError, ScanError

pytest.importorskip("distributed", reason="needs the extra `cluster`")
pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent

START = """
import sys, time
from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, *(nanny.process.pid for nanny in cluster.workers.values()), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and 3 worker processes: its address and their process ids."""
    program = tmp_path / "cluster.py"
    program.write_text(START)
    paths = os.pathsep.join([str(TESTS), *(path or os.getcwd() for path in sys.path)])
    process = subprocess.Popen(
        [sys.executable, program, "3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    address, *pids = process.stdout.readline().split()
    yield address, [int(pid) for pid in pids], process
    process.kill()
    process.communicate()
    for pid in map(int, pids):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def answers(results: Path) -> list[dict]:
    return [json.loads(line) for line in results.read_bytes().splitlines()]


def test_a_lost_machines_files_are_checked_elsewhere_and_once(cluster, tmp_path):
    address, pids, _ = cluster
    words = ["sleep 0.05 lead 0"] * 120
    words[40:44] = ["exit 3", "swell", "divide", "lead 80"]
    files = write_files(tmp_path / "in", *words)
    results = tmp_path / "r.jsonl"

    def kill_one() -> None:
        wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 20)
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    done = scan_files([str(tmp_path / "in")], results, load=load_stub, scheduler=address, memory_mb=200)
    killer.join()
    wait_until(lambda: not is_alive(pids[0]))
    assert done.answered == len(files)
    records = answers(results)
    assert sorted(record["path"] for record in records) == sorted(map(str, files))
    by_name = {Path(record["path"]).name: record for record in records}
    assert [by_name[f"{n:03}.mp4"]["reason"] for n in range(40, 43)] == ["crashed", "memory_limit", "failed"]
    assert by_name["043.mp4"]["status"] == "out_of_sync"
    assert sum(record["status"] == "in_sync" for record in records) == 116
    again = scan_files([str(tmp_path / "in")], results, resume=True, load=load_stub, scheduler=address)
    assert (again.answered, again.skipped) == (0, 120)


def test_only_a_few_files_are_with_the_scheduler_at_a_time(cluster, tmp_path):
    from distributed import Client

    address, mark = cluster[0], tmp_path / "mark"
    write_files(tmp_path / "in", *[f"wait-for {mark} lead 0"] * 3, *["sleep 0.02 lead 0"] * 100)
    most, over = [0], threading.Event()

    def watch() -> None:
        """The first files are held up until as many as there are machines were seen."""
        until = time.monotonic() + 300
        with Client(address, set_as_default=False) as client:
            while not over.is_set():
                most.append(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
                if max(most) >= 3 or time.monotonic() > until:
                    mark.touch()
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    scan_files([str(tmp_path / "in")], tmp_path / "r.jsonl", load=load_stub, scheduler=address)
    over.set()
    watcher.join()
    # Two a thread of three threads, and as many whose answers are being fetched.
    assert 3 <= max(most) <= 12


def test_a_scheduler_that_goes_away_ends_the_scan_and_resume_goes_on_here(cluster, tmp_path):
    address, _, process = cluster
    mark, results = tmp_path / "mark", tmp_path / "r.jsonl"
    write_files(tmp_path / "in", *["lead 0"] * 20, *[f"wait-for {mark} lead 0"] * 40)

    def kill() -> None:
        wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 5)
        process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ScanError, match="--resume"):
        scan_files([str(tmp_path / "in")], results, load=load_stub, scheduler=address)
    killer.join()
    before = len(answers(results))
    assert 5 <= before <= 20
    mark.touch()
    done = scan_files([str(tmp_path / "in")], results, resume=True, load=load_stub, jobs=2)
    assert (done.skipped, done.answered) == (before, 60 - before)
    assert len({record["path"] for record in answers(results)}) == 60


def test_a_machine_with_another_version_is_named_before_it_gets_a_file(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("avsync_cli.batch.cluster.__version__", "99.0")
    write_files(tmp_path / "in", "lead 0")
    with pytest.raises(ConfigError, match=r"tcp://.*: has avsync .* but this machine has avsync 99\.0"):
        scan_files([str(tmp_path / "in")], tmp_path / "r.jsonl", load=load_stub, scheduler=cluster[0])
    assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_the_command_line_gives_the_answers_of_one_machine(cluster, tmp_path, heads, handmade):
    options = ("--model", handmade, "-q", "--scheduler", cluster[0])
    result = avsync("scan", *heads.values(), "-o", tmp_path / "r.jsonl", *options)
    assert (result.returncode, result.stderr) == (1, "")
    reports = map(
        json.loads, avsync("check", *heads.values(), "--model", handmade, "--json").stdout.splitlines()
    )
    expected = {report["file"]: report["audio_lead_ms"] for report in reports}
    assert {record["file"]: record["audio_lead_ms"] for record in answers(tmp_path / "r.jsonl")} == expected
