"""The page of `avsync web` as people have it, in Chromium: drop, wait, read, take the mended copy, remove."""

import base64
import os
import re
import shutil

import pytest
from browser import LONG_MS, WIDTHS_PX, find_chromium, open_browser
from test_browser import SCHEMES, assert_reached, assert_readable

pytest.importorskip("playwright", reason="needs playwright, of the extra `dev`")
pytest.importorskip("starlette", reason="needs the extra `web`")
pytest.importorskip("uvicorn", reason="needs the extra `web`")

from playwright.sync_api import expect
from web_site import run_web

from avsync_cli.check import check_file

if find_chromium() is None:
    pytest.skip("needs Chromium: apt-get install chromium, or AVSYNC_CHROMIUM", allow_module_level=True)

pytestmark = pytest.mark.browser
NAME, BROKEN, FOUND = "talk <b>&amp;'\".mp4", "broken.mkv", "season 1/found.mp4"
DROP = """async ({ files }) => {
  const carried = new DataTransfer();
  for (const { name, data } of files)
    carried.items.add(new File([Uint8Array.from(atob(data), each => each.charCodeAt())], name));
  for (const kind of ["dragover", "drop"])
    document.getElementById("drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""

# What a file's row says of its state, and the value of its bar, if it has one; the next look undoes it.
SHOW = """async ({ name, told }) => {
  const { files } = await ask("GET", `/api/files?tab=${tab}`), file = files.find(each => each.name === name);
  const row = rows.get(file.key), bar = row.querySelector("progress");
  showFile(row, { ...file, ...told });
  return [row.querySelector(".doing").textContent, bar.checkVisibility() ? bar.value : null];
}"""


class Tabs:
    """A browser that was shown the address; what its tabs say and ask for."""

    def __init__(self, browser, address: str) -> None:
        self.browser, self.home = browser, address.partition("?")[0]
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        self.context.set_default_timeout(LONG_MS)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.note(self.context)
        self.page = self.context.new_page()
        self.page.goto(address)
        self.page.wait_for_url(self.home)

    def note(self, context) -> None:
        context.on("console", lambda message: self.said.append(message.text))
        context.on("weberror", lambda error: self.said.append(str(error.error)))
        context.on("request", lambda request: self.asked.append(request.url))

    def another(self, width: int = 1280, scheme: str = "light"):
        """A tab of the same browser, of another size."""
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(LONG_MS)
        context.add_cookies(self.context.cookies())
        self.note(context)
        page = context.new_page()
        page.goto(self.home)
        page.locator("li.file").first.wait_for()
        return page

    def drop(self, **files: bytes) -> None:
        """Drop files by their names, which are those of no other file."""
        given = [{"name": name, "data": base64.b64encode(data).decode()} for name, data in files.items()]
        self.page.evaluate(DROP, {"files": given})
        for name in files:
            row_of(self.page, name).wait_for()


def row_of(page, name: str):
    return page.locator("li.file").filter(has=page.get_by_role("heading", name=name, exact=True))


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def dropped(heads):
    """Two files by name, the second broken."""
    return {NAME: heads[160].read_bytes(), BROKEN: heads[160].read_bytes()[:3000]}


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory, heads, handmade):
    """A page without files."""
    root = tmp_path_factory.mktemp("root")
    (root / FOUND).parent.mkdir()
    shutil.copy(heads[0], root / FOUND)
    options = ("--model", handmade, "--root", root, "--max-upload-mb", 5)
    with run_web(*options) as (_, address):
        opened = Tabs(browser, address)
        yield opened
        opened.context.close()
        said = [line for line in opened.said if "413" not in line]  # what Chromium says of any refusal
        assert said == []
        assert all(url.startswith((opened.home, "data:", "blob:")) for url in opened.asked)


@pytest.fixture
def tabs(opened, dropped):
    """After the two files were dropped and read, whatever tests came before."""
    opened.drop(**{name: data for name, data in dropped.items() if not row_of(opened.page, name).count()})
    row_of(opened.page, NAME).get_by_text("Out of sync.").wait_for()
    row_of(opened.page, BROKEN).get_by_text("Could not be checked.").wait_for()
    return opened


def test_a_video_is_dropped_read_and_mended(opened, dropped, engine, heads, tmp_path):
    page = opened.page
    for old in page.get_by_role("button", name="Remove:").all():
        old.click()
    expect(page.locator("li.file")).to_have_count(0)
    opened.drop(**dropped)
    row = row_of(page, NAME)
    row.get_by_text("Out of sync.").wait_for()
    expected = check_file(heads[160], engine=engine)
    expect(row).to_contain_text("before lips move")
    expect(row, "as `avsync check` says").to_contain_text(f"{expected.message}, over 99% sure, ±")
    expect(page.locator("#told"), "and it is said aloud").to_contain_text(
        re.compile("^" + "|^".join(map(re.escape, dropped)))
    )
    bad = row_of(page, BROKEN)
    bad.get_by_text("Could not be checked.").wait_for()
    assert not bad.get_by_role("link").count()

    with page.expect_popup() as opening:
        row.get_by_role("link", name="Report").click()
    report = opening.value
    expect(report.locator("h1")).to_have_text(NAME)
    expect(report.locator(".figures svg").nth(2)).to_be_attached()
    assert report.evaluate("origin") == "null", "a report may be anybody's work"
    report.get_by_role("button", name="Copy the JSON").click()
    report.locator("#copied").filter(has_text="cop").wait_for()
    report.close()

    row.get_by_role("button", name="Make a mended copy").click()
    link = row.get_by_role("link", name="Download the mended copy")
    link.wait_for()
    with page.expect_download() as downloading:
        link.click()
    download = downloading.value
    assert download.suggested_filename.endswith(".synced.mp4")
    download.save_as(tmp_path / "copy.mp4")
    after = check_file(tmp_path / "copy.mp4", engine=engine)
    assert after.status == "in_sync"
    assert abs(after.audio_lead_ms) < 40


@pytest.mark.parametrize(
    ("state", "share", "words", "value"),
    [
        ("uploading", 0.25, "sending, 25 %", 0.25),
        ("waiting", None, "waiting for its turn", None),
        ("checking", None, "checking", 0),
        ("checking", 0.409, "checking, 40 %", 0.409),
        ("checking", 1, "writing the report", 1),
    ],
)
def test_it_is_shown_how_far_a_file_is(tabs, state, share, words, value):
    """A real check may be over before a page asks how far it is, so the page is told."""
    told = tabs.page.evaluate(SHOW, {"name": NAME, "told": {"state": state, "share": share, "verdict": None}})
    assert told == [words, value]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS_PX)
def test_it_fits_and_can_be_read(tabs, width, scheme):
    page = tabs.another(width, scheme)
    if folder := os.environ.get("AVSYNC_SHOTS"):
        page.screenshot(path=f"{folder}/web-{width}-{scheme}.png", full_page=True)
    assert_readable(page, width, scheme, more_than=15)
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input")].filter(each => each.checkVisibility()
          && each.getBoundingClientRect().height < 32).map(each => each.outerHTML.slice(0, 80))"""
    )
    assert small == [], "a finger hits everything"
    page.context.close()


def test_the_keyboard_reaches_everything(tabs):
    page = tabs.another()
    assert_reached(page, more_than=5, around="#drop")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, progress")].filter(each => each.checkVisibility()
          && !each.ariaLabel && !each.labels?.[0]?.textContent.trim()).map(each => each.outerHTML)"""
    )
    assert nameless == []
    page.context.close()


def test_two_tabs_show_the_same_and_the_folder_is_checked_where_it_is(tabs):
    first, second = tabs.page, tabs.context.new_page()
    second.goto(tabs.home)
    row_of(second, NAME).get_by_text("Out of sync.").wait_for()
    second.get_by_role("button", name=f"Check: {FOUND}").click()
    for page in (first, second):
        row_of(page, FOUND).get_by_text("In sync.").wait_for()
    assert not row_of(first, FOUND).get_by_role("button", name="Make a mended copy").count()
    first.set_input_files("#choose", [{"name": "big.mp4", "mimeType": "video/mp4", "buffer": bytes(6 << 20)}])
    row_of(second, "big.mp4").get_by_text("larger than the 5 MB").wait_for()
    first.locator("#trouble").get_by_text("big.mp4: larger than the 5 MB").wait_for()
    row_of(second, BROKEN).get_by_role("button", name="Remove").click()
    row_of(first, BROKEN).wait_for(state="detached")
    second.get_by_role("button", name="Remove all").click()
    for page in (first, second):
        expect(page.locator("li.file")).to_have_count(0)
    second.close()


def test_another_browser_is_told_why_it_stays_outside(tabs):
    context = tabs.browser.new_context(viewport={"width": 390, "height": 700})
    page = context.new_page()
    assert page.goto(tabs.home).status == 403
    expect(page.locator("h1")).to_have_text("This page is closed")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()


def test_the_end_is_told(browser, handmade):
    with run_web("--model", handmade) as (process, address):
        page = browser.new_page()
        page.set_default_timeout(LONG_MS)
        page.goto(address)
        page.locator("#drop").wait_for()
        assert page.locator("#folder").is_hidden()
        process.terminate()
        process.wait(60)
        page.get_by_role("alert").get_by_text("avsync has ended").wait_for()
        page.close()
