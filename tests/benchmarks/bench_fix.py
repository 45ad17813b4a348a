"""60 files in 12 containers, fixed and checked again: how far from zero they are then, and what they kept.

    python tests/benchmarks/bench_fix.py [--leads 5]

The meter is not ours to be wrong with: clicks in the sound at known pictures, so that a lead is known to a
sample. What it finds in a file is what the file is fixed by, and what it finds in the copy is printed.
"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from containers import CLICKS_S, CONTAINERS, look_and_listen, write_clicks
from many_streams import hash_packets

from avsync_cli.fix import fix_file
from avsync_cli.report import Report, Status
from avsync_cli.spec import DEFAULT_TOLERANCE, TOLERANCES

LEADS_MS = (160, -280, 90, -170, 330, -140, 47, -126)
LIMITS = TOLERANCES[DEFAULT_TOLERANCE]


def check_clicks(path: Path) -> Report:
    """The report of a file whose clicks belong to the pictures at `CLICKS_S`."""
    clicks_ms = look_and_listen(path)[1]
    lead_ms = sum(1000 * should_s - is_ms for should_s, is_ms in zip(CLICKS_S, clicks_ms, strict=True)) / 3
    status: Status = "in_sync" if LIMITS.contains(lead_ms) else "out_of_sync"
    return Report(str(path), status, "", (LIMITS.latest_ms, LIMITS.earliest_ms), audio_lead_ms=lead_ms)


def main(leads: Annotated[int, typer.Option(max=len(LEADS_MS))] = 5) -> None:
    folder = Path(tempfile.mkdtemp(prefix="avsync-bench-"))
    counts = {"fixed": 0, "nothing_to_fix": 0, "refused": 0}
    furthest_ms, kept = 0.0, 0
    for container, kind in CONTAINERS.items():
        for lead_ms in LEADS_MS[:leads]:
            path = folder / f"{container}{lead_ms}.{container}"
            write_clicks(path, clicks_s=[click_s - lead_ms / 1000 for click_s in CLICKS_S], **kind)
            done = fix_file(path, check_clicks)
            counts[done.status] += 1
            if done.status != "fixed" or done.out is None or done.after is None:
                print(f"{path.name}: {done.status}: {done.message}")
                continue
            same = hash_packets(Path(done.out)) == hash_packets(path)
            after_ms = done.after.audio_lead_ms or 0.0
            furthest_ms, kept = max(furthest_ms, abs(after_ms)), kept + same
            print(f"{path.name} -> {Path(done.out).name}: {after_ms:+.1f} ms, all kept: {same}", flush=True)
    print(f"{counts}, furthest from zero {furthest_ms:.1f} ms, all streams kept in {kept}")


if __name__ == "__main__":
    typer.run(main)
