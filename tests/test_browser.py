"""The pages as readers have them, in Chromium: wide and narrow, light and dark, by keyboard, on paper."""

import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from browser import LONG_MS, WIDTHS_PX, find_chromium, make_records, open_browser
from test_pages import REPORT, sights

pytest.importorskip("pypdf", reason="needs pypdf, of the extra `dev`")
pytest.importorskip("playwright", reason="needs playwright, of the extra `dev`")
pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")

import pypdf
from playwright.sync_api import expect

from avsync_cli.batch.overview import PAGES, write_overview
from avsync_cli.pages import write_page
from avsync_cli.report import PassageReport

if find_chromium() is None:
    pytest.skip("needs Chromium: apt-get install chromium, or AVSYNC_CHROMIUM", allow_module_level=True)

pytestmark = pytest.mark.browser
FILES = 250
SCHEMES = ("light", "dark")
expect.set_options(timeout=LONG_MS)
LEAST_CONTRAST, LEAST_CONTRAST_LARGE = 4.5, 3.0  # WCAG 2.2, AA

CONTROLS = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")]
  .filter(each => !each.disabled && each.checkVisibility())"""

# Of each visible text its colour, those of the grounds below it from the nearest on, and how large it is.
TEXTS = """() => {
  const holds = (one, other) => {
    const around = one.getBoundingClientRect(), within = other.getBoundingClientRect();
    return around.left <= within.left + 1 && around.right >= within.right - 1;
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), holder = walker.currentNode.parentElement;
    if (!text || !holder.checkVisibility()) continue;
    if (holder.closest("script, style, noscript, button:disabled")) continue;
    const style = getComputedStyle(holder), grounds = [];
    const frame = holder.closest("g[id^=legend]")?.querySelector("path"), size = parseFloat(style.fontSize);
    if (frame && holds(frame, holder))
      grounds.push([getComputedStyle(frame).fill, parseFloat(getComputedStyle(frame).opacity)]);
    for (let each = holder; each; each = each.parentElement)
      grounds.push([getComputedStyle(each).backgroundColor, 1]);
    found.push({ text, ink: holder instanceof SVGElement ? style.fill : style.color, grounds,
      large: size >= 24 || (size >= 18.66 && style.fontWeight >= 700) });
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / PAGES).mkdir()
    write_overview(make_records(FILES), folder)
    report = replace(REPORT, passages=(PassageReport(0, 60), PassageReport(300, 360)), looked_at_s=120.0)
    write_page(report, sights(), folder / "report.html")
    write_page(
        replace(report, file="x" * 300 + ".mp4", status="undetermined", audio_lead_ms=None, timeline=()),
        replace(sights(), timecode=None, strip=None, faces={}),
        folder / "long.html",
    )
    return {"scan": folder / "index.html", "report": folder / "report.html", "long": folder / "long.html"}


class Shown:
    """A page that was opened, and what the browser said and asked for meanwhile."""

    def __init__(self, browser, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.set_default_timeout(LONG_MS)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *_) -> None:
        self.context.close()


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def parse(colour: str) -> tuple[list[float], float]:
    """Red, green and blue of a computed colour, in 0..1, and how opaque it is."""
    assert colour.startswith("rgb"), colour
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].replace("/", ",").split(",")]
    return [number / 255 for number in numbers[:3]], numbers[3] if len(numbers) > 3 else 1.0


def contrast(text: dict) -> float:
    """The contrast of a text with its ground; what a transparent ground lies on is black at worst."""
    ink, ink_opacity = parse(text["ink"])
    assert ink_opacity == 1
    ground = [0.0, 0.0, 0.0]
    for colour, opacity in reversed(text["grounds"]):
        over, share = parse(colour)
        share *= opacity
        under = [0.0, 0.0, 0.0] if 0 < opacity < 1 else ground
        ground = [share * one + (1 - share) * other for one, other in zip(over, under, strict=True)]
    high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_of_contrast_is_right():
    def measured(ink: str, ground: str) -> float:
        return contrast({"ink": ink, "grounds": [["rgba(0, 0, 0, 0)", 1], [ground, 1]]})

    assert measured("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert measured("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


def assert_readable(page, width, scheme, *, more_than):
    """Everything fits, so many texts have contrast, and the ground is as the scheme says."""
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
    texts = page.evaluate(TEXTS)
    assert len(texts) > more_than
    for text in texts:
        least = LEAST_CONTRAST_LARGE if text["large"] else LEAST_CONTRAST
        assert contrast(text) >= least, (text["text"], text["ink"], text["grounds"])
    ground = parse(page.evaluate("getComputedStyle(document.body).backgroundColor"))[0]
    assert (luminance(ground) > 0.5) == (scheme == "light")


def assert_reached(page, *, more_than, around=""):
    """The keyboard reaches so many controls. What shows where one is may be an element `around` it."""
    total = page.evaluate(f"({CONTROLS})().length")
    assert total > more_than
    page.evaluate(f"({CONTROLS})().forEach((each, place) => each.dataset.place = place)")
    reached = []
    for _ in range(total):
        page.keyboard.press("Tab")
        place, outline = page.evaluate(
            """around => { const on = document.activeElement, outer = (around && on.closest(around)) || on;
              return [on.dataset.place, getComputedStyle(outer).outlineStyle]; }""",
            around,
        )
        reached.append(int(place))
        assert outline != "none", "and it is seen where one is"
    assert reached == sorted(reached) == list(range(total)), "each once, in the order of reading"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS_PX)
@pytest.mark.parametrize("name", ["report", "long", "scan"])
def test_it_is_quiet_fits_and_can_be_read(browser, pages, name, width, scheme):
    with Shown(browser, pages[name], width, scheme) as shown:
        if folder := os.environ.get("AVSYNC_SHOTS"):
            shown.page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=name != "scan")
        assert_readable(shown.page, width, scheme, more_than=20)
        assert shown.said == []
        assert [url for url in shown.asked if not url.startswith("data:")] == [pages[name].as_uri()]


@pytest.mark.parametrize("width", WIDTHS_PX)
@pytest.mark.parametrize("name", ["report", "scan"])
def test_the_keyboard_reaches_everything(browser, pages, name, width):
    with Shown(browser, pages[name], width) as shown:
        page = shown.page
        assert_reached(page, more_than=3)
        unreachable = page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter(each => each.checkVisibility()
              && ["auto", "scroll"].includes(getComputedStyle(each).overflowX)
              && (each.scrollWidth > each.clientWidth || each.scrollHeight > each.clientHeight)
              && each.tabIndex < 0 && !each.querySelector("a, button"))
              .map(each => each.outerHTML.slice(0, 80))"""
        )
        assert unreachable == []


@pytest.mark.parametrize("name", ["report", "long", "scan"])
def test_what_is_seen_has_words(browser, pages, name):
    with Shown(browser, pages[name]) as shown:
        silent = shown.page.evaluate(
            """() => [...document.querySelectorAll("img, svg, button, input, select, a, [tabindex]")]
              .filter(each => !(each.alt || each.ariaLabel || each.labels?.[0]?.textContent.trim()
                || (each instanceof HTMLElement && each.textContent.trim())
                || each.closest("[role=img][aria-label]")))
              .map(each => each.outerHTML.slice(0, 80))"""
        )
        assert silent == []
        assert shown.page.evaluate("document.documentElement.lang") == "en"
        assert len(shown.page.title()) > 5


def printed(shown: Shown) -> tuple[list[str], object]:
    reader = pypdf.PdfReader(BytesIO(shown.page.pdf(prefer_css_page_size=True)))
    return [page.extract_text() for page in reader.pages], reader.pages[0].mediabox


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_report_is_printed_on_a4(browser, pages, scheme):
    with Shown(browser, pages["report"], scheme=scheme) as shown:
        texts, box = printed(shown)
        assert (round(box.width), round(box.height)) == (595, 842)
        text = " ".join(" ".join(texts).split())
        for words in (
            "<b>a & b</b>.mp4",
            "Out of sync.",
            "Voices are heard 80 ms before lips move (2.0 frames).",
            "avsync fix",
            "+80 ms ± 20 ms",
            "0:00.0 (10:00:00;00)",
            "9:50.0 (10:09:50;00)",  # the last row of the timeline
            "audio lead in ms",
            "120.0 s of 600.0 s",
        ):
            assert words in text
        assert "Copy the JSON" not in text
        shown.page.emulate_media(media="print", color_scheme=scheme)
        colours = shown.page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"], "black on white, whatever the screen"


def test_all_files_that_are_shown_are_printed(browser, pages):
    with Shown(browser, pages["scan"]) as shown:
        text = "".join("".join(printed(shown)[0]).split())
        names = {record["file"] for record in make_records(FILES)}
        assert all("".join(name.split()) in text for name in names)
        assert f"{FILES}of{FILES}" in text
        expect(shown.page.locator("#rows tr"), "as before").to_have_count(100)


def leads(page) -> list[int | None]:
    texts = page.locator("#rows td:nth-child(3)").all_inner_texts()
    return [int(text.replace("\N{MINUS SIGN}", "-")) if text else None for text in texts]


def test_all_files_are_sorted_searched_and_left_through(browser, pages):
    records = list(make_records(FILES))
    answered = sorted(round(r["audio_lead_ms"]) for r in records if r["audio_lead_ms"] is not None)
    with Shown(browser, pages["scan"]) as shown:
        page = shown.page
        head = page.get_by_role("button", name="Audio lead")
        head.focus()
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Audio lead")
        assert leads(page) == answered[:100]
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort=descending]")).to_contain_text("Audio lead")
        assert leads(page)[0] == answered[-1]
        later = page.get_by_role("button", name="Later rows")
        later.click()
        later.click()
        expect(page.locator("#told")).to_have_text(f"201 to {FILES} of {FILES}")
        expect(later).to_be_disabled()
        assert leads(page)[-1] is None, "what has no lead comes last, whichever the order"
        page.get_by_label("Name or words").fill(" 1/EPISODE  moov atom")
        broken = {r["file"] for r in records if "season 1/" in r["file"] and r["status"] == "error"}
        assert len(broken) > 5
        expect(page.locator("#rows tr")).to_have_count(len(broken))
        assert set(page.locator("#rows th").all_inner_texts()) == broken
        page.get_by_role("button", name="Show all").click()
        page.get_by_label("Verdict").select_option("out_of_sync")
        page.get_by_label("Off by at least").fill("150")
        far = [r for r in records if r["status"] == "out_of_sync" and abs(round(r["audio_lead_ms"])) >= 150]
        expect(page.locator("#rows tr")).to_have_count(min(100, len(far)))
        assert all(abs(lead) >= 150 for lead in leads(page))
        page.get_by_label("Name or words").fill("no such words")
        expect(page.locator("#told")).to_have_text("no file is like that")
        page.get_by_role("button", name="Show all").click()
        expect(page.locator("#rows tr")).to_have_count(100)
        link = page.locator("#rows a").first
        name = link.inner_text()
        link.click()
        expect(page.locator("h1")).to_have_text(name)
        page.get_by_role("link", name="All files").click()
        expect(page.locator("h1")).to_have_text(f"{FILES} files")
        assert shown.said == []


def test_the_json_is_copied_or_marked(browser, pages):
    with Shown(browser, pages["report"]) as shown:
        shown.page.get_by_role("button", name="Copy the JSON").click()
        shown.page.locator("#copied").filter(has_text="cop").wait_for()
        told = shown.page.locator("#copied").inner_text()
        assert told == "copied" or '"audio_lead_ms": 80' in shown.page.evaluate("String(getSelection())")
        assert shown.said == []
