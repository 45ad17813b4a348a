"""What a CPU says of itself, in the words of boards and machines that there are."""

import platform
import sys
from pathlib import Path

import pytest

from avsync_cli.faces import ASSETS, FACE_INPUTS, MESH_FILE
from avsync_cli.machine import Cpu, may_use_kleidiai, parse_cpuinfo, parse_sysctl, read_cpu
from avsync_cli.session import open_session

PI_4 = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

processor	: 1
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

Hardware	: BCM2835
Revision	: c03111
Model		: Raspberry Pi 4 Model B Rev 1.1
"""
PI_5 = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

Revision	: c04170
Model		: Raspberry Pi 5 Model B Rev 1.0
"""
AMD_ZEN3 = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC 7763 64-Core Processor
flags		: fpu vme sse sse2 ssse3 fma avx f16c avx2 bmi2 sha_ni vaes vpclmulqdq rdpid fsrm
bugs		: sysret_ss_attrs null_seg spectre_v1
"""
INTEL_VNNI = """\
processor	: 0
vendor_id	: GenuineIntel
model name	: Intel(R) Xeon(R) Platinum 8272CL CPU @ 2.60GHz
flags		: fpu sse2 avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl pku ospke avx512_vnni md_clear
"""
INTEL_ALDER_LAKE = """\
model name	: 12th Gen Intel(R) Core(TM) i7-1260P
flags		: fpu sse2 avx avx2 avx_vnni gfni vaes vpclmulqdq
"""
UNEVEN = """\
processor	: 0
Features	: fp asimd asimddp
CPU implementer	: 0x41
CPU part	: 0xd05
processor	: 1
Features	: fp asimd asimddp i8mm sme
CPU implementer	: 0x41
CPU part	: 0xd41
"""
APPLE_M4 = """\
machdep.cpu.cores_per_package: 10
machdep.cpu.brand_string: Apple M4
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 1
hw.optional.arm.FEAT_SME2: 1
"""
APPLE_M1 = """\
machdep.cpu.brand_string: Apple M1
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
hw.optional.arm.FEAT_SME: 0
"""
INTEL_MAC = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
hw.optional.avx2_0: 1
"""


@pytest.mark.parametrize(
    ("text", "arch", "model", "features"),
    [
        (PI_4, "aarch64", "Raspberry Pi 4 Model B Rev 1.1, Cortex-A72", {"asimd"}),
        (PI_5, "aarch64", "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76", {"asimd", "asimddp"}),
        (AMD_ZEN3, "x86_64", "AMD EPYC 7763 64-Core Processor", {"avx2"}),
        (INTEL_VNNI, "x86_64", "Intel(R) Xeon(R) Platinum 8272CL CPU @ 2.60GHz", {"avx2", "avx512_vnni"}),
        (INTEL_ALDER_LAKE, "x86_64", "12th Gen Intel(R) Core(TM) i7-1260P", {"avx2", "avx_vnni"}),
        (UNEVEN, "aarch64", "Cortex-A55 and Cortex-A78", {"asimd", "asimddp"}),
        (AMD_ZEN3, "aarch64", "", set()),  # what an emulator shows
        ("", "x86_64", "", set()),
        ("nonsense\n:\nflags\n", "x86_64", "", set()),
    ],
)
def test_linux_tells_model_and_features(text, arch, model, features):
    assert parse_cpuinfo(text, arch=arch) == (model, features)


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        (APPLE_M4, "Apple M4", {"asimd", "asimddp", "i8mm", "sme"}),
        (APPLE_M1, "Apple M1", {"asimd", "asimddp"}),
        (INTEL_MAC, "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", {"avx2"}),
        ("", "", set()),
    ],
)
def test_macos_tells_model_and_features(text, model, features):
    assert parse_sysctl(text) == (model, features)


def test_which_of_them_multiply_bytes_in_one_step():
    able = {}
    for name, text, arch in (
        ("pi4", PI_4, "aarch64"),
        ("pi5", PI_5, "aarch64"),
        ("amd", AMD_ZEN3, "x86_64"),
        ("xeon", INTEL_VNNI, "x86_64"),
        ("alder", INTEL_ALDER_LAKE, "x86_64"),
    ):
        able[name] = Cpu(arch, name, tuple(parse_cpuinfo(text, arch=arch)[1])).has_dot_product
    assert able == {"pi4": False, "pi5": True, "amd": False, "xeon": True, "alder": True}


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux' own words")
def test_this_machine_is_described_by_what_its_kernel_says():
    found = read_cpu()
    assert found.arch == platform.machine().lower()
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    assert set(found.features) == words & {
        "avx2", "avx512_vnni", "avx_vnni", "asimd", "asimddp", "i8mm", "sme"
    }  # fmt: skip


def test_arms_own_kernels_can_be_turned_off(monkeypatch):
    def told(**options: bool) -> str | None:
        session = open_session(ASSETS / MESH_FILE, threads=1, inputs=FACE_INPUTS[MESH_FILE], **options)
        try:
            return session.get_session_options().get_session_config_entry("mlas.disable_kleidiai")
        except RuntimeError:  # it was told nothing
            return None

    monkeypatch.delenv("AVSYNC_KLEIDIAI", raising=False)
    assert may_use_kleidiai() == ("sme" not in read_cpu().features)
    assert told(kleidiai=True) is None
    assert told(kleidiai=False) == "1"
    monkeypatch.setenv("AVSYNC_KLEIDIAI", "0")
    assert told() == "1"
