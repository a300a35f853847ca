"""The page in a real browser: nothing fails, nothing is loaded, it fits phone, screen and paper."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import A4, Browser, needs_browser
from report_artifacts import write_artifacts, write_config

from pipeline.report import build_report

# Relative luminance and contrast: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio
CONTRAST = """
(() => {
  const light = text => text.match(/[0-9.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
    .reduce((sum, x, place) => sum + x * [.2126, .7152, .0722][place], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return ["p", ".note", "td", "th a", "figcaption", "svg text", "summary"].map(name => {
    const one = document.querySelector(name), style = getComputedStyle(one);
    const ink = light(one.closest("svg") ? style.fill : style.color);
    return [name, (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05)];
  });
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = write_config(tmp_path_factory.mktemp("shown"), seeds=[0, 1])
    return build_report(config, write_artifacts(config))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_page_loads_and_fits(browser: Browser, page: Path, width: int, dark: bool) -> None:
    look = browser.open(page, width, dark)
    assert look.errors == []
    assert look.requests == []
    assert browser.overflow("html") == 0
    for name, contrast in browser.evaluate(CONTRAST):
        assert contrast >= 4.5, name


@needs_browser
def test_a_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    body = "<div style='width: 500px'>wide</div><img src='absent.png'><script>missing()</script>"
    page.write_text(f"<!DOCTYPE html><body style='margin: 0'>{body}")
    look = browser.open(page, 360)
    assert any("missing is not defined" in error for error in look.errors)
    assert [address.rpartition("/")[2] for address in look.requests] == ["absent.png"]
    assert browser.overflow("html") == 140


@needs_browser
def test_every_picture_is_named(browser: Browser, page: Path) -> None:
    browser.open(page, 1440)
    nameless = """
    [...document.querySelectorAll("img, main figure svg, .scroll")].filter(one => {
      const by = one.getAttribute("aria-labelledby");
      const name = one.alt || one.getAttribute("aria-label") || document.getElementById(by);
      return !name || one.tagName == "svg" && one.getAttribute("role") != "img";
    }).length
    """
    assert browser.evaluate("document.querySelectorAll('main figure svg').length") > 5
    assert browser.evaluate("document.querySelectorAll('.sample img').length") > 20
    assert browser.evaluate(nameless) == 0
    broken = "[...document.images].filter(one => !one.naturalWidth).length"
    assert browser.evaluate(broken) == 0


@needs_browser
def test_nothing_is_cut_on_paper(browser: Browser, page: Path) -> None:
    browser.open(page, A4, dark=True, media="print")
    assert browser.cut() == []
    assert browser.overflow("html") == 0
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    # Closed as they are on a screen, the parameters are on paper none the less.
    assert browser.evaluate("document.querySelector('details').open") is False
    assert browser.evaluate("document.querySelector('details pre').checkVisibility()") is True


@needs_browser
def test_page_prints(browser: Browser, page: Path) -> None:
    browser.open(page, 1440)
    paper = browser.paper()
    assert paper.startswith(b"%PDF-")
    sheets = len(re.findall(rb"/Type\s*/Page\b", paper))
    assert 8 <= sheets <= 25
    assert b"/URI (https://arxiv.org/abs/2310.02575)" in paper
