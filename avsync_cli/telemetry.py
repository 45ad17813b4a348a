"""No library tells its maker anything: what would is turned off before it is imported.

ONNX Runtime from 1.29 on opens a database as soon as it is imported, and connections later. Only its variable
in the environment keeps it from that, and only before. The package's `__init__` calls `forbid_telemetry`, so
that it has been called wherever anything of `avsync_cli` is imported. Workers inherit the environment.
"""

import os
import sys
import warnings
from typing import Final

_OFF: Final = {"ORT_DISABLE_TELEMETRY": "1"}
_early: list[str] = []  # libraries that were imported before anybody had turned them off


def forbid_telemetry() -> None:
    """Turn telemetry off for this process and those it starts; warn where that comes too late."""
    if "onnxruntime" in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        _early.append("onnxruntime")
        warnings.warn(
            "onnxruntime was imported before avsync_cli and may send telemetry: "
            "import avsync_cli first, or set ORT_DISABLE_TELEMETRY=1",
            stacklevel=3,
        )
    os.environ.update(_OFF)


def is_telemetry_off() -> bool:
    """Whether no library of this process can send telemetry."""
    return not _early and all(os.environ.get(name) == value for name, value in _OFF.items())
