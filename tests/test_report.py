"""The words, the fix and the exit codes; the JSON itself is tested through the command line."""

import json
import shlex
from itertools import pairwise, permutations

import pytest

from avsync_cli.display import print_report
from avsync_cli.errors import MediaError
from avsync_cli.report import (
    PassageReport,
    Report,
    TrackReport,
    describe_lead,
    error_report,
    fix_command,
    gravest_exit_code,
)
from avsync_cli.spec import TOLERANCES

ITU = TOLERANCES["itu-detect"]


@pytest.mark.parametrize(
    ("lead_ms", "direction", "words"),
    [
        (80.0, "audio_leads", "audio leads video by 80 ms (2.0 frames)"),
        (-200.0, "audio_lags", "audio lags video by 200 ms (5.0 frames)"),
        (40.0, "in_sync", "audio leads video by 40 ms (1.0 frames)"),
        (-120.0, "in_sync", "audio lags video by 120 ms (3.0 frames)"),
        (0.0, "in_sync", "audio and video are level"),
        (-0.3, "in_sync", "audio and video are level"),
    ],
)
def test_words_and_direction(lead_ms, direction, words):
    assert describe_lead(lead_ms, ITU) == (direction, words)


def test_early_audio_is_delayed_by_the_fix():
    words = shlex.split(fix_command("my video's.mp4", 80.0))
    assert words[words.index("-itsoffset") + 1] == "0.080"
    assert words[words.index("-itsoffset") + 2 :][:2] == ["-i", "my video's.mp4"]
    assert words[-1] == "my video's.synced.mp4"
    assert shlex.split(fix_command("clip", -120.0))[-1] == "clip.synced.mkv"
    assert shlex.split(fix_command("-clip.mp4", 80.0))[2] == "./-clip.mp4"


def test_a_separate_sound_is_what_the_fix_moves():
    words = shlex.split(fix_command("a.mp4", 80.0, audio="b.wav"))
    assert words[words.index("-itsoffset") + 2 :][:2] == ["-i", "b.wav"]
    assert "-0.120" in fix_command("clip.mp4", -120.0)


def test_of_several_sounds_only_the_one_that_was_checked_is_moved():
    words = shlex.split(fix_command("a.mkv", 80.0, audio_stream=1))
    mapped = [value for option, value in pairwise(words) if option == "-map"]
    assert mapped == ["0:v", "0:a", "-0:a:1", "1:a:1"]
    assert shlex.split(fix_command("a.mkv", 80.0)).count("-map") == 2


def test_the_words_for_a_terminal_have_that_command_too(capsys):
    report = Report("a.mkv", "out_of_sync", "early", (-125, 45), audio_lead_ms=80.0)
    print_report(report, audio_stream=1)
    assert fix_command("a.mkv", 80.0, audio_stream=1) in capsys.readouterr().out


def test_one_person_in_three_passages_is_not_three_faces(capsys):
    places_s = (74.9, 200.0, 476.0)
    tracks = tuple(TrackReport(at, at + 2.4, [0, 0, 9, 9], 0.0, 0.9, True, 0.2, []) for at in places_s)
    passages = tuple(PassageReport(at, at + 2.4) for at in (10.0, *places_s))
    report = Report(
        "a.mkv", "in_sync", "", (-125, 45), looked_at_s=9.6, passages=passages, tracks=tracks,
        heard_tracks=(0, 1, 2),
    )  # fmt: skip
    print_report(report)
    said = capsys.readouterr().out
    assert "10 s in 4 passages: who is seen in 3 of them, 74.9 s to 478.4 s" in said
    assert "faces" not in said


@pytest.mark.parametrize(("slope", "word"), [(-24.4, "falls by 24.4 ± 3.0"), (24.4, "grows by 24.4 ± 3.0")])
def test_a_drift_grows_or_falls(capsys, slope, word):
    report = Report(
        "a.mkv", "in_sync", "", (-125, 45), course="drift", drift_ms_per_min=slope,
        drift_uncertainty_ms_per_min=3.0,
    )  # fmt: skip
    print_report(report)
    assert f"audio lead {word} ms a minute" in capsys.readouterr().out


def test_the_gravest_code_wins_in_any_order():
    order = (0, 3, 1, 4, 5, 70)
    for codes in permutations(order, 3):
        assert gravest_exit_code(codes) == max(codes, key=order.index)
    assert gravest_exit_code([]) == 0


def test_json_has_no_nan():
    report = Report(
        "a.mp4", "undetermined", "m", (-125, 45), curve=[float("nan"), 1.23456789], fps=29.97002997
    )
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["curve"] == [None, 1.2346]


@pytest.mark.parametrize("reason", ["no_audio", "no_video", "unreadable"])
def test_an_error_report_keeps_the_reason(reason):
    report = error_report("a.mp4", MediaError("a.mp4: why", reason), ITU)
    assert (report.status, report.reason, report.exit_code) == ("error", reason, 4)
    assert report.message == "a.mp4: why"
