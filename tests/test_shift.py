"""Sound moved inside real files, and what the measures make of a student's answers."""

import numpy as np
import pytest
from clips import click_track, find_clicks, write_clip
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.media import open_media
from training.data.corpus import Clip
from training.evaluation.evaluate import count_outcomes, evaluate, markdown, write_result
from training.evaluation.measures import (
    Answered,
    Outcome,
    audited,
    counted_in,
    halves,
    judge,
    mismatched,
    other_clip,
    shifts,
    truth,
)
from training.evaluation.shift import shift_audio

CLICKS_S = (0.5, 1.1, 1.6)


def clicks_of(path):
    """Times of the clicks on the clock of the pictures, and how many pictures there are."""
    with open_media(path) as media:
        pictures = sum(1 for _ in media.pictures())
        sound = media.sound()
    found = find_clicks(sound.samples, rate=16_000)
    return np.array(found) + sound.first_sample / 16_000, pictures


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("frames", [-12, -3, 0, 7])
def test_sound_moves_by_exactly_that(tmp_path, suffix, frames):
    codecs = {"video_codec": "libvpx", "audio_codec": "libopus"} if suffix == ".webm" else {}
    sound = click_track(CLICKS_S, seconds=2.0, rate=48_000)
    source = write_clip(tmp_path / f"source{suffix}", sound=sound, **codecs)
    before, pictures = clicks_of(source)
    moved = shift_audio(source, tmp_path, frames=frames)
    after, same_pictures = clicks_of(moved)
    assert moved.suffix == suffix
    assert same_pictures == pictures
    assert np.abs(after - before - frames * 0.040).max() < 0.0015


def test_containers_without_start_times_become_matroska(tmp_path):
    sound = click_track(CLICKS_S, seconds=2.0, rate=48_000)
    source = write_clip(tmp_path / "source.ts", sound=sound, audio_codec="mp2")
    before, _ = clicks_of(source)
    moved = shift_audio(source, tmp_path, frames=7)
    assert moved.suffix == ".mkv"
    assert np.abs(clicks_of(moved)[0] - before - 0.28).max() < 0.0015


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"x\.mp4"):
        shift_audio(tmp_path / "x.mp4", tmp_path, frames=3)


def clip_of(path, *, seconds=4.0, lead=None):
    return Clip(f"wild/{path.name}", "val", "made", False, seconds, 48_000, lead or 0.0, lead)


@pytest.mark.slow
@pytest.mark.parametrize("lead_ms", [pytest.param(0, marks=pytest.mark.repeats), 160])
def test_measures_of_a_talking_head(heads, engine, lead_ms):
    path = heads[lead_ms]
    told = truth(clip_of(path, lead=lead_ms / 40), path, engine)
    assert [outcome.result for outcome in told] == ["right"]
    wrong = truth(clip_of(path, lead=lead_ms / 40 + 5), path, engine)
    assert [outcome.result for outcome in wrong] == ["wrong"]
    assert [o.result for o in audited(clip_of(path, lead=lead_ms / 40), path, engine)] == ["right"] * 2
    off = audited(clip_of(path, lead=lead_ms / 40 - 3), path, engine)  # as if 120 ms early
    assert [(o.measure, o.result) for o in off] == [("audited", "wrong"), ("alarms", "wrong")]
    own, other = (
        mismatched(clip_of(path), path, engine, sound)[0].result for sound in (heads[0], heads[lead_ms])
    )
    assert own == "wrong"  # the sound is in sync, and so it is said
    assert other == ("right" if lead_ms else "wrong")
    assert halves(clip_of(path), path, engine)[0].result in ("right", "refused")
    moved = shifts(clip_of(path), path, engine)
    assert len(moved) == 6
    # This student's confidence is made up, so it may be sure of anything where the truth is out of range.
    inside = [outcome for outcome in moved if abs(outcome.expected_frames) <= 14]
    assert all(outcome.result in ("right", "refused") for outcome in inside)
    assert sum(outcome.result == "right" for outcome in inside) >= 3


def test_judging():
    assert judge(Answered(None, "no_face"), 0.0, 1.0) == "refused"
    assert judge(Answered(1.0, None), 0.0, 1.0) == "right"
    assert judge(Answered(-1.1, None), 0.0, 1.0) == "wrong"


def plain_clip(file, seconds, source="s"):
    return Clip(file, "val", source, False, seconds, 48_000, 0.0, None)


def test_groups_leave_short_clips_out():
    assert counted_in(plain_clip("broadcast/a.mp4", 1.2)) == "broadcast"
    assert counted_in(plain_clip("wild/a.mp4", 1.4)) is None
    assert counted_in(plain_clip("wild/a.mp4", 2.0)) == "wild, 2 to 4 s"
    assert counted_in(plain_clip("wild/a.mp4", 4.0)) == "wild, 4 s or more"


def test_mismatched_sound_comes_from_another_source_and_is_long_enough():
    clips = [plain_clip("a", 2), plain_clip("b", 9), plain_clip("c", 3, "t"), plain_clip("d", 5, "t")]
    assert other_clip(clips[0], clips) == clips[2]
    assert other_clip(clips[3], clips) == clips[1]
    assert other_clip(clips[1], clips) == clips[2]  # none is as long
    assert other_clip(clips[0], clips[:2]) is None


def test_tables_count_and_say_percentages():
    outcomes = [
        Outcome("truth", f"{i}", group, result, 0.0, None, None)
        for i, (group, result) in enumerate(
            [("broadcast", "right"), ("broadcast", "refused"), ("wild, 2 s or more", "wrong")]
        )
    ]
    rows = count_outcomes(outcomes)
    assert [row["group"] for row in rows] == ["all but broadcast", "broadcast", "wild, 2 s or more"]
    assert rows[1]["right_percent"] == 50
    assert rows[1]["right_of_answered_percent"] == 100
    assert "| truth | broadcast | 1 (50.0 %) | 1 (50.0 %) | 0 (0.0 %) | 100.0 % |" in markdown(
        {"measures": rows}
    )


def test_protocol_of_a_student_on_a_cache(handmade, tmp_path):
    cache = make_cache(tmp_path / "cache")
    result = evaluate(handmade, ["protocol"], cache=cache, corpus=None, split="val", jobs=1)
    assert {row["group"] for row in result["protocol"]} >= {"broadcast", "wild"}
    assert "K=15" in markdown(result)
    write_result(tmp_path / "out.json", result)
    assert (tmp_path / "out.json").stat().st_size > 100


def test_what_cannot_be_measured_is_refused(handmade, tmp_path):
    with pytest.raises(ConfigError, match="not one of"):
        evaluate(handmade, ["truht"], cache=None, corpus=None, split="val", jobs=1)
    with pytest.raises(ConfigError, match="needs --corpus"):
        evaluate(handmade, ["truth"], cache=None, corpus=None, split="val", jobs=1)
    with pytest.raises(ConfigError, match="needs --cache"):
        evaluate(handmade, ["protocol"], cache=None, corpus=tmp_path, split="val", jobs=1)
