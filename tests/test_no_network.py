"""Nothing that runs opens a socket to anywhere or leaves a file behind, as the system itself sees it."""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from avsync_cli.telemetry import forbid_telemetry, is_telemetry_off

ROOT = Path(__file__).parents[1]
# What libraries take as a sign that they are tested, and then send nothing of their own accord.
QUIETING = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY")
HOOK = """
import socket, sys
def note(event, args):
    local = event == "socket.__new__" and args[1] == socket.AF_UNIX
    if event.startswith("socket.") and not local:
        open({log!r}, "a").write(f"{{event}} {{args[1:]}}\\n")
sys.addaudithook(note)
"""
API = "import avsync_cli, sys; print(avsync_cli.check_file(sys.argv[1]).status)"


@dataclass(frozen=True)
class Seen:
    """What a program did: its exit code and words, the sockets it opened, the files it left."""

    code: int
    text: str
    sockets: list[str]
    files: list[str]


def can_run(*words: str) -> bool:
    if shutil.which(words[0]) is None:
        return False
    return subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0


TRACER = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=network")
STRACE = can_run(*TRACER)
APART = ("unshare", "-rn") if can_run("unshare", "-rn") else ()


def watch(folder: Path, *command: str) -> Seen:
    """Run Python with empty HOME and TMPDIR, where it can be without any network, under strace.

    Without strace a hook in every interpreter tells of the sockets that Python opens.
    """
    home, tmp, log = folder / "home", folder / "tmp", folder / "sockets"
    hooks = folder / "hooks"
    for each in (home, tmp, hooks):
        each.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in QUIETING}
    env = {name: value for name, value in env.items() if not name.startswith("XDG_")}
    env |= {"HOME": str(home), "TMPDIR": str(tmp), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    tracer = [*TRACER, "-o", str(log)]
    if not STRACE:
        (hooks / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
        env["PYTHONPATH"] += os.pathsep + str(hooks)
        tracer = []
    line = [*APART, *tracer, sys.executable, *command]
    ran = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True, check=False)
    lines = log.read_text().splitlines() if log.exists() else []
    sockets = [
        line for line in lines if "socketpair(" not in line and ("socket" in line or "connect" in line)
    ]
    left = [str(path.relative_to(folder)) for top in (home, tmp) for path in top.rglob("*")]
    return Seen(ran.returncode, ran.stdout + ran.stderr, sockets, left)


def test_a_socket_and_a_file_would_be_seen(tmp_path):
    seen = watch(
        tmp_path,
        "-c",
        "import socket, tempfile; socket.socket().connect_ex(('127.0.0.1', 9)); "
        "tempfile.NamedTemporaryFile(delete=False)",
    )
    assert seen.sockets
    assert [name.partition("/")[0] for name in seen.files] == ["tmp"]


def slow(*command: str):
    return pytest.param(command, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "avsync_cli", "check", "{head}"),
        slow("-m", "avsync_cli", "scan", "{head}", "-o", "results.jsonl", "--exit-zero"),
        slow("-m", "avsync_cli", "doctor"),
        slow("-c", API, "{head}"),
        slow("-c", "import export, training, onnxruntime"),
    ],
    ids=["check", "scan", "doctor", "python", "training and export"],
)
def test_no_socket_is_opened_and_no_file_left(command, heads, tmp_path):
    seen = watch(tmp_path, *(word.format(head=heads[0]) for word in command))
    assert seen.code in (0, 1, 3), seen.text
    assert (seen.sockets, seen.files) == ([], [])


def test_telemetry_is_off_in_this_process_and_those_it_starts():
    assert is_telemetry_off()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_an_onnxruntime_that_was_there_before_is_told_of(monkeypatch):
    import onnxruntime  # noqa: F401 - is in sys.modules, as it is for a program that imports it first

    monkeypatch.setattr("avsync_cli.telemetry._early", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forbid_telemetry()  # was turned off in time: nothing to say
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    with pytest.warns(UserWarning, match="import avsync_cli first"):
        forbid_telemetry()
    assert not is_telemetry_off()
