"""How long a file may take, how much memory it may use, and how many are checked at once."""

import math
from contextlib import suppress
from pathlib import Path

from avsync_cli.errors import MediaError
from avsync_cli.machine import CGROUP, count_cores, free_memory_bytes

START_S = 300.0  # for a worker to load its models
OPENING_S = 60.0  # for what does not grow with the file
CHECK_S_PER_S = 10.0  # for each second of video; one core of a server needs about one for 1080p
STILL_S = 60.0  # in which nothing at all is read or found
STILL_SHARE = 0.5  # of the time that it took before is added: a slow machine is slow throughout

GRACE_S = 10.0  # after which a worker that nobody watches ends itself
SLOWEST_COPY_BYTES_PER_S = 500_000
# A file too small for the length it declares lies about it; one that declares none is taken for a poor one.
LEAST_BYTES_PER_S = 4_000
POOR_BYTES_PER_S = 50_000
DEFAULT_MEMORY_MB = 2048  # for each worker
DEFAULT_COPY_MB = 20_000  # of one file that is not on this machine


def copy_time_s(size: int | None) -> float:
    """How long a file of `size` bytes may take to be copied here."""
    return OPENING_S + (size or 0) / SLOWEST_COPY_BYTES_PER_S


def check_time_s(duration_s: float | None, size: int | None) -> float:
    """How long a file may take to be checked, by its declared duration and its size in bytes."""
    if duration_s is None or not 0 < duration_s < math.inf:
        duration_s = (size or 0) / POOR_BYTES_PER_S
    longest_s = math.inf if size is None else size / LEAST_BYTES_PER_S
    return OPENING_S + CHECK_S_PER_S * min(duration_s, longest_s)


def still_time_s(taken_s: float) -> float:
    """For how long a check may stand still that went on for `taken_s` before."""
    return STILL_S + STILL_SHARE * taken_s


def file_time_s(path: Path, size: int | None = None) -> float:
    """How long a file may take to be checked, by what it declares; `size` in bytes, if it is known."""
    from avsync_cli.container import read_info
    from avsync_cli.decoder import open_container

    duration_s = None
    with suppress(MediaError, OSError, ValueError):  # the check will say why
        size = path.stat().st_size if size is None else size
        with open_container(path) as container:
            duration_s = read_info(container, None).duration_s
    return check_time_s(duration_s, size)


def count_jobs(memory_bytes: int, cgroup: Path = CGROUP) -> int:
    """Workers that fit this machine: one a core, and `memory_bytes` for each in what is free now.

    `cgroup` is the folder in which the kernel tells what this container may use.
    """
    return max(1, min(count_cores(cgroup), free_memory_bytes(cgroup) // memory_bytes))
