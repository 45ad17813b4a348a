"""Real footage that was never trained on; needs the corpus, which is not part of the repository."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsync_cli.check import check_file, load_engine
from avsync_cli.media import read_sound_file
from avsync_cli.spec import SAMPLE_RATE_HZ

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


@pytest.mark.slow
@pytest.mark.repeats
def test_every_container_and_rate_of_the_wild_gets_an_answer(bundled):
    """No error, whatever the file: mp4, mkv, webm, 22 to 60 fps, 160 to 1080 lines."""
    rows = [row for row in validation_rows() if not row["file"].startswith("broadcast")]
    for row in rows[::3]:
        report = check_file(CORPUS / row["file"], engine=bundled, end_s=6.0)
        assert report.status in ("in_sync", "out_of_sync", "undetermined")
        assert report.tracks, row["file"]
        assert report.fps == pytest.approx(float(row["fps"]), rel=0.05)


ZERO_MOVED_FRAMES = 1.0  # the manifest's estimates are of the zero before, by which leads were 40 ms larger


def test_broadcast_clips_agree_with_their_source(bundled):
    """Clips of this source lie 0.7 frames apart among themselves, hence the frame and a half."""
    rows = [row for row in validation_rows() if row["file"].startswith("broadcast")][::5]
    leads = [check_file(CORPUS / row["file"], engine=bundled).audio_lead_frames for row in rows]
    errors = [
        abs(lead - (float(row["source_lead_frames"]) - ZERO_MOVED_FRAMES))
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


@pytest.mark.slow
@pytest.mark.repeats
def test_a_voice_in_opposite_phase_or_under_a_hum_is_heard_as_it_is_alone(bundled, tmp_path):
    rows = [row for row in validation_rows() if row["file"].startswith("wild")][::12]
    for row in rows:
        sound = read_sound_file(CORPUS / row["file"]).samples[: 6 * SAMPLE_RATE_HZ]
        hum = np.sin(2 * np.pi * 50 * np.arange(len(sound)) / SAMPLE_RATE_HZ)
        hum *= 2 * np.sqrt(2 * np.mean(sound**2))  # 6 dB above the voice
        leads_ms = {}
        for name, channels in {
            "alone": [sound],
            "opposed": [sound, -sound],
            "beside a hum": [sound, hum],
            "under a hum": [sound + hum],
        }.items():
            path = tmp_path / f"{name}.wav"
            soundfile.write(path, np.stack(channels, axis=1) / 4, SAMPLE_RATE_HZ, subtype="FLOAT")
            report = check_file(CORPUS / row["file"], audio=path, engine=bundled, end_s=5.0)
            assert report.reason != "no_speech", (row["file"], name)
            leads_ms[name] = report.audio_lead_ms
        if leads_ms["alone"] is not None:
            assert leads_ms["opposed"] == pytest.approx(leads_ms["alone"], abs=1)
            for name in ("beside a hum", "under a hum"):
                assert leads_ms[name] == pytest.approx(leads_ms["alone"], abs=20), (row["file"], name)


@pytest.mark.slow
@pytest.mark.repeats
def test_an_echo_as_loud_as_the_voice_is_seldom_followed(bundled, tmp_path):
    """The voice again 400 ms later: two offsets fit, and which is the mouth's is chance."""
    answered = 0
    rows = [row for row in validation_rows() if row["file"].startswith("wild")][::6]
    for row in rows:
        sound = read_sound_file(CORPUS / row["file"]).samples[: 6 * SAMPLE_RATE_HZ]
        delay = round(0.4 * SAMPLE_RATE_HZ)
        sound[delay:] += sound[:-delay].copy()
        soundfile.write(tmp_path / "echo.wav", sound / 4, SAMPLE_RATE_HZ, subtype="FLOAT")
        report = check_file(CORPUS / row["file"], audio=tmp_path / "echo.wav", engine=bundled, end_s=6.0)
        answered += report.audio_lead_ms is not None
    assert answered <= 0.3 * len(rows)
