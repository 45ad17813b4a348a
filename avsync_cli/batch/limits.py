"""How long a file may take, how much memory it may use, and how many are checked at once."""

import math
import os
from pathlib import Path

MB = 1 << 20

START_S = 300.0  # for a worker to load its models
OPENING_S = 60.0  # for what does not grow with the file
CHECK_S_PER_S = 10.0  # for each second of video; one core of a server needs about one for 1080p
GRACE_S = 10.0  # after which a worker that nobody watches ends itself
SLOWEST_COPY_BYTES_PER_S = 500_000
# A file too small for the length it declares lies about it; one that declares none is taken for a poor one.
LEAST_BYTES_PER_S = 4_000
POOR_BYTES_PER_S = 50_000
DEFAULT_MEMORY_MB = 2048  # for each worker
DEFAULT_COPY_MB = 20_000  # of one file that is not on this machine
_CGROUP = Path("/sys/fs/cgroup")


def copy_time_s(size: int | None) -> float:
    """How long a file of `size` bytes may take to be copied here."""
    return OPENING_S + (size or 0) / SLOWEST_COPY_BYTES_PER_S


def check_time_s(duration_s: float | None, size: int | None) -> float:
    """How long a file may take to be checked, by its declared duration and its size in bytes."""
    if duration_s is None or not 0 < duration_s < math.inf:
        duration_s = (size or 0) / POOR_BYTES_PER_S
    longest_s = math.inf if size is None else size / LEAST_BYTES_PER_S
    return OPENING_S + CHECK_S_PER_S * min(duration_s, longest_s)


def count_jobs(memory_bytes: int, cgroup: Path = _CGROUP) -> int:
    """Workers that fit this machine: one a core, and `memory_bytes` for each in what is free now.

    `cgroup` is the folder in which the kernel tells what this container may use.
    """
    return max(1, min(count_cores(cgroup), free_memory_bytes(cgroup) // memory_bytes))


def count_cores(cgroup: Path = _CGROUP) -> int:
    """The cores this process may run on, and no more than its container's share amounts to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_line(cgroup / "cpu.max").split()  # "150000 100000": 1.5 cores
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 where the system does not tell."""
    pages = _first_line(Path(f"/proc/{pid}/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def free_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """What can be used without swapping, in this container if it is one."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    allowed, used = _first_line(cgroup / "memory.max"), _first_line(cgroup / "memory.current")
    if allowed.isdigit() and used.isdigit():
        free = min(free, max(0, int(allowed) - int(used) + _cached_bytes(cgroup)))
    return free


def _cached_bytes(cgroup: Path) -> int:
    """Pages of files, which count as used but make room for whoever asks."""
    try:
        pairs = map(str.split, (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        return sum(int(number) for name, number in pairs if name in ("inactive_file", "active_file"))
    except (OSError, ValueError):
        return 0


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").partition("\n")[0]
    except (OSError, ValueError):
        return ""
