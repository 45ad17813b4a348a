"""The page and the plot of a check: whole, by themselves, escaped, and readable without their figures."""

import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest
from test_cli import assert_one_line, avsync

from avsync_cli.errors import ConfigError
from avsync_cli.glimpses import encode_jpeg
from avsync_cli.report import Report, StepReport, TimelinePoint, TrackReport
from avsync_cli.sights import HeatMap, Sights, Strip
from avsync_cli.sound import Sound
from avsync_cli.timecode import parse_timecode

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

from avsync_cli.pages import describe_for_clients, render_page
from avsync_cli.plots import course_of, write_plot

FPS = Fraction(30_000, 1001)
REPORT = Report(
    "<b>a & b</b>.mp4",
    "out_of_sync",
    "audio leads video by 80 ms (2.0 frames)",
    (-125.0, 45.0),
    audio_lead_ms=80.0,
    uncertainty_ms=20.0,
    confidence=0.97,
    duration_s=600.0,
    timeline=tuple(TimelinePoint(10.0 * n, 10.0 * n + 10, 80.0, 0.9, 20.0) for n in range(60)),
    tracks=(TrackReport(0, 600, [0, 0, 9, 9], 80.0, 0.9, True, 0.2, [0.0] * 31),),
    curve=[float(n == 17) for n in range(31)],
)


def sights() -> Sights:
    random = np.random.default_rng(0)
    heat = HeatMap(
        np.arange(120) * 5.0, 5.0, (np.arange(31) - 15) * 40.0, random.random((120, 31), np.float32)
    )
    mouths = [random.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(20)]
    strip = Strip(25, 2, mouths, Sound(random.standard_normal(64_000).astype(np.float32) / 9, 0))
    face = encode_jpeg(random.integers(0, 255, (96, 96, 3), np.uint8))
    return Sights(heat, strip, {0: face}, parse_timecode("10:00:00;00", FPS))


class Reader(HTMLParser):
    """Tags and texts of a page; raises where a tag is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(REPORT, sights())


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_a_page_needs_nothing_else_and_is_small(page):
    assert len(page.encode()) < 1_000_000
    tags = read(page).tags
    links = [
        value for _, values in tags for name, value in values.items() if name in ("src", "href", "xlink:href")
    ]
    assert links
    assert all(str(link).startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\((?!#)", page)
    assert ("script", {}) in tags, "the only one, and inline"


def test_what_comes_from_the_file_is_escaped(page):
    reader = read(page)
    assert "b" in {tag for tag, _ in reader.tags}
    assert "<b>a & b</b>.mp4" in reader.texts
    assert "<b>a &" not in page


def test_every_picture_has_words(page):
    tags = read(page).tags
    assert all(values.get("alt") for tag, values in tags if tag == "img")
    figures = [values for tag, values in tags if values.get("role") == "img"]
    assert len(figures) == page.count("<svg") == 4
    assert all("+80 ms" in figure["aria-label"] or "offset" in figure["aria-label"] for figure in figures)


def test_it_tells_the_verdict_the_mend_and_the_timecode(page):
    texts = read(page).texts
    assert any("Voices are heard 80 ms before lips move (2.0 frames)." in text for text in texts)
    assert any(text.startswith("avsync fix ") for text in texts)
    assert any("0:10.0 (10:00:10;00)" in text for text in texts)
    assert any('"audio_lead_ms": 80.0' in text for text in texts)


@pytest.mark.parametrize(
    "report",
    [
        Report("a", "undetermined", "cannot tell: no face was found", (-125, 45), reason="no_face"),
        Report("a", "error", "a: no audio", (-125, 45), reason="no_audio"),
        replace(REPORT, course="drift", drift_ms_per_min=9.0, drift_start_ms=-10.0),
        replace(REPORT, course="steps", steps=(StepReport(30, 1, 0.0, 80.0),)),
    ],
)
def test_every_kind_of_report_has_a_page(report):
    nothing = Sights(None, None, {}, None)
    assert report.message.removeprefix("cannot tell: ") in render_page(report, nothing).replace("&#39;", "'")


def test_words_for_clients():
    small = replace(REPORT, status="in_sync", audio_lead_ms=-30.0)
    assert describe_for_clients(small) == (
        "Voices are heard 30 ms after lips move (0.8 frames), which few people notice."
    )
    assert describe_for_clients(replace(small, audio_lead_ms=5.0)) == "Voices are heard when lips move."


def test_the_course_is_a_line():
    steps = replace(REPORT, steps=(StepReport(30, 1, 0.0, 80.0), StepReport(60, 1, 80.0, -40.0)))
    assert course_of(steps, 0, 90) == ([0, 30, 30, 60, 60, 90], [0.0, 0.0, 80.0, 80.0, -40.0, -40.0])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_is_written(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_plot(REPORT, sights(), path)
    assert path.read_bytes()[:5] == {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-"}[suffix]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("first", "time_s", "expected"),
    [
        ("10:00:00:00", 1.0, "10:00:01:00"),
        ("00:00:59;29", Fraction(1001, 30_000), "00:01:00;02"),
        ("00:09:59;29", Fraction(1001, 30_000), "00:10:00;00"),
        ("01:00:00;00", 3600.0, "02:00:00;00"),
        ("23:59:59;29", Fraction(1001, 30_000), "00:00:00;00"),
    ],
)
def test_timecode(first, time_s, expected):
    rate = FPS if ";" in first else Fraction(25)
    assert parse_timecode(first, rate).at(float(time_s)) == expected


@pytest.mark.parametrize("text", ["", "1:2:3:4", "00:00:00:25", "00:60:00:00", "10:00:00"])
def test_what_is_no_timecode(text):
    with pytest.raises(ConfigError, match="timecode"):
        parse_timecode(text, Fraction(25))


def test_from_end_to_end(tmp_path, heads, handmade):
    page, plot = tmp_path / "a.html", tmp_path / "a.png"
    shown = ("--report", page, "--plot", plot, "--model", handmade)
    result = avsync("check", heads[160], *shown, "--timecode", "01:00:00:00")
    assert (result.returncode, result.stderr) == (1, "")
    text = page.read_text()
    assert text.count("<svg") == 4
    assert "data:image/jpeg" in text
    assert "(01:00:04:00)" in text
    assert plot.stat().st_size > 10_000
    both = avsync("check", heads[0], heads[160], *shown)
    assert both.returncode == 2
    assert_one_line(both, "--report", "one video")
    own = avsync("check", heads[0], "--report", heads[0], "--model", handmade)
    assert (own.returncode, "the input" in own.stderr) == (2, True)
