"""64-bit ARM, emulated: the same answers as here. Takes minutes, root and Debian's mirror."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "aarch64" / "compare.py"
TIMEOUT_S = 3600  # the root is downloaded first


@pytest.mark.aarch64
def test_arm_computes_what_this_machine_computes():
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stdout + result.stderr
