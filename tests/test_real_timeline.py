"""Real footage put together so that the truth is known: two people and one voice, edits, drifts, 2 s."""

from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from clips import write_clip
from test_real import CORPUS, bundled, pytestmark  # noqa: F401

from avsync_cli.check import check_file
from avsync_cli.media import open_media, read_sound_file

RATE = 16_000
TALKERS = (
    "wild/lip2speech__77000_gt-9680b7c8.mp4",
    "wild/lip2speech__271000_gt-3328e797.mp4",
    "wild/Generating-Audio-Driven-__unseen_gt-54975219.mkv",
    "wild/lip2speech__215000_gt-17cbff7b.mp4",
    "wild/lip2speech__401000_gt-1516b627.mp4",
)
SECONDS = 10.0


@cache
def pictures_of(name: str) -> list[np.ndarray]:
    """250 pictures at 25 fps, 256 x 256, the last one repeated where there are fewer."""
    with open_media(CORPUS / name) as media:
        shown = [cv2.resize(picture.rgb, (256, 256)) for picture in media.pictures(end_s=SECONDS)]
    return shown + shown[-1:] * (250 - len(shown))


def voice_of(name: str) -> np.ndarray:
    """The sound from the first picture on, float32 at 16 kHz."""
    return read_sound_file(CORPUS / name).samples[: round(SECONDS * RATE)]


def write_pair(path: Path, left: str, right: str, sound: np.ndarray) -> Path:
    """Two people side by side."""
    pairs = list(zip(pictures_of(left), pictures_of(right), strict=True))
    return write_clip(
        path, fps=Fraction(25), seconds=SECONDS, paint=lambda k: np.hstack(pairs[k]), sound=sound, rate=RATE
    )


def with_sound(folder: Path, sound: np.ndarray) -> Path:
    soundfile.write(folder / "sound.wav", sound, RATE)
    return folder / "sound.wav"


@pytest.mark.parametrize(
    "number",
    [0, *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.repeats]) for n in range(1, len(TALKERS)))],
)
def test_of_two_people_the_one_whose_voice_it_is_speaks(bundled, tmp_path, number):  # noqa: F811
    left, right = TALKERS[number], TALKERS[(number + 1) % len(TALKERS)]
    alone = check_file(CORPUS / left, engine=bundled, end_s=SECONDS)
    report = check_file(write_pair(tmp_path / "pair.mp4", left, right, voice_of(left)), engine=bundled)
    assert [track.speaking for track in report.tracks[:2]] == [True, False]
    assert report.audio_lead_ms == pytest.approx(alone.audio_lead_ms, abs=30)


def test_the_voice_of_neither_is_no_answer(bundled, tmp_path):  # noqa: F811
    video = write_pair(tmp_path / "pair.mp4", TALKERS[0], TALKERS[1], voice_of(TALKERS[2]))
    report = check_file(video, engine=bundled)
    assert (report.status, report.reason) == ("undetermined", "no_match")


def test_a_still_face_under_a_voice_is_no_visible_speaker(bundled, tmp_path):  # noqa: F811
    still = pictures_of(TALKERS[2])[0]
    rng = np.random.default_rng(0)

    def grain(_: int) -> np.ndarray:
        return (still + rng.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8)

    video = write_clip(tmp_path / "still.mp4", seconds=6, paint=grain, sound=voice_of(TALKERS[0]), rate=RATE)
    assert check_file(video, engine=bundled).reason == "no_visible_speaker"


@pytest.mark.parametrize("lead_s", [2.0, pytest.param(-2.0, marks=[pytest.mark.slow, pytest.mark.repeats])])
def test_two_seconds_are_found_by_themselves_and_when_asked_for(bundled, tmp_path, lead_s):  # noqa: F811
    video, sound = CORPUS / TALKERS[0], read_sound_file(CORPUS / TALKERS[0]).samples
    moved = sound[round(lead_s * RATE) :] if lead_s > 0 else np.pad(sound, (round(-lead_s * RATE), 0))
    level = check_file(video, engine=bundled)
    usual = check_file(video, audio=with_sound(tmp_path, moved), engine=bundled)
    wide = check_file(video, audio=with_sound(tmp_path, moved), engine=bundled, range_frames=60)
    assert (level.range_frames, usual.range_frames, wide.range_frames) == (15, 100, 60)
    for far in (usual, wide):
        assert far.audio_lead_ms - level.audio_lead_ms == pytest.approx(1000 * lead_s, abs=20)


def test_an_edit_in_the_middle_is_a_step(bundled, tmp_path):  # noqa: F811
    sound = read_sound_file(CORPUS / TALKERS[0]).samples
    edited = np.delete(sound, slice(9 * RATE, 9 * RATE + 2560))  # 160 ms are lost: early from then on
    report = check_file(CORPUS / TALKERS[0], audio=with_sound(tmp_path, edited), engine=bundled)
    assert (report.status, report.course) == ("out_of_sync", "steps")
    (step,) = report.steps
    assert abs(step.at_s - 9) <= max(1.0, step.uncertainty_s)
    assert step.to_ms - step.from_ms == pytest.approx(160, abs=25)


@pytest.mark.slow
@pytest.mark.repeats
def test_two_seconds_of_sound_cut_out_of_a_programme_are_found(bundled, tmp_path):  # noqa: F811
    """60 s of people one after the other; what follows the cut is early by more than the usual range."""
    people = [*TALKERS, TALKERS[1]]
    shown = [picture for name in people for picture in pictures_of(name)]
    voices = [np.pad(voice, (0, round(SECONDS * RATE) - len(voice))) for voice in map(voice_of, people)]
    sound = np.delete(np.concatenate(voices), slice(30 * RATE, 32 * RATE))
    video = write_clip(
        tmp_path / "programme.mp4", seconds=60, paint=lambda k: shown[k], sound=sound, rate=RATE
    )
    report = check_file(video, engine=bundled, full=True)
    assert (report.status, report.course) == ("out_of_sync", "steps")
    assert any(abs(step.at_s - 30) <= 2 for step in report.steps)
    assert report.audio_lead_ms == pytest.approx(2000, abs=150)


@pytest.mark.slow
@pytest.mark.repeats
def test_a_voice_that_runs_too_fast_drifts(bundled, tmp_path):  # noqa: F811
    """One talker four times over, the sound of a tenth of a percent too fast throughout: 60 ms a minute."""
    talker = TALKERS[0]
    rounds = 6
    sound = np.tile(voice_of(talker), rounds)
    times = np.arange(len(sound)) * 1.001
    fast = np.interp(times, np.arange(len(sound)), sound).astype(np.float32)
    shown = pictures_of(talker)
    video = write_clip(
        tmp_path / "loop.mp4",
        seconds=SECONDS * rounds,
        paint=lambda k: shown[k % len(shown)],
        sound=fast,
        rate=RATE,
    )
    report = check_file(video, engine=bundled, full=True)
    assert report.course == "drift"
    assert abs(report.drift_ms_per_min - 60) <= max(15, report.drift_uncertainty_ms_per_min)
