"""What it costs to show a check: the page of ten minutes, the video drawn on, and the page over many files.

    python tests/benchmarks/bench_report.py [--minutes 10] [--files 10000]

Ten minutes are real footage of the corpus (AVSYNC_CORPUS), looped, or without it a talking head. Times are
given by the clock and by the CPU, which other work on the machine does not stretch. The page over many files
is timed in Chromium, where there is one.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_long import longest_hd_clip
from browser import find_chromium, make_records, open_browser
from looping import join_clips
from talking import write_talking_head

from avsync_cli.check import check_and_keep, load_engine
from avsync_cli.options import CheckOptions

PAGE_S, PAGE_BYTES = 2.0, 1_000_000  # what is to be kept, for ten minutes
_DO = """([what, argument]) => new Promise(done => {
  const began = performance.now(), words = document.getElementById("words");
  if (what === "sort") document.querySelector(`th button[data-column="${argument}"]`).click();
  else { words.value = argument; words.dispatchEvent(new Event("input", { bubbles: true })); }
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
})"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    clock, cpu = time.perf_counter(), time.process_time()
    yield
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    print(f"{what}: {clock:.1f} s by the clock, {cpu:.1f} s of CPU time", flush=True)


def make_video(folder: Path, minutes: float) -> Path:
    clip = longest_hd_clip()
    if clip is None:
        clip = write_talking_head(folder / "head.mp4", seconds=20), Fraction(20)
    count = round(minutes * 60 / clip[1])
    return join_clips(folder / "long.mp4", (clip for _ in range(count)))


def show_check(folder: Path, minutes: float) -> None:
    path = make_video(folder, minutes)
    engine = load_engine()
    with timed(f"check of {minutes:g} minutes"):
        report, findings = check_and_keep(path, CheckOptions(), engine)
    with timed(f"its page beyond that (to keep: {PAGE_S:g} s)"):
        from avsync_cli.pages import write_page
        from avsync_cli.sights import gather_sights

        write_page(report, gather_sights(report, findings, path, timecode=None), folder / "a.html")
    size = (folder / "a.html").stat().st_size
    print(f"page: {size / 1000:.0f} kB (to keep: {PAGE_BYTES / 1000:.0f}), {len(report.tracks)} faces")
    from avsync_cli.overlay import Part, write_overlay

    with timed("20 s of it with what was found drawn on it"):
        write_overlay(report, findings, path, folder / "b.mp4", part=Part(0.0, 20.0))


def show_files(folder: Path, files: int) -> None:
    from avsync_cli.batch.overview import INDEX, PAGES, write_overview

    (folder / PAGES).mkdir()
    with timed(f"pages of {files} files that were answered before, and one over all"):
        write_overview(make_records(files), folder)
    print(f"page over all: {(folder / INDEX).stat().st_size / 1e6:.1f} MB")
    if find_chromium() is None:
        print("not timed in a browser: there is no Chromium")
        return
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((folder / INDEX).as_uri())
        load_ms = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        sorts = [page.evaluate(_DO, ["sort", column]) for column in ("0", "1", "2", "4", "7")]
        searches = [page.evaluate(_DO, ["search", words]) for words in ("episode 07", "moov", "")]
    print(f"shown after {load_ms:.0f} ms")
    print(f"sorted in {statistics.median(sorts):.0f} ms (at most {max(sorts):.0f})")
    print(f"searched in {statistics.median(searches):.0f} ms (at most {max(searches):.0f})")


def main(minutes: Annotated[float, typer.Option(min=1)] = 10, files: int = 10_000) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="avsync-bench-") as folder:
        show_check(Path(folder), minutes)
        show_files(Path(folder), files)


if __name__ == "__main__":
    typer.run(main)
