"""A file that kills its process, swells or never ends is that file's error, and the others are answered."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hostile import claim_pictures
from scan_stubs import wait_until
from test_cli import assert_one_line, avsync

from avsync_cli.media import open_media


def write_surround(path: Path) -> Path:
    """Two seconds of pictures, and PCM in the eight channels of 7.1."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="7.1")
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(np.ones((1, 8 * 32_000), np.int16), "s16", "7.1")
        samples.sample_rate, samples.pts = 16_000, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


def test_surround_sound_in_mov_does_not_corrupt_the_heap(tmp_path):
    path = write_surround(tmp_path / "surround.mov")
    code = "from tests_of import read; [read() for _ in range(20)]"
    (tmp_path / "tests_of.py").write_text(
        "import sys\nfrom avsync_cli.media import open_media\n"
        "def read():\n    with open_media(sys.argv[1]) as media:\n"
        "        assert sum(1 for _ in media.pictures()) == 50\n"
        "        assert len(media.sound().samples) == 32000\n"
    )
    path_before = os.environ.get("PYTHONPATH", "")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), path_before])}
    ran = subprocess.run([sys.executable, "-c", code, str(path)], env=env, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    with open_media(path) as media:
        assert media.has_audio


@pytest.mark.slow
def test_a_crash_is_the_fault_of_one_file(heads, tmp_path):
    """The process is killed while it works at the second file, at which it sleeps."""
    slow, begun = tmp_path / "slow.mp4", tmp_path / "begun"
    slow.write_bytes(heads[0].read_bytes())
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, time\nwrite = os.write\nbegins = 0\n"
        "def write_and_sleep(descriptor, line):\n    global begins\n"
        "    begins += b'begins' in bytes(line)\n    written = write(descriptor, line)\n"
        f"    if begins == 2:\n        pathlib.Path({str(begun)!r}).touch()\n        time.sleep(1000)\n"
        "    return written\n"
        "if 'AVSYNC_SANDBOX' in os.environ:\n    os.write = write_and_sleep\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "avsync_cli", "check", "--json", *map(str, [heads[0], slow, heads[160]])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    first = process.stdout.readline()
    wait_until(begun.exists)
    [child] = [
        int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    os.kill(child, signal.SIGABRT)
    rest, complaints = process.communicate()
    answers = [json.loads(line) for line in (first + rest).splitlines()]
    assert [answer["file"] for answer in answers] == [str(heads[0]), str(slow), str(heads[160])]
    assert [answer["reason"] for answer in answers][1] == "crashed"
    assert answers[0]["status"] != "error" != answers[2]["status"]
    assert process.returncode == 4
    assert complaints == f"avsync: {slow}: the decoder crashed (SIGABRT)\n"


@pytest.mark.parametrize(
    ("told", "reasons"), [("line", [None, None]), ("line[:40]", ["crashed", "crashed"])], ids=["all", "half"]
)
def test_a_crash_after_an_answer_is_told_is_no_second_answer(heads, tmp_path, told, reasons):
    """The process dies in the very moment in which it told an answer, or told half of it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nwrite = os.write\n"
        "def write_and_die(descriptor, line):\n"
        "    if b'code' not in bytes(line)[:8]:\n        return write(descriptor, line)\n"
        f"    write(descriptor, {told})\n    os.abort()\n"
        "if 'AVSYNC_SANDBOX' in os.environ:\n    os.write = write_and_die\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "avsync_cli", "check", "--json", *map(str, [heads[0], heads[160]])]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(heads[0]), str(heads[160])]
    crashed = [answer["reason"] if answer["reason"] == "crashed" else None for answer in answers]
    assert crashed == reasons
    assert ran.stderr.count(b"crashed") == sum(reason is not None for reason in reasons)


@pytest.mark.parametrize(
    ("option", "value", "reason"), [("--timeout", "0.01", "timeout"), ("--memory", "64", "memory_limit")]
)
def test_what_takes_too_much_is_ended_and_told(heads, option, value, reason):
    result = avsync("check", "--json", option, value, heads[0])
    assert json.loads(result.stdout)["reason"] == reason
    assert result.returncode == 4
    assert_one_line(result, option)


def test_of_a_child_that_is_killed_no_copy_is_left(tmp_path):
    """A video that never ends is copied from standard input until its time is over."""
    command = [sys.executable, "-m", "avsync_cli", "check", "--timeout", "5", "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    process.stdin.write(bytes(1 << 20))
    process.stdin.flush()
    copied = []
    while process.poll() is None:
        copied += [name for _, _, names in os.walk(tmp_path) for name in names if name == "standard-input"]
        time.sleep(0.02)
    assert b"--timeout" in process.stderr.read()
    process.stdin.close()
    process.stderr.close()
    assert copied
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "value"), [("--timeout", "0"), ("--memory", "1")])
def test_bounds_that_are_none_are_refused(option, value):
    result = avsync("check", option, value, "x.mp4")
    assert result.returncode == 2
    assert_one_line(result, option)


@pytest.mark.slow
def test_with_and_without_it_the_same_is_printed(heads):
    apart, here = (avsync("check", option, heads[160]) for option in ("--sandbox", "--no-sandbox"))
    assert (apart.stdout, apart.stderr, apart.returncode) == (here.stdout, here.stderr, here.returncode)


@pytest.mark.slow
def test_an_interrupt_ends_both(heads):
    process = subprocess.Popen(
        [sys.executable, "-m", "avsync_cli", "check", *map(str, [heads[0]] * 50)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130


def check_patched(path, folder, patch):
    """What `check --json` prints on stdout and stderr, in processes that begin with a patch."""
    (folder / "sitecustomize.py").write_text(patch)
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "avsync_cli", "check", "--json", str(path)]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, check=False)
    return json.loads(ran.stdout), ran.stderr.decode()


@pytest.mark.slow
def test_without_a_timeout_it_grows_with_what_a_file_declares(heads, tmp_path):
    """4 s are declared, and there are pictures for many times the work that these are given here."""
    path = tmp_path / "loop.mp4"
    path.write_bytes(claim_pictures(heads[0].read_bytes(), 900_000, ticks=3))
    patch = "from avsync_cli.batch import limits\nlimits.OPENING_S, limits.CHECK_S_PER_S = 4, 0.25\n"
    report, complaint = check_patched(path, tmp_path, patch)
    assert report["reason"] == "timeout"
    assert complaint == f"avsync: {path}: took longer than the 5 s it may (--timeout)\n"


@pytest.mark.slow
def test_what_stands_still_is_ended_long_before_its_time(heads, tmp_path):
    """One file goes on slowly, the other one hangs at its fiftieth packet."""
    patch = (
        "import time\nfrom avsync_cli import decoder, pulse\nfrom avsync_cli.batch import limits\n"
        "limits.STILL_S, pulse._EVERY_S, packets = 6.0, 0.1, 0\n"
        "def beat():\n    global packets\n    packets += 1\n    pulse.beat()\n"
        "    time.sleep(SLEEP)\n"
        "decoder.beat = beat\n"
    )
    slow = check_patched(heads[0], tmp_path, patch.replace("SLEEP", "0.02"))
    hangs = check_patched(heads[0], tmp_path, patch.replace("SLEEP", "1000 * (packets == 50)"))
    assert slow[0]["status"] != "error"
    assert hangs[0]["reason"] == "timeout"
    assert re.fullmatch(rf"avsync: {heads[0]}: stood still for \d+(\.\d+)? s \(--timeout\)\n", hangs[1])
