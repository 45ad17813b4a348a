"""What this CPU is and what it can do, as far as the choice of arithmetic depends on it.

Linux tells in /proc/cpuinfo and in the auxiliary vector, macOS through sysctl; elsewhere only the name is
known, and no feature is taken for granted.
"""

import ctypes
import functools
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
