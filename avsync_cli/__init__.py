"""avsync: whether the mouth moves with the voice, and by how many milliseconds it does not."""

from typing import TYPE_CHECKING, Any

from avsync_cli.telemetry import forbid_telemetry

if TYPE_CHECKING:
    from avsync_cli.arrays import check_arrays
    from avsync_cli.batch.options import ScanOptions
    from avsync_cli.batch.run import Scanned, scan_files
    from avsync_cli.check import Engine, check_file, load_engine
    from avsync_cli.errors import AvsyncError, ConfigError, MediaError, ModelError, WriteError
    from avsync_cli.fix import Fix, FixOptions, fix_file
    from avsync_cli.fix_lines import fix_command
    from avsync_cli.live.events import MonitorEvent, MonitorFace
    from avsync_cli.live.monitor import Monitor
    from avsync_cli.options import CheckOptions
    from avsync_cli.report import Report

__version__ = "0.1.0"
__all__ = [
    "AvsyncError",
    "CheckOptions",
    "ConfigError",
    "Engine",
    "Fix",
    "FixOptions",
    "MediaError",
    "ModelError",
    "Monitor",
    "MonitorEvent",
    "MonitorFace",
    "Report",
    "ScanOptions",
    "Scanned",
    "WriteError",
    "__version__",
    "check_arrays",
    "check_file",
    "fix_command",
    "fix_file",
    "load_engine",
    "scan_files",
]

forbid_telemetry()  # before anything can import what would send it

_HOMES = {
    "ScanOptions": "batch.options",
    "Scanned": "batch.run",
    "scan_files": "batch.run",
    "CheckOptions": "options",
    "Engine": "check",
    "check_arrays": "arrays",
    "check_file": "check",
    "load_engine": "check",
    "AvsyncError": "errors",
    "ConfigError": "errors",
    "MediaError": "errors",
    "ModelError": "errors",
    "WriteError": "errors",
    "Fix": "fix",
    "FixOptions": "fix",
    "fix_file": "fix",
    "fix_command": "fix_lines",
    "Monitor": "live.monitor",
    "MonitorEvent": "live.events",
    "MonitorFace": "live.events",
    "Report": "report",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module's attribute is, only its name tells
    """Import on first use, so that `avsync --help` does not wait for ONNX Runtime and OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"avsync_cli.{_HOMES[name]}"), name)
