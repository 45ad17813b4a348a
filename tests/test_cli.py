"""The command line: every exit code, one line for each error, JSON as promised."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from clips import write_clip
from scan_stubs import wait_until
from students import write_student

from avsync_cli import __version__

FIELDS = [
    "schema_version",
    "file",
    "status",
    "reason",
    "audio_lead_ms",
    "audio_lead_frames",
    "uncertainty_ms",
    "direction",
    "confidence",
    "audio_stream",
    "other_voices",
    "duration_s",
    "fps",
    "full",
    "looked_at_s",
    "passages",
    "starts_anew_s",
    "coverage",
    "unfitted_s",
    "decoded_pictures",
    "range_frames",
    "course",
    "steps",
    "drift_ms_per_min",
    "drift_uncertainty_ms_per_min",
    "sound_speed",
    "drift_start_ms",
    "timeline",
    "differing_faces",
    "candidate_leads_ms",
    "tracks",
    "curve",
    "limits_ms",
    "timings_s",
    "model",
    "message",
]


def avsync(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "avsync_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "error"} | environment,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], *words: object) -> None:
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("avsync: ")
    assert all(str(word) in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


def test_in_sync_is_0_and_says_so(heads, handmade):
    result = avsync("check", heads[0], "--model", handmade)
    assert (result.returncode, result.stderr) == (0, "")
    assert "in sync: audio" in result.stdout
    assert "confidence" in result.stdout


def test_out_of_sync_is_1_and_tells_the_fix(heads, handmade):
    result = avsync("check", heads[160], "--model", handmade)
    assert result.returncode == 1
    assert "out of sync: audio leads video by 1" in result.stdout
    assert "ffmpeg -i" in result.stdout
    assert "-itsoffset 0.1" in result.stdout


def test_undetermined_is_3(handmade, heads):
    result = avsync("check", heads[0], "--end", "0.8", "--model", handmade)
    assert result.returncode == 3
    assert "undetermined: " in result.stdout
    assert "cannot tell" not in result.stdout


def test_quiet_is_one_line_and_verbose_is_more(heads, handmade):
    plain = avsync("check", heads[0], "--model", handmade)
    quiet = avsync("check", heads[0], "--model", handmade, "-q")
    verbose = avsync("check", heads[0], "--model", handmade, "-v")
    assert quiet.stdout.count("\n") == 1
    assert quiet.stdout.count("\n") < plain.stdout.count("\n") < verbose.stdout.count("\n")
    assert "lips-and-loudness" in verbose.stdout


def test_json_is_the_promise(heads, handmade):
    result = avsync("check", heads[160], heads[0], "--model", handmade, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    early, level = map(json.loads, result.stdout.splitlines())
    for report in (early, level):
        assert list(report) == FIELDS
        assert report["schema_version"] == 3
        assert len(report["curve"]) == 31
        assert report["limits_ms"] == [-125.0, 45.0]
        assert list(report["timings_s"]) == ["decode", "faces", "encode", "score", "total"]
        assert set(report["tracks"][0]) == {
            "start_s", "end_s", "box", "audio_lead_ms", "confidence", "speaking", "mouth_motion", "curve",
            "turned_degrees", "yaw_degrees",
        }  # fmt: skip
        assert report["model"]["name"] == "lips-and-loudness"
        assert len(report["model"]["sha256"]) == 64
    assert early["status"] == "out_of_sync"
    assert early["direction"] == "audio_leads"
    assert early["audio_lead_ms"] == pytest.approx(160, abs=25)
    assert level["status"] == level["direction"] == "in_sync"


def test_range_speaker_and_timeline_can_be_asked_for(heads, handmade):
    options = ("--range", "20", "--speaker", "1", "--every", "2", "--model", handmade)
    report = json.loads(avsync("check", heads[600], "--json", *options).stdout)
    assert (report["status"], report["course"]) == ("out_of_sync", "constant")
    assert report["audio_lead_ms"] == pytest.approx(600, abs=25)
    assert len(report["curve"]) == 41
    assert [(point["start_s"], point["end_s"]) for point in report["timeline"]] == [(0, 2), (2, 4)]
    nobody = avsync("check", heads[0], "--speaker", "2", "--model", handmade)
    assert nobody.returncode == 3
    assert "no such face, only 1" in nobody.stdout
    nobody = avsync("check", heads[0], "--speaker", "2", "--model", handmade, "--json")
    assert json.loads(nobody.stdout)["reason"] == "no_such_face"
    for wrong in (("--range", "14"), ("--range", "101"), ("--every", "0"), ("--speaker", "left")):
        assert avsync("check", heads[0], *wrong, "--model", handmade).returncode == 2


def test_tolerance_moves_the_verdict(heads, handmade):
    assert avsync("check", heads[160], "--model", handmade, "--tolerance", "-200,200").returncode == 0
    assert avsync("check", heads[0], "--model", handmade, "--tolerance", "-1,1").returncode == 1


def test_a_part_can_be_asked_for_and_what_was_looked_at_is_told(heads, handmade):
    options = ("--start", "1", "--end", "3.6", "--full", "--audio-stream", "0", "--model", handmade)
    report = json.loads(avsync("check", heads[0], "--json", *options).stdout)
    assert report["passages"] == [{"start_s": 1.0, "end_s": 3.6}]
    assert (report["looked_at_s"], report["full"]) == (2.6, True)
    assert report["decoded_pictures"] == pytest.approx(92, abs=2), "from the beginning to one past the end"
    refused = avsync("check", heads[0], "--audio-stream", "1", "--model", handmade)
    assert refused.returncode == 4
    assert_one_line(refused, heads[0], "audio stream 1", "1, counted from 0")
    both = avsync("check", heads[0], heads[160], "--audio-stream", "1", "--model", handmade, "--json")
    assert [json.loads(line)["reason"] for line in both.stdout.splitlines()] == ["no_audio"] * 2
    assert avsync("check", heads[0], "--start", "3", "--end", "2", "--model", handmade).returncode == 2


def test_the_gravest_of_several_files_counts(tmp_path, heads, handmade):
    missing = tmp_path / "missing.mp4"
    result = avsync("check", heads[0], missing, heads[160], "--model", handmade, "--json")
    assert result.returncode == 4
    assert_one_line(result, missing)
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["status"] for report in reports] == ["in_sync", "error", "out_of_sync"]
    assert reports[1]["reason"] == "unreadable"
    assert list(reports[1]) == FIELDS
    bars = write_clip(tmp_path / "bars.mp4", seconds=1, sound=np.zeros(16_000, np.float32), rate=16_000)
    assert avsync("check", bars, heads[160], "--model", handmade).returncode == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"no video"), "unreadable"),
        (lambda path: path.mkdir(), "unreadable"),
        (lambda path: write_clip(path, seconds=0.4), "no_audio"),
    ],
)
def test_media_that_cannot_be_checked_is_4(tmp_path, handmade, make, reason):
    path = tmp_path / "given.mp4"
    make(path)
    result = avsync("check", path, "--model", handmade, "--json")
    assert result.returncode == 4
    assert_one_line(result, path)
    assert json.loads(result.stdout)["reason"] == reason


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "a.mp4", "--nonsense"],
        ["check", "a.mp4", "--threads", "many"],
        ["check", "a.mp4", "--tolerance", "wide"],
        ["check", "a.mp4", "b.mp4", "--audio", "c.wav"],
        ["nonsense"],
    ],
)
def test_usage_is_2(arguments):
    result = avsync(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert_one_line(result)


def test_models_that_cannot_be_used_are_5(tmp_path, heads):
    damaged = write_student(tmp_path / "damaged")
    (damaged / "video.onnx").write_bytes(b"not a graph")
    cases = {
        "missing": (tmp_path / "missing", "model.json"),
        "other rate": (write_student(tmp_path / "rate", sample_rate_hz=8000), "sample_rate_hz"),
        "other crop": (write_student(tmp_path / "crop", crop="face-224"), "crop"),
        "newer": (write_student(tmp_path / "newer", version=99), "version"),
        "damaged": (damaged, "video.onnx"),
        "no calibration": (write_student(tmp_path / "raw", calibration=None), "calibrated"),
    }
    for folder, word in cases.values():
        result = avsync("check", heads[0], "--model", folder)
        assert result.returncode == 5, result.stderr
        assert_one_line(result, word)


def test_a_bug_is_70_and_an_interrupt_130():
    """Python would end a crash with 1, which means out of sync."""
    for raised, code in (("ZeroDivisionError", 70), ("KeyboardInterrupt", 130)):
        program = f"""if True:
            import avsync_cli.cli as cli
            def app(**_): raise {raised}
            cli.app = app
            cli.main()"""
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.returncode == code
        assert "Traceback" not in result.stderr
        assert result.stderr.count("\n") <= 1


def is_open(path: Path, pid: int) -> bool:
    """Whether a process or one that it began has a file open."""
    parent = psutil.Process(pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        everybody = [parent, *parent.children(recursive=True)]
        return any(str(path) == each.path for process in everybody for each in process.open_files())
    return False


def test_ctrl_c_is_130(tmp_path, handmade):
    long = write_clip(tmp_path / "long.mp4", seconds=120, sound=np.zeros(16_000, np.float32), rate=16_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "avsync_cli", "check", str(long), "--model", str(handmade)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: is_open(long, process.pid), seconds=300)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)  # a busy machine is slow to end, too
    assert (process.returncode, errors) == (130, "avsync: interrupted\n")


def test_the_version_and_the_help():
    assert avsync("--version").stdout == f"avsync {__version__}\n"
    text = avsync("check", "--help").stdout
    for option in ("--audio", "--tolerance", "--json", "--model", "--threads", "--quiet", "--verbose"):
        assert option in text
    assert "Exit codes" in text


def test_the_edge_package_never_loads_torch_training_or_export():
    code = (
        "import sys, avsync_cli.cli, avsync_cli.check; "
        "print([name for name in ('torch', 'training', 'export', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_help_does_not_wait_for_the_engines():
    code = (
        "import sys, avsync_cli.cli; "
        "print([name for name in ('onnxruntime', 'cv2', 'av', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_input_is_never_touched(tmp_path, heads, handmade):
    path = tmp_path / "copy.mp4"
    path.write_bytes(Path(heads[160]).read_bytes())
    path.chmod(0o444)
    before = path.stat().st_mtime_ns, path.read_bytes()
    avsync("check", path, "--model", handmade)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert list(tmp_path.iterdir()) == [path]


def test_avsync_alone_and_h_show_the_help():
    alone, short = avsync(), avsync("-h")
    assert (alone.returncode, alone.stdout) == (0, short.stdout)
    for command in ("check", "fix", "scan", "doctor", "bench"):
        [line] = [line for line in alone.stdout.splitlines() if line.startswith(f"  {command} ")]
        assert line.endswith("."), "the whole sentence"
    assert "--tolerance" in avsync("check", "-h").stdout
    assert "student" not in "".join(avsync(name, "-h").stdout for name in ("check", "fix", "scan"))


def test_the_shell_completes():
    words = {"_AVSYNC_COMPLETE": "complete_bash", "COMP_WORDS": "avsync check --ran", "COMP_CWORD": "2"}
    assert avsync(**words).stdout == "--range\n"


def test_what_is_no_file_is_told_with_what_to_do(tmp_path, handmade):
    for name, hint in (("tcp://a.test:1", "tcp"), (tmp_path, "avsync scan FOLDER")):
        result = avsync("check", name, "--model", handmade)
        assert result.returncode == 4
        assert_one_line(result, name, hint)


def test_standard_input_is_a_video_too(heads, handmade):
    with heads[160].open("rb") as video:
        result = subprocess.run(
            [sys.executable, "-m", "avsync_cli", "check", "-", "--json", "--model", str(handmade)],
            stdin=video,
            capture_output=True,
            text=True,
        )
    report = json.loads(result.stdout)
    assert (result.returncode, report["file"], report["status"]) == (1, "-", "out_of_sync")


def test_several_files_are_counted(heads, handmade, tmp_path):
    asked = ("check", heads[0], heads[160], tmp_path / "missing.mp4", "--model", handmade)
    lines = avsync(*asked, "--tolerance", "200", "--start", "0:00:00.5").stdout.splitlines()
    assert lines[-1] == "3 files: 2 in sync, 1 error"
    assert avsync("check", heads[0], "--start", "1:xx", "--model", handmade).returncode == 2
