"""What can go wrong for a user, and the exit code of each.

AvsyncError
├── ConfigError   2   an option or a configuration that cannot be used
├── MediaError    4   a file that cannot be read, or that lacks sound or picture
├── ModelError    5   a model that is missing, damaged or made for another contract
├── ScanError     6   a scan that cannot go on: its results cannot be written, its cluster is gone
├── WriteError    6   a file that cannot be written: the disk is full, the folder read-only
└── FileError         a file of a scan without an answer of its own (`batch.records`); it becomes a record

Errors are raised at the library's border (`decoder`, `model`, `faces`) with one line that names the
file and the reason. An undetermined answer is a result, not an error; a bug is neither.
"""

import sys

from avsync_cli.escapes import printable

EXIT_IN_SYNC = 0
EXIT_OUT_OF_SYNC = 1
EXIT_USAGE = 2
EXIT_UNDETERMINED = 3
EXIT_MEDIA = 4
EXIT_MODEL = 5
EXIT_SCAN = 6
EXIT_WRITE = 6
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class AvsyncError(Exception):
    """An expected failure; its text is one line for the user."""

    exit_code = EXIT_BUG


class ConfigError(AvsyncError):
    exit_code = EXIT_USAGE


class MediaError(AvsyncError):
    """`reason` is one of the report's reasons, such as "unreadable", "no_video" or "changed"."""

    exit_code = EXIT_MEDIA

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class ModelError(AvsyncError):
    exit_code = EXIT_MODEL


class ScanError(AvsyncError):
    """What was answered so far is safe; `--resume` goes on from there."""

    exit_code = EXIT_SCAN


class WriteError(AvsyncError):
    """What was there before is as it was."""

    exit_code = EXIT_WRITE


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"avsync: {printable(' '.join(text.split()))}", file=sys.stderr)
