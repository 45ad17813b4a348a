"""Temporary folders of processes that may be killed: each names its owner, so that others can sweep up."""

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "avsync-scratch-"


def make_scratch(prefix: str = _PREFIX) -> Path:
    """A folder of this process, which is to remove it, named by `prefix` and the process. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def sweep_scratch(prefix: str = _PREFIX) -> None:
    """Remove the folders of processes that were killed before they could. Raises OSError."""
    if sys.platform == "win32":  # asking for a process would end it
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):
            if pid.isdecimal() and folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                try:
                    os.kill(int(pid), 0)
                except ProcessLookupError:
                    shutil.rmtree(folder, ignore_errors=True)
