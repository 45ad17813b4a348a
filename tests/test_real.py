"""Real footage that was never trained on; needs the corpus, which is not part of the repository."""

import csv
import os
from pathlib import Path

import pytest

from avsync_cli.check import check_file, load_engine

CORPUS = Path(os.environ.get("AVSYNC_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}; set AVSYNC_CORPUS"),
]


def validation_rows() -> list[dict[str, str]]:
    with (CORPUS / "manifest.csv").open(newline="", encoding="utf-8") as table:
        return [row for row in csv.DictReader(table) if row["split"] == "val"]


@pytest.fixture(scope="module")
def bundled():
    return load_engine(threads=2)


def test_every_container_and_rate_of_the_wild_gets_an_answer(bundled):
    """No error, whatever the file: mp4, mkv, webm, 22 to 60 fps, 160 to 1080 lines."""
    rows = [row for row in validation_rows() if not row["file"].startswith("broadcast")]
    for row in rows[::3]:
        report = check_file(CORPUS / row["file"], engine=bundled, end_s=6.0)
        assert report.status in ("in_sync", "out_of_sync", "undetermined")
        assert report.tracks, row["file"]
        assert report.fps == pytest.approx(float(row["fps"]), rel=0.05)


def test_broadcast_clips_agree_with_their_source(bundled):
    """Clips of this source lie 0.7 frames apart among themselves, hence the frame and a half."""
    rows = [row for row in validation_rows() if row["file"].startswith("broadcast")][::5]
    leads = [check_file(CORPUS / row["file"], engine=bundled).audio_lead_frames for row in rows]
    errors = [
        abs(lead - float(row["source_lead_frames"]))
        for lead, row in zip(leads, rows, strict=True)
        if lead is not None
    ]
    assert sum(error <= 1.5 for error in errors) >= 0.85 * len(rows)
    assert sum(error > 2.5 for error in errors) <= 0.05 * len(rows)


def test_sound_of_another_clip_is_not_in_sync(bundled):
    rows = [row for row in validation_rows() if row["file"].startswith(("lab", "wild"))]
    pairs = list(zip(rows, rows[7:] + rows[:7], strict=True))[::3]
    verdicts = [
        check_file(CORPUS / own["file"], audio=CORPUS / other["file"], engine=bundled, end_s=5.0).status
        for own, other in pairs
    ]
    assert verdicts.count("undetermined") >= 0.7 * len(pairs)
    assert verdicts.count("in_sync") <= 0.1 * len(pairs) + 1
