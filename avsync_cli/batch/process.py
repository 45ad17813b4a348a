"""A worker's process as the system sees it: how it begins, what ends it when nobody looks, how it ended.

Linux and macOS limit its time and memory. On Windows only its time is limited here, and the parent alone
watches its memory and CPU time. Windows was never tried.
"""

import faulthandler
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path

from avsync_cli.batch.records import FailureReason

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection

    Channel = PipeConnection
else:
    import resource
    from multiprocessing.connection import Connection

    Channel = Connection

_LOOK_S = 0.5  # between two looks at whether the parent is still there


def start_process(
    program: str, arguments: Sequence[str], env: Mapping[str, str]
) -> tuple["subprocess.Popen[bytes]", Channel]:
    """A Python process that runs `program`, given its end of a channel as a number and then `arguments`, and
    the other end. It does not hear this terminal's Ctrl-C. Raises OSError.
    """
    ours, theirs = Pipe()
    try:
        with theirs:
            command = ["-P", "-c", program, str(theirs.fileno()), *arguments]
            return _open_process(command, theirs.fileno(), env), ours
    except BaseException:
        ours.close()
        raise


if sys.platform == "win32":

    def _open_process(command: list[str], handle: int, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        os.set_handle_inheritable(handle, True)
        # What lies in a virtual environment only starts the interpreter, which would be another process.
        interpreter = getattr(sys, "_base_executable", sys.executable)
        return subprocess.Popen(
            [interpreter, *command],
            startupinfo=subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]}),
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=_errors(),
            env={**env, "__PYVENV_LAUNCHER__": sys.executable},
        )

    def end_reason(status: int) -> tuple[FailureReason, str] | None:
        """What the system ended a process for, by the status that it left; None where that is not known."""
        del status
        return None

    def begin() -> None:
        """What a worker does first."""

    def limit_memory(memory_bytes: int) -> None:
        """Nothing: the parent alone watches it."""

    def limit_time(seconds: float, *, cpu_s: float) -> None:
        """End this process after `seconds`; its CPU time is watched by the parent alone."""
        del cpu_s
        # A thread of Python's own, which needs no lock: code in C that hangs does not stop it.
        faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True)

    def forget_time() -> None:
        """Take the limit of time back."""
        faulthandler.cancel_dump_traceback_later()

else:

    def _open_process(command: list[str], handle: int, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, *command],
            pass_fds=[handle],
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=_errors(),
            env=env,
        )

    _REASONS: dict[int, tuple[FailureReason, str]] = {
        -signal.SIGXCPU: ("cpu_limit", "used more CPU time than it may"),
        -signal.SIGALRM: ("timeout", "took longer than it may"),
    }

    def end_reason(status: int) -> tuple[FailureReason, str] | None:
        """What the system ended a process for, by the status that it left; None where that is not known."""
        return _REASONS.get(status)

    def begin() -> None:
        """What a worker does first: leave no core dump, and go first where memory runs out for all."""
        _set_limit(resource.RLIMIT_CORE, 0)
        with suppress(OSError):  # Linux alone has it
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")

    def limit_memory(memory_bytes: int) -> None:
        """Let allocations far beyond the limit fail: the parent, who looks now and then, would be too late.

        Twice the limit, because a decoder that is refused memory calls the file damaged, and only the
        parent's word says what it was. Counted is what can be written to: space that is merely reserved costs
        nothing.
        """
        import psutil

        held = getattr(psutil.Process().memory_info(), "data", 0)  # bytes; Linux alone tells it
        _set_limit(resource.RLIMIT_DATA, held + 2 * memory_bytes)

    def limit_time(seconds: float, *, cpu_s: float) -> None:
        """End this process after `seconds`, or once it used `cpu_s` of CPU time since it began."""
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _set_limit(resource.RLIMIT_CPU, math.ceil(cpu_s))

    def forget_time() -> None:
        """Take the limit of time back."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _set_limit(which: int, value: int) -> None:
        hard = resource.getrlimit(which)[1]
        with suppress(OSError, ValueError):
            resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def wait_for_end(parent: int) -> None:
    """Return once `parent`, the process that started this one, has ended."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(parent)  # which knows another one that got its number
        while os.getppid() == parent and process.is_running():
            time.sleep(_LOOK_S)


def describe_end(status: int | None) -> str:
    """How a process ended, by the status that it left; None where it has not."""
    if status is None:
        return "its worker did not say anything sensible"
    if status > 0xFFFF:  # of Windows
        return f"its worker ended with status {status:#x}"
    if status >= 0:
        return f"its worker ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"its worker was ended by {name}{hint}"


def _errors() -> int | None:
    return None if os.environ.get("AVSYNC_TRACEBACK") else subprocess.DEVNULL
