"""Whether a watch says what a check says: the last verdict of each clip of real footage, against its check.

    python tests/benchmarks/compare_watch.py [--clips 30] [--model DIR]

Takes clips of the corpus (AVSYNC_CORPUS) of 8 to 20 s, evenly spread over its table.
"""

import argparse
import csv
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
from bench_long import CORPUS

from avsync_cli import AvsyncError, Engine, Monitor, MonitorEvent, check_file, load_engine

SECONDS = (8.0, 20.0)
SAME_MS = 40.0


def choose_clips(count: int) -> list[Path]:
    with (CORPUS / "manifest.csv").open(newline="", encoding="utf-8") as rows:
        fitting = [row for row in csv.DictReader(rows) if SECONDS[0] <= float(row["seconds"]) <= SECONDS[1]]
    step = max(1, len(fitting) // count)
    return [CORPUS / row["file"] for row in fitting[::step][:count]]


def watch(path: Path, engine: Engine) -> list[MonitorEvent]:
    with av.open(str(path)) as container, Monitor(engine) as monitor:
        aspect = container.streams.video[0].sample_aspect_ratio
        for frame in container.decode(video=0, audio=0):
            if not isinstance(frame, av.VideoFrame | av.AudioFrame) or frame.pts is None:
                continue
            time_s = frame.pts * Fraction(frame.time_base or 0)
            if isinstance(frame, av.VideoFrame):
                monitor.push_picture(frame, time_s, aspect=aspect)
            else:
                monitor.push_sound(frame, time_s)
        monitor.finish()
        return monitor.poll()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model, threads=1)
    misses_ms, firsts_s, only_check, only_watch, neither = [], [], 0, 0, 0
    for path in choose_clips(arguments.clips):
        try:
            report, events = check_file(path, engine=engine), watch(path, engine)
        except AvsyncError as error:
            print(error)
            continue
        lead_ms, told = report.audio_lead_ms, events[-1].audio_lead_ms if events else None
        firsts_s += [each.time_s - events[0].start_s for each in events if each.audio_lead_ms is not None][:1]
        if lead_ms is not None and told is not None:
            misses_ms.append(abs(lead_ms - told))
        only_check += told is None and lead_ms is not None
        only_watch += told is not None and lead_ms is None
        neither += told is None and lead_ms is None
    same = sum(miss <= SAME_MS for miss in misses_ms)
    print(f"both answer: {len(misses_ms)} clips, {same} of them within {SAME_MS:g} ms")
    if misses_ms:
        print(f"difference: median {median(misses_ms):.1f} ms, most {max(misses_ms):.1f} ms")
    print(f"only the check: {only_check}, only the watch: {only_watch}, neither: {neither}")
    if firsts_s:
        print(
            f"first answer for the stretch up to: median {median(firsts_s):.1f} s, most {max(firsts_s):.1f} s"
        )


if __name__ == "__main__":
    main()
