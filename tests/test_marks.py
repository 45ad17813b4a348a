"""Marks for editors: at the pictures that they belong to, in timecode, and read back by another reader."""

import csv
import re
from dataclasses import replace
from fractions import Fraction
from xml.etree import ElementTree

import numpy as np
import pytest
from clips import write_clip
from talking import RATE, TalkingHead, syllables, voice
from test_cli import assert_one_line, avsync

from avsync_cli.check import check_and_keep
from avsync_cli.findings import Findings
from avsync_cli.marks import gather_marks, write_marks
from avsync_cli.options import CheckOptions
from avsync_cli.report import PassageReport, Report, StepReport, TimelinePoint
from avsync_cli.speakers import Verdict
from avsync_cli.timecode import Clock, parse_timecode

otio = pytest.importorskip("opentimelineio", reason="needs the extra `markers`")

NTSC = Fraction(30_000, 1001)
REPORT = Report(
    "a\n<b> & c.mp4",
    "out_of_sync",
    "why",
    (-125.0, 45.0),
    duration_s=120.0,
    fps=25.0,
    timeline=(
        TimelinePoint(0.0, 10.0, 20.0, 0.95, 20.0),
        TimelinePoint(10.0, 20.0, 80.0, 0.9, 20.0),
        TimelinePoint(60.0, 70.0, None, 0.1, None),
    ),
    steps=(StepReport(10.0, 0.5, 20.0, 80.0),),
    passages=(PassageReport(0.0, 20.0), PassageReport(60.0, 120.0)),
)
FOUND = Findings([], [], Verdict(None), cuts=(375,))
EXPECTED = [
    (0.0, 10.0, "offset", "audio lead +20 ms, 95% sure"),
    (10.0, 20.0, "offset", "audio lead +80 ms, 90% sure"),
    (10.0, 10.0, "step", "audio lead changes from +20 to +80 ms ± 0.5 s"),
    (15.0, 15.0, "cut", "cut"),
    (20.0, 60.0, "not_looked_at", "not looked at"),
    (60.0, 70.0, "no_offset", "no offset found here"),
]
# First picture, rate, and by hand the timecodes of pictures at 0, 10, 20 and 60 s.
CLOCKS = [
    ("01:00:00:00", Fraction(25), ["01:00:00:00", "01:00:10:00", "01:00:20:00", "01:01:00:00"]),
    # 29.97: picture 300 is the nearest to 10 s, 599 to 20 s, 1798 to 60 s; with drop frame two numbers
    # are left out at 01:01:00.
    ("01:00:00;00", NTSC, ["01:00:00;00", "01:00:10;00", "01:00:19;29", "01:00:59;28"]),
    ("01:00:00:00", NTSC, ["01:00:00:00", "01:00:10:00", "01:00:19:29", "01:00:59:28"]),
    ("10:00:59;28", NTSC, ["10:00:59;28", "10:01:10;00", "10:01:19;29", "10:01:59;28"]),
    (None, Fraction(24_000, 1001), ["00:00:00:00", "00:00:10:00", "00:00:20:00", "00:00:59:23"]),
]


def clock_of(first, rate) -> Clock:
    return Clock(rate, None if first is None else parse_timecode(first, rate))


def test_all_kinds_in_their_order():
    marks = gather_marks(REPORT, FOUND)
    assert [(mark.start_s, mark.end_s, mark.kind, mark.text) for mark in marks] == EXPECTED
    assert [mark.audio_lead_ms for mark in marks] == [20.0, 80.0, 80.0, None, None, None]


@pytest.mark.parametrize(("first", "rate", "expected"), CLOCKS)
def test_timecodes_of_a_csv_and_an_edl(tmp_path, first, rate, expected):
    marks, clock = gather_marks(REPORT, FOUND), clock_of(first, rate)
    for name in ("m.csv", "m.edl"):
        write_marks(marks, REPORT, tmp_path / name, media=None, clock=clock)
    with (tmp_path / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    starts = [expected[(0.0, 10.0, 20.0, 60.0).index(s)] for s in (0.0, 10.0, 10.0, 20.0, 60.0)]
    assert [row["timecode_in"] for row in rows if row["kind"] != "cut"] == starts
    assert rows[4]["timecode_out"] == expected[3]
    assert [row["kind"] for row in rows] == [kind for _, _, kind, _ in EXPECTED]
    text = (tmp_path / "m.edl").read_text()
    located = re.findall(r"^\* LOC: (\S+) (\w+) +(.*)$", text, re.M)
    assert [timecode for timecode, _, words in located if words != "CUT"] == starts
    assert [colour for _, colour, _ in located] == ["GREEN", "RED", "MAGENTA", "WHITE", "BLUE", "YELLOW"]
    event = re.search(r"^001 +AX +V +C +(\S+) (\S+) (\S+) (\S+)$", text, re.M)
    assert (event[1], event[3]) == (expected[0], expected[0]), "marks are in the record's time and the file's"
    assert "\n<b>" not in text


@pytest.mark.parametrize(("first", "rate"), [(first, rate) for first, rate, _ in CLOCKS])
def test_an_edl_is_read_back(tmp_path, first, rate):
    clock = clock_of(first, rate)
    if clock.counted.is_drop:
        pytest.skip("OpenTimelineIO does not read marks of drop frame")
    write_marks(gather_marks(REPORT, FOUND), REPORT, tmp_path / "m.edl", media=None, clock=clock)
    path = str(tmp_path / "m.edl")
    clip = next(iter(otio.adapters.read_from_file(path, rate=round(rate)).find_clips()))
    first_number = clock.counted.first
    frames = [round(mark.marked_range.start_time.value) - first_number for mark in clip.markers]
    assert frames == [round(start_s * rate) for start_s, *_ in EXPECTED]


@pytest.mark.parametrize("suffix", [".otio", ".fcpxml"])
@pytest.mark.parametrize(("first", "rate", "expected"), CLOCKS)
def test_timelines_are_read_back(tmp_path, monkeypatch, suffix, first, rate, expected):
    del expected
    (tmp_path / "ffprobe").write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    (tmp_path / "ffprobe").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    media, path = tmp_path / "a & <b>.mp4", tmp_path / f"m{suffix}"
    media.write_bytes(b"")
    clock = clock_of(first, rate)
    write_marks(gather_marks(REPORT, FOUND), REPORT, path, media=media, clock=clock)
    assert not (tmp_path / "was-run").exists(), "no other program reads the file"
    timeline = otio.adapters.read_from_file(str(path))
    clip = next(iter(timeline.find_clips()))
    texts = [(mark.name, mark.color if suffix == ".otio" else None) for mark in clip.markers]
    colours = ["GREEN", "RED", "MAGENTA", "WHITE", "BLUE", "YELLOW"] if suffix == ".otio" else [None] * 6
    assert texts == [(text, colour) for (*_, text), colour in zip(EXPECTED, colours, strict=True)]
    if suffix == ".otio":
        starts = [mark.marked_range.start_time.value - clock.counted.first for mark in clip.markers]
        lengths = [mark.marked_range.duration.value for mark in clip.markers]
        assert starts == [round(start_s * rate) for start_s, *_ in EXPECTED]
        assert lengths == [
            max(1, round(end_s * rate) - round(start_s * rate)) for start_s, end_s, *_ in EXPECTED
        ]
        assert clip.markers[1].metadata["avsync"]["audio_lead_ms"] == 80.0
        assert clip.media_reference.target_url == media.as_uri()


@pytest.mark.parametrize(("first", "rate", "expected"), CLOCKS)
def test_fcpxml_says_moments_in_seconds_that_are_whole_pictures(tmp_path, first, rate, expected):
    del expected
    clock, path = clock_of(first, rate), tmp_path / "m.fcpxml"
    write_marks(gather_marks(REPORT, FOUND), REPORT, path, media=tmp_path / "a.mp4", clock=clock)
    root = ElementTree.fromstring(path.read_text())
    assert root.find("resources/format").get("frameDuration") == f"{rate.denominator}/{rate.numerator}s"
    [clip] = root.iter("clip")
    begin_s = Fraction((clip.get("start") or "0s").rstrip("s"))
    assert begin_s == clock.counted.first / rate
    starts_s = [Fraction(mark.get("start").rstrip("s")) - begin_s for mark in clip.iter("marker")]
    assert starts_s == [round(start_s * rate) / rate for start_s, *_ in EXPECTED]


def test_an_edl_without_a_timecode_for_its_rate_is_refused(tmp_path):
    odd = Clock(Fraction(29, 2), None)
    with pytest.raises(Exception, match=r"m\.edl: .*14\.5 pictures a second.*name a \.csv or \.otio"):
        write_marks(gather_marks(REPORT, FOUND), REPORT, tmp_path / "m.edl", media=None, clock=odd)
    assert list(tmp_path.iterdir()) == []
    write_marks(gather_marks(REPORT, FOUND), REPORT, tmp_path / "m.otio", media=None, clock=odd)


def test_a_whole_look_has_nothing_that_was_not_looked_at():
    whole = replace(REPORT, passages=(PassageReport(0.0, 119.98),))
    assert "not_looked_at" not in {mark.kind for mark in gather_marks(whole, FOUND)}
    nothing = replace(REPORT, passages=(), timeline=(), steps=())
    assert [(m.start_s, m.end_s) for m in gather_marks(nothing, replace(FOUND, cuts=()))] == [(0.0, 120.0)]


def test_a_cut_is_found_at_its_picture(tmp_path, engine):
    loudness = syllables(6)
    head = TalkingHead(loudness, fps=Fraction(25))

    def paint(number: int) -> np.ndarray:
        picture = head(number)
        return picture if number < 47 else np.ascontiguousarray(picture[:, ::-1])

    path = write_clip(
        tmp_path / "a.mp4", seconds=4, paint=paint, sound=voice(loudness)[: 4 * RATE], rate=RATE
    )
    _, findings = check_and_keep(path, CheckOptions(), engine)
    assert findings.cuts == (47,)


def test_from_end_to_end(tmp_path, heads, handmade):
    table, edl = tmp_path / "m.csv", tmp_path / "m.edl"
    shown = ("check", heads[160], "--model", handmade, "--timecode", "10:00:00:00", "--markers")
    result = avsync(*shown, edl)
    assert (result.returncode, result.stderr) == (1, "")
    assert re.search(r"^\* LOC: 10:00:00:00 RED +AUDIO LEAD \+1[5-7]\d MS", edl.read_text(), re.M)
    assert avsync(*shown, table).returncode == 1
    [row] = csv.DictReader(table.read_text().splitlines())
    assert (row["timecode_in"], row["timecode_out"]) == ("10:00:00:00", "10:00:04:00")
    assert float(row["audio_lead_ms"]) == pytest.approx(160, abs=20)
    again = avsync(*shown, table)
    assert again.returncode == 2
    assert_one_line(again, "exists already", "--overwrite")
    unknown = avsync("check", heads[0], "--markers", tmp_path / "m.xml")
    assert unknown.returncode == 2
    assert_one_line(unknown, "m.xml", ".fcpxml")
