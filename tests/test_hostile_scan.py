"""What befalls a scan: a terminal that goes away, a full disk, a clock that is set back; and what is left."""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from clips import write_clip
from onnx.external_data_helper import convert_model_to_external_data
from scan_stubs import PROGRAM, wait_until, write_files
from students import write_student
from test_cli import avsync

from avsync_cli.contract import CONTRACT_FILE
from avsync_cli.errors import ModelError
from avsync_cli.media import open_media
from avsync_cli.model import load_student

SET_BACK = """
import time
began, real = time.monotonic(), time.time
time.time = lambda: real() - 1e6 * (time.monotonic() - began)  # a day earlier every 86 ms
"""


UNDER_NOHUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, sys.argv[1:])
"""


def read_files(results: Path) -> list[str]:
    return [Path(json.loads(line)["path"]).name for line in results.read_bytes().splitlines()]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system knows no hang-up")
@pytest.mark.parametrize("number", ["SIGHUP", "SIGTERM"])
def test_a_terminal_that_goes_away_lets_files_finish(tmp_path, number):
    marks = [tmp_path / f"{place:03}.begun" for place in range(40)]
    write_files(tmp_path / "in", *[f"touch {mark} sleep 0.5 lead 0" for mark in marks])
    results = tmp_path / "r.jsonl"
    command = [sys.executable, PROGRAM, tmp_path / "in", results]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 2)
    process.send_signal(getattr(signal, number))
    assert "interrupted" in process.communicate()[1]
    begun = sorted(f"{mark.stem}.mp4" for mark in marks if mark.exists())
    assert 2 <= len(begun) < 40
    assert sorted(read_files(results)) == begun, "what was in work was finished, and no more begun"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system knows no hang-up")
def test_under_nohup_a_scan_outlives_its_terminal(tmp_path):
    mark, results = tmp_path / "mark", tmp_path / "r.jsonl"
    files = write_files(tmp_path / "in", "lead 0", *[f"wait-for {mark} lead 0"] * 3)
    command = [sys.executable, "-c", UNDER_NOHUP, sys.executable, PROGRAM, tmp_path / "in", results]
    process = subprocess.Popen(command)
    wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") == 1)
    process.send_signal(signal.SIGHUP)
    mark.touch()
    assert process.wait(300) == 0
    assert len(read_files(results)) == len(files)


def test_folders_of_scans_that_were_killed_are_removed_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, kept = tmp_path / f"avsync-scratch-{ended.pid}-x", tmp_path / f"avsync-scratch-{os.getppid()}-x"
    for folder in (left, kept, tmp_path / "avsync-scratch-none"):
        folder.mkdir()
    (left / "copy.mp4").touch()
    write_files(tmp_path / "in", "lead 0")
    subprocess.run(
        [sys.executable, PROGRAM, tmp_path / "in", tmp_path / "r.jsonl"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        check=True,
    )
    assert sorted(path.name for path in tmp_path.glob("avsync-scratch-*")) == sorted(
        [kept.name, "avsync-scratch-none"]
    )


def test_a_name_that_is_no_text_is_the_same_for_check_and_scan(tmp_path, handmade):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    name = os.path.join(folder, b"no\xff\xfetext.mp4")
    Path(os.fsdecode(name)).write_bytes(b"none")
    checked = avsync("check", "--json", os.fsdecode(name), "--model", handmade)
    avsync("scan", tmp_path / "in", "-o", tmp_path / "r.jsonl", "--model", handmade, "--jobs", 1)
    scanned = json.loads((tmp_path / "r.jsonl").read_bytes())
    assert os.fsencode(json.loads(checked.stdout)["file"]) == os.fsencode(scanned["file"]) == name


def test_a_model_keeps_its_numbers_in_its_graphs(tmp_path, monkeypatch):
    """Numbers in a file of the working directory are not read, though it is there and the hash is right."""
    folder = write_student(tmp_path / "student")
    monkeypatch.chdir(folder)
    graph = onnx.load("video.onnx")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(4096, np.float32), "own"))
    graph.graph.node.append(onnx.helper.make_node("Identity", ["own"], ["unused"]))
    convert_model_to_external_data(graph, location="ext2", size_threshold=0)
    onnx.save(graph, "video.onnx")
    assert Path("ext2").is_file()
    declared = json.loads(Path(CONTRACT_FILE).read_text())
    declared["graphs"]["video"]["sha256"] = hashlib.sha256(Path("video.onnx").read_bytes()).hexdigest()
    Path(CONTRACT_FILE).write_text(json.dumps(declared))
    with pytest.raises(ModelError, match="not a model that ONNX Runtime can load"):
        load_student(folder)


def test_weights_of_strangers_are_no_program(tmp_path):
    pytest.importorskip("torch", reason="needs the extra `training`")
    from training.weights.files import read_weights_file

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"weights": Evil()}))
    with pytest.raises(ModelError, match="not weights that can be read"):
        read_weights_file(path)
    assert not (tmp_path / "made").exists()


def test_packets_without_bytes_are_no_pictures(tmp_path):
    """AVI has such where a picture was dropped: players show the one before."""
    make = {"video_codec": "mjpeg", "pixel_format": "yuvj420p", "time_base": Fraction(1, 25)}
    path = write_clip(tmp_path / "clip.avi", **make)
    data = bytearray(path.read_bytes())
    place, emptied = data.find(b"movi"), 0
    index = data.find(b"idx1")
    while 0 < (place := data.find(b"00dc", place + 4)) < index and emptied < 10:
        emptied += 1
        if emptied % 2 == 0:  # its bytes become a chunk that nobody reads
            size = int.from_bytes(data[place + 4 : place + 8], "little")
            data[place : place + 16] = b"00dc" + bytes(4) + b"JUNK" + (size - 8).to_bytes(4, "little")
    path.write_bytes(data)
    with open_media(path) as media:
        ticks = [picture.tick for picture in media.pictures()]
    assert 40 <= len(ticks) <= 50


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs leave to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("option", ["--csv", "--summary"])
def test_a_table_that_does_not_fit_is_6_and_leaves_nothing(tmp_path, handmade, small_disk, option):
    _fill(small_disk)
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.mp4").write_bytes(b"none")
    target = small_disk / "out"
    result = avsync(
        "scan", tmp_path / "in", "-o", tmp_path / "r.jsonl", option, target, "--model", handmade, "--jobs", 1
    )
    assert result.returncode == 6
    assert str(target) in result.stderr
    assert "No space" in result.stderr
    assert os.listdir(small_disk) == ["filler"]
    assert len(read_files(tmp_path / "r.jsonl")) == 3


@pytest.mark.slow
def test_no_descriptor_is_left_open_over_2000_files(tmp_path, engine, heads):
    """Whole, cut off and damaged ones, one after the other in this process."""
    from avsync_cli.check import check_file
    from avsync_cli.errors import AvsyncError

    data, rng = heads[0].read_bytes(), random.Random(0)
    path, process, held = tmp_path / "one.mp4", psutil.Process(), []
    for number in range(2_000):
        part = bytearray(data)
        for _ in range(20 * (number % 20 > 0)):
            part[rng.randrange(len(part))] ^= 0xFF
        path.write_bytes(part[: rng.randrange(len(part))] if number % 20 > 1 else part)
        if number % 100 == 0:
            check_file(path, engine=engine)
        else:
            try:
                with open_media(path, threads=1) as media:
                    next(media.pictures(), None)
            except AvsyncError:
                pass
        held.append(process.num_fds())
    assert max(held[-100:]) <= max(held[100:200])


@pytest.mark.slow
@pytest.mark.repeats
def test_5000_files_are_answered_once_each_whatever_befalls_the_scan(tmp_path, small_disk):
    """Thirty kills of the scan or of a worker, a disk that fills up, and a clock that runs backwards."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    (tmp_path / "sitecustomize.py").write_text(SET_BACK)
    write_files(tmp_path / "in", *["lead 0", "sleep 0.01 lead 200", "refuse"] * 1_666, "lead 0", "refuse")
    results, rng = small_disk / "r.jsonl", random.Random(0)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, PROGRAM, tmp_path / "in", results, "--resume"]
    kept = b""
    for kill in range(30):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)
        goal = 5_000 * (kill + 1) // 31
        while process.poll() is None and kept.count(b"\n") < goal:
            time.sleep(0.05)
            now = results.read_bytes() if results.exists() else b""
            assert now.startswith(kept), "a line was lost"
            kept = now[: now.rfind(b"\n") + 1]
        if kill == 15:
            _fill(small_disk)
            assert process.wait(60) != 0
            (small_disk / "filler").unlink()
            continue
        victims = psutil.Process(process.pid).children(recursive=True)
        if kill % 3 == 0 and victims:
            rng.choice(victims).kill()  # a worker: the scan goes on, and its file is an answer
            time.sleep(0.3)
        process.kill()
        process.wait()
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": path}).returncode == 0
    answered = read_files(results)
    assert len(answered) == len(set(answered)) == 5_000


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(512))
            except OSError:
                return
