"""How a scan is run, apart from what is asked of each video (`avsync_cli.options`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from avsync_cli.batch.limits import DEFAULT_COPY_MB, DEFAULT_MEMORY_MB
from avsync_cli.errors import ConfigError
from avsync_cli.options import CheckKeywords, CheckOptions

_LEAST_MEMORY_MB = 64
_MOST_MEMORY_MB = 1 << 20
_LONGEST_S = 1e8  # three years; timers of the system end not far beyond


@dataclass(frozen=True)
class ScanOptions:
    """How a scan is run. Raises ConfigError where that cannot be done.

    `include` and `exclude` are patterns of names, as for `sources.Filter`; `outputs` are further files that
    are not to be scanned. `resume` goes on with the results that are there, `retry_errors` also checks again
    what ended in an error. `jobs` 0 takes what the machine has. `timeout_s` and `cpu_s` are for one video,
    None for what grows with its duration; `memory_mb` is for one video, `copy_mb` is up to which one at an
    address is copied here. `scheduler` is the address of a Dask cluster. `fix` writes a copy in sync
    (`fix.fix_file`) beside each file that the results say is out of sync, and that has none. `pages` is a
    folder for a page of each file (see `overview`). `follow_playlists` reads HLS playlists, as `check` does.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    outputs: Sequence[Path] = ()
    resume: bool = False
    retry_errors: bool = False
    jobs: int = 0
    timeout_s: float | None = None
    cpu_s: float | None = None
    memory_mb: int = DEFAULT_MEMORY_MB
    copy_mb: int = DEFAULT_COPY_MB
    scheduler: str | None = None
    fix: bool = False
    pages: Path | None = None
    follow_playlists: bool = False

    def __post_init__(self) -> None:
        if not all(s is None or 0 < s <= _LONGEST_S for s in (self.timeout_s, self.cpu_s)):
            raise ConfigError(f"times must be above 0 and at most {_LONGEST_S:.0e} s")
        if not _LEAST_MEMORY_MB <= self.memory_mb <= _MOST_MEMORY_MB or self.copy_mb < 1:
            most = f"{_LEAST_MEMORY_MB} MB and at most {_MOST_MEMORY_MB} MB"
            raise ConfigError(f"memory must be at least {most}, copies at least 1 MB")
        if self.scheduler is not None and self.fix:
            raise ConfigError("--fix works on this machine alone, without --scheduler")
        if self.scheduler is not None and self.pages is not None:
            raise ConfigError("--report works on this machine alone, without --scheduler")
        if self.scheduler is not None and self.jobs:
            raise ConfigError("--jobs is for this machine; with --scheduler the cluster's threads count")


class ScanKeywords(CheckKeywords, total=False):
    """The same as keywords of `scan_files`, beside those of `check_file`."""

    include: Sequence[str]
    exclude: Sequence[str]
    outputs: Sequence[Path]
    resume: bool
    retry_errors: bool
    jobs: int
    timeout_s: float | None
    cpu_s: float | None
    memory_mb: int
    copy_mb: int
    scheduler: str | None
    fix: bool
    pages: Path | None
    follow_playlists: bool


def combine_options(
    scan: ScanOptions | None, options: CheckOptions | None, keywords: Mapping[str, Any]
) -> tuple[ScanOptions, CheckOptions]:
    """How to scan and what to ask of each video; keywords go first. Raises ConfigError."""
    names = {field.name for field in fields(ScanOptions)}
    of_scan = {name: value for name, value in keywords.items() if name in names}
    of_check = {name: value for name, value in keywords.items() if name not in names}
    combined = replace(options or CheckOptions(), **of_check)
    if combined.audio is not None:
        raise ConfigError("audio goes with one video, not with a scan")
    return replace(scan or ScanOptions(), **of_scan), combined
