"""What this machine is: its CPU as far as the choice of arithmetic depends on it, its cores and its memory.

Linux tells in /proc, in its control groups and in the auxiliary vector, macOS through sysctl; elsewhere only
the CPU's name is known, and no feature is taken for granted.
"""

import ctypes
import functools
import math
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Names as in /proc/cpuinfo. The dot products of 8-bit numbers are what makes int8 fast.
DOT_PRODUCTS = frozenset(("avx512_vnni", "avx_vnni", "asimddp"))
FEATURES = ("avx2", "avx512_vnni", "avx_vnni", "asimd", "asimddp", "i8mm", "sme")

MB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")  # in which the kernel tells what this container may use

_CPUINFO = Path("/proc/cpuinfo")
_ARM_PARTS = {  # of implementer 0x41, Arm; boards tell only the number
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd4f": "Neoverse-V2",
}
_AUXV_HWCAP, _AUXV_HWCAP2 = 16, 26  # getauxval(3)
_HWCAP_BITS = {"asimd": 1, "asimddp": 20}  # Linux, arch/arm64/include/uapi/asm/hwcap.h
_HWCAP2_BITS = {"i8mm": 13, "sme": 23}
_SYSCTL_FEATURES = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx2_0": "avx2",
}


@dataclass(frozen=True)
class Cpu:
    """`features` are those of `FEATURES` that it has, in that order."""

    arch: str
    model: str
    features: tuple[str, ...]

    @property
    def has_dot_product(self) -> bool:
        return not DOT_PRODUCTS.isdisjoint(self.features)


def may_use_kleidiai() -> bool:
    """Whether ONNX Runtime may use Arm's KleidiAI kernels.

    Those for SME multiply int8 matrices wrongly (ONNX Runtime 1.31). `AVSYNC_KLEIDIAI=0` turns all of them
    off, for CPUs on which `avsync doctor` finds others to be wrong.
    """
    return "sme" not in read_cpu().features and os.environ.get("AVSYNC_KLEIDIAI") != "0"


@functools.cache
def read_cpu() -> Cpu:
    """The CPU that this process runs on."""
    arch = platform.machine().lower()
    model, features = "", frozenset[str]()
    if sys.platform == "darwin":
        model, features = parse_sysctl(_ask_sysctl())
    elif sys.platform == "linux":
        model, features = parse_cpuinfo(_read_cpuinfo(), arch=arch)
        if arch == "aarch64":  # an emulator passes its host's /proc/cpuinfo on, but not its vector
            features |= _ask_auxv()
    ordered = tuple(name for name in FEATURES if name in features)
    return Cpu(arch, model or platform.processor() or "unknown", ordered)


def parse_cpuinfo(text: str, *, arch: str) -> tuple[str, frozenset[str]]:
    """Model and features of Linux' /proc/cpuinfo; only features that all cores have."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), []).append(value.strip())
    flags = values.get("Features" if arch == "aarch64" else "flags", [])
    sets = [frozenset(line.split()) for line in flags]
    features = frozenset.intersection(*sets) if sets else frozenset[str]()
    names = values.get("model name", []) if arch != "aarch64" or flags else []
    if arch == "aarch64" and flags:
        arm = "0x41" in values.get("CPU implementer", [])
        parts = dict.fromkeys(values.get("CPU part", []))
        cores = " and ".join(
            _ARM_PARTS.get(part, f"part {part}") if arm else f"part {part}" for part in parts
        )
        board = values.get("Model", values.get("Hardware", []))
        names = names or [f"{board[0]}, {cores}" if board else cores]
    return (names[0] if names else ""), features & frozenset(FEATURES)


def parse_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """Model and features of what `sysctl machdep.cpu hw.optional` prints on macOS."""
    values = dict(re.findall(r"^([\w.]+): (.*)$", text, flags=re.MULTILINE))
    features = {name for key, name in _SYSCTL_FEATURES.items() if values.get(key) == "1"}
    return values.get("machdep.cpu.brand_string", ""), frozenset(features)


def count_cores(cgroup: Path = CGROUP) -> int:
    """The cores this process may run on, and no more than its container's share amounts to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_line(cgroup / "cpu.max").split()  # "150000 100000": 1.5 cores
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 where it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def cpu_time_s(pid: int) -> float:
    """Seconds of CPU time that a process has used; 0 where it is gone."""
    import psutil

    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system)


def free_memory_bytes(cgroup: Path = CGROUP) -> int:
    """What can be used without swapping, in this container if it is one."""
    import psutil

    free = int(psutil.virtual_memory().available)
    allowed, used = _first_line(cgroup / "memory.max"), _first_line(cgroup / "memory.current")
    if allowed.isdigit() and used.isdigit():
        free = min(free, max(0, int(allowed) - int(used) + _cached_bytes(cgroup)))
    return free


def _read_cpuinfo() -> str:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _ask_sysctl() -> str:
    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _ask_auxv() -> frozenset[str]:
    """What the kernel, or an emulator in its place, lets this process use."""
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return frozenset()
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    first, second = getauxval(_AUXV_HWCAP), getauxval(_AUXV_HWCAP2)
    found = {name for name, bit in _HWCAP_BITS.items() if first >> bit & 1}
    return frozenset(found | {name for name, bit in _HWCAP2_BITS.items() if second >> bit & 1})


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
