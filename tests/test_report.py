"""The words, the fix and the exit codes; the JSON itself is tested through the command line."""

import json
import shlex
from itertools import pairwise, permutations

import pytest

from avsync_cli.display import print_report
from avsync_cli.errors import MediaError
from avsync_cli.fix_lines import avsync_command, fix_command
from avsync_cli.report import (
    PassageReport,
    Report,
    TrackReport,
    error_report,
    gravest_exit_code,
    judge_lead,
)
from avsync_cli.spec import TOLERANCES, parse_tolerance

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
    status = "in_sync" if direction == "in_sync" else "out_of_sync"
    assert judge_lead(lead_ms, ITU) == (status, direction, words)


@pytest.mark.parametrize("lead_ms", [-125.1, -125.0, -45.0, -0.3, 0.0, 0.3, 0.1, 44.6, 45.0, 45.2, 90.0])
@pytest.mark.parametrize("limits", ["-0.1,0.1", "-0.3,0.3", "-125,45", "-1,1e6", "-1e-9,1e-9"])
def test_status_direction_and_words_never_contradict_one_another(lead_ms, limits):
    tolerance = parse_tolerance(limits)
    status, direction, words = judge_lead(lead_ms, tolerance, 0.0)
    assert (status == "in_sync") == (direction == "in_sync") == tolerance.contains(lead_ms)
    if status == "out_of_sync":
        assert {"audio_leads": "audio leads", "audio_lags": "audio lags"}[direction] in words
        assert "level" not in words
        assert " 0 ms" not in words


@pytest.mark.parametrize(
    ("lead_ms", "uncertainty_ms", "limit"),
    [
        (30.0, 20.0, "+45"), (60.0, 20.0, "+45"), (45.0, 0.0, "+45"), (-140.0, 20.0, "-125"),
        (24.0, 20.0, None), (66.0, 20.0, None), (-100.0, 20.0, None), (0.0, 20.0, None), (40.0, None, None),
    ],
)  # fmt: skip
def test_a_lead_within_its_uncertainty_of_a_limit_is_at_the_limit(lead_ms, uncertainty_ms, limit):
    status, _, words = judge_lead(lead_ms, ITU, uncertainty_ms)
    assert status == ("in_sync" if ITU.contains(lead_ms) else "out_of_sync")  # as without it
    assert words.endswith(f", at the limit of {limit} ms") == (limit is not None)
    assert ("at the limit" in words) == (limit is not None)


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
    assert mapped == ["0", "-0:a:1", "1:a:1"]
    assert "-map 0 -map -0:a -map 1:a" in fix_command("a.mkv", 80.0)


def test_the_words_for_a_terminal_have_both_commands(capsys):
    report = Report("a.mkv", "out_of_sync", "early", (-125, 45), audio_lead_ms=80.0, audio_stream=1)
    print_report(report, audio_stream=1)
    said = capsys.readouterr().out
    assert "to fix     avsync fix a.mkv --audio-stream 1\n" in said
    assert f"or         {fix_command('a.mkv', 80.0, audio_stream=1)}\n" in said


@pytest.mark.parametrize("name", ["a.avi", "a.mxf", "a.ts", "a.m2ts", "a.mpg", "a.ogv"])
def test_no_command_where_ffmpeg_does_not_get_it_right(name):
    assert fix_command(name, 80.0) is None


def test_cmd_exe_is_quoted_in_its_own_way():
    words = fix_command(r"C:\my films\a & b (1).mp4", 80.0, windows=True)
    assert r'-i "C:\my films\a & b (1).mp4" -itsoffset' in words
    assert words.endswith(r'"C:\my films\a & b (1).synced.mp4"')
    assert r" -i C:\films\a.mp4 " in fix_command(r"C:\films\a.mp4", 80.0, windows=True)
    assert "'" not in words


def test_the_command_of_avsync_asks_what_was_asked():
    report = Report("a b.avi", "out_of_sync", "", (-60, 40), audio_lead_ms=80.0, course="steps")
    words = shlex.split(avsync_command(report, windows=False))
    assert words == ["avsync", "fix", "a b.avi", "--segments", "--tolerance", "-60,40"]
    default = Report("a.mp4", "out_of_sync", "", (-125.0, 45.0), audio_lead_ms=80.0, course="drift")
    assert avsync_command(default, windows=False) == "avsync fix a.mp4 --resample"


def test_one_person_in_three_passages_is_not_three_faces(capsys):
    places_s = (74.9, 200.0, 476.0)
    tracks = tuple(TrackReport(at, at + 2.4, [0, 0, 9, 9], 0.0, 0.9, True, 0.2, []) for at in places_s)
    passages = tuple(PassageReport(at, at + 2.4) for at in (10.0, *places_s))
    report = Report(
        "a.mkv", "in_sync", "", (-125, 45), duration_s=600.0, looked_at_s=9.6, passages=passages,
        tracks=tracks, heard_tracks=(0, 1, 2),
    )  # fmt: skip
    print_report(report)
    said = capsys.readouterr().out
    assert "10 s of 10 min in 4 places: who is seen in 3 of them, 74.9 s to 478.4 s" in said
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


def test_a_report_is_short_in_a_list_and_a_table_in_a_notebook():
    report = Report("<a>.mp4", "out_of_sync", "audio leads video by 80 ms", (-125, 45), audio_lead_ms=80.0,
                    confidence=1.0, uncertainty_ms=20.0, curve=[0.1] * 31)  # fmt: skip
    assert repr(report) == "<Report <a>.mp4: out of sync: audio leads video by 80 ms, over 99% sure>"
    assert "<td>&lt;a&gt;.mp4</td>" in report._repr_html_()
    assert report.to_dict() == report.to_json()


def test_nothing_is_certain():
    tracks = (TrackReport(0, 1, [0, 0, 9, 9], 0.0, 1.0, True, 0.2, []),)
    report = Report("a.mp4", "in_sync", "m", (-125, 45), confidence=0.99999, tracks=tracks).to_json()
    assert report["confidence"] == report["tracks"][0]["confidence"] == 0.9999
