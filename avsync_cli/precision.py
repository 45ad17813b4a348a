"""Which arithmetic the student runs in: 32-bit floating point, or 8-bit integers where these are faster."""

from pathlib import Path
from typing import get_args

from avsync_cli.contract import precisions_of
from avsync_cli.errors import ConfigError
from avsync_cli.machine import Cpu, read_cpu
from avsync_cli.spec import Precision, Wanted


def choose_precision(
    wanted: Wanted, folder: str | Path | None = None, *, cpu: Cpu | None = None
) -> Precision:
    """What a student, the bundled one by default, is to run in on this CPU, or on the one given.

    `auto` takes int8 where the student has such graphs and the CPU multiplies 8-bit integers in one step:
    without that little is gained, and on x86 sums may overflow in 16 bits. Raises ConfigError, and
    ModelError for what `model.json` says.
    """
    if wanted not in get_args(Wanted):
        raise ConfigError(f"precision {wanted!r}: not one of {', '.join(get_args(Wanted))}")
    if wanted != "auto":
        return wanted
    able = (cpu or read_cpu()).has_dot_product
    return "int8" if able and "int8" in precisions_of(folder) else "fp32"
