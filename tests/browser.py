"""A Chromium without a window, driven by Playwright, and pages from 10 to 10,000 files to show in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from avsync_cli.batch.records import Item, Record, make_record
from avsync_cli.report import ModelId, Report, Status, TimelinePoint
from avsync_cli.spec import TOLERANCES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTHS_PX = (390, 1280)
LONG_MS = 240_000  # models are loaded, on a machine that may be busy
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ITU = TOLERANCES["itu-detect"]
_MODEL = ModelId("match", "0" * 64)


def find_chromium() -> str | None:
    """The program of `AVSYNC_CHROMIUM`, or one that the system has."""
    named = os.environ.get("AVSYNC_CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        yield browser
        browser.close()


def make_records(files: int) -> Iterator[Record]:
    """Answers of all kinds for many files, some with names that are no use to anybody."""
    random = np.random.default_rng(0)
    kinds: tuple[Status, ...] = ("in_sync", "in_sync", "in_sync", "out_of_sync", "undetermined", "error")
    for number in range(files):
        status = kinds[int(random.integers(len(kinds)))]
        lead_ms = float(random.normal(0, 30 if status == "in_sync" else 200))
        name = f"season {number // 100}/episode {number % 100:02} <b>&amp;'\" {'x' * (number % 60)}.mp4"
        words = {
            "in_sync": "audio and video are level",
            "out_of_sync": f"audio {'leads' if lead_ms > 0 else 'lags'} video by {abs(lead_ms):.0f} ms",
            "undetermined": "cannot tell: no face was found",
            "error": f"{name}: moov atom not found </script><script>alert(1)</script>",
        }[status]
        answered = status in ("in_sync", "out_of_sync")
        report = Report(
            name,
            status,
            words,
            (_ITU.latest_ms, _ITU.earliest_ms),
            reason=None if answered else "no_face" if status == "undetermined" else "unreadable",
            audio_lead_ms=lead_ms if answered else None,
            audio_lead_frames=lead_ms / 40 if answered else None,
            uncertainty_ms=20.0 if answered else None,
            confidence=float(random.uniform(0.7, 1)) if answered else 0.0,
            duration_s=None if status == "error" else float(random.uniform(2, 4000)),
            timeline=(TimelinePoint(0, 10, lead_ms, 0.9, 20.0),) if answered else (),
        )
        item = Item(name, f"/videos/{name}", 1, 1.0)
        yield make_record(item, report.to_json(), limits=_ITU, model=_MODEL)
