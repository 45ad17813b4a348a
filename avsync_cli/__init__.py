"""avsync: whether the mouth moves with the voice, and by how many milliseconds it does not."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsync_cli.check import Engine, check_file, load_engine
    from avsync_cli.errors import AvsyncError, ConfigError, MediaError, ModelError
    from avsync_cli.report import Report

__version__ = "0.1.0"
__all__ = [
    "AvsyncError",
    "ConfigError",
    "Engine",
    "MediaError",
    "ModelError",
    "Report",
    "__version__",
    "check_file",
    "load_engine",
]

_HOMES = {
    "Engine": "check",
    "check_file": "check",
    "load_engine": "check",
    "AvsyncError": "errors",
    "ConfigError": "errors",
    "MediaError": "errors",
    "ModelError": "errors",
    "Report": "report",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module's attribute is, only its name tells
    """Import on first use, so that `avsync --help` does not wait for ONNX Runtime and OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"avsync_cli.{_HOMES[name]}"), name)
