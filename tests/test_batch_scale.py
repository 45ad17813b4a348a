"""Many files and hostile ones; takes minutes."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import write_hostile
from scan_stubs import PROGRAM, write_files
from talking import write_talking_head
from test_cli import avsync
from test_real import CORPUS

from avsync_cli.batch.journal import read_answers
from avsync_cli.machine import MB, resident_bytes

pytestmark = pytest.mark.slow
FILES = 500
KILLS = 6


@pytest.mark.slow
@pytest.mark.repeats
def test_memory_stays_flat_over_5000_files(tmp_path):
    write_files(tmp_path / "in", *["lead 0"] * 5000)
    results, log = tmp_path / "r.jsonl", tmp_path / "loaded"
    process = subprocess.Popen([sys.executable, PROGRAM, tmp_path / "in", results, "--log", log])
    held_mb: list[list[float]] = []
    while process.poll() is None:
        if results.exists() and results.read_bytes().count(b"\n") >= 500 * (len(held_mb) + 1):
            pids = [process.pid, *map(int, log.read_text().split())]
            held_mb.append([resident_bytes(pid) / MB for pid in pids])
        time.sleep(0.05)
    assert process.returncode == 0
    assert results.read_bytes().count(b"\n") == 5000
    assert len(held_mb) >= 8
    assert len(log.read_text().split()) == 2, "no worker was replaced"
    for early_mb, late_mb in zip(held_mb[0], held_mb[-1], strict=True):
        assert late_mb - early_mb < 5, held_mb


@pytest.mark.slow
@pytest.mark.repeats
def test_hostile_files_are_answered_like_any_other(tmp_path, heads, handmade):
    expected = write_hostile(tmp_path / "in", heads[0])
    options = ("--model", handmade, "--timeout", 40, "--memory", 500, "--jobs", 2)
    result = avsync("scan", tmp_path / "in", "-o", tmp_path / "r.jsonl", *options)
    assert result.returncode == 4
    answers = {Path(record["path"]).name: record for record in read_answers(tmp_path / "r.jsonl")}
    assert {name: answers[name]["reason"] for name in expected} == expected
    assert answers["liar.mp4"]["status"] == "in_sync"
    assert "picture_pixels" in answers["large.mov"]["message"]
    assert len(answers) == len(expected)


@pytest.mark.repeats
@pytest.mark.real
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}; set AVSYNC_CORPUS")
def test_500_files_are_answered_once_each_though_the_scan_is_killed_again_and_again(tmp_path):
    """Generated and real files, whole, broken, endless and huge, with the student that is shipped."""
    folder, results = tmp_path / "in", tmp_path / "r.jsonl"
    names = _gather(folder)
    assert len(names) == FILES
    command = [sys.executable, "-m", "avsync_cli", "scan", folder, "-o", results, "--resume"]
    command += ["--timeout", "90", "--memory", "700", "-q"]
    rng = random.Random(500)
    kept = b""
    for kill in range(KILLS):
        process = subprocess.Popen(command)
        goal = FILES * (kill + 1) // (KILLS + 1)
        while process.poll() is None and kept.count(b"\n") < goal:
            time.sleep(0.2)
            now = results.read_bytes() if results.exists() else b""
            assert now.startswith(kept)
            kept = now[: now.rfind(b"\n") + 1]
        time.sleep(rng.uniform(0, 2))
        assert process.poll() is None, "ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command).returncode == 4
    assert results.read_bytes().startswith(kept)
    lines = [json.loads(line) for line in results.read_bytes().splitlines()]
    assert sorted(os.path.relpath(line["path"], folder) for line in lines) == sorted(names)
    reasons = {os.path.relpath(line["path"], folder): line["reason"] for line in lines}
    assert reasons["loop.mp4"] == "timeout"
    assert reasons["swell.mp4"] == "memory_limit"
    refused = ("pipe.mp4", "sparse.mp4", "list.mp4", "large.mov")
    assert [reasons[name] for name in refused] == ["unreadable"] * len(refused)
    answered = [line for line in lines if line["file"].find("/real") > 0 and line["status"] != "error"]
    assert len(answered) == sum(name.startswith("real") for name in names)


def _gather(folder: Path) -> list[str]:
    """Fill a folder; the names below it."""
    heads = folder / "heads"
    heads.mkdir(parents=True)
    for number in range(12):
        write_talking_head(
            heads / f"{number}.mp4", audio_lead_ms=80 * (number % 5 - 2), seconds=2, seed=number
        )
    write_hostile(folder, heads / "0.mp4")
    with (CORPUS / "manifest.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if float(row["seconds"]) < 6]
    (folder / "real").mkdir()
    (folder / "broken").mkdir()
    rng = random.Random(0)
    made = sum(path.is_fifo() or path.is_file() for path in folder.rglob("*"))
    for number in range(FILES - made):
        source = CORPUS / rows[number % len(rows)]["file"]
        if number % 6:
            shutil.copy(source, folder / "real" / f"{number:03}{source.suffix}")
        else:
            data = bytearray(source.read_bytes())
            for _ in range(20):
                data[rng.randrange(len(data))] ^= 0xFF
            part = data[: rng.randrange(len(data))] if number % 12 else data
            (folder / "broken" / f"{number:03}{source.suffix}").write_bytes(part)
    return [os.path.relpath(path, folder) for path in folder.rglob("*") if not path.is_dir()]
