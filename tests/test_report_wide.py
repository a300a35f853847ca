"""The page of many tasks: nothing written over anything else, tables that fit a screen."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from browser import A4, Browser, needs_browser
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_artifacts import EVERY, write_artifacts, write_config

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report import build_report
from pipeline.report.content import read_content
from pipeline.report.page import DRAWERS
from pipeline.report.style import drawing, settle

LAYERED = ("block", "layer")
SEVERAL = [name for name in METHODS if METHODS[name].defaults.get("granularity") in LAYERED]
UNLABELED = EVERY | {
    "learn": {"methods": [m for m in EVERY["learn"]["methods"] if not METHODS[m].reads("labels")]},
    "merge": EVERY["merge"] | {"options": {}},
}
PAGES = {
    "8 tasks": ("vit-b-32", {}),
    "14 tasks": ("vit-b-32-14", {}),
    "20 tasks": ("vit-b-32-20", {}),
    "20 tasks, four heat maps": ("vit-b-32-20", {"learn": {"methods": SEVERAL}}),
    "every method": ("mini", EVERY),
    "20 tasks, every method": ("vit-b-32-20", UNLABELED),
}
HAIR = 1.5  # pixels of 100 to the inch: a text's box is that much larger than its ink


@pytest.fixture(scope="module", params=PAGES.values(), ids=PAGES)
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    name, changes = request.param
    changes = {**changes, "generalization": {"leave_two_out": True}}
    return write_config(tmp_path_factory.mktemp("wide"), name, **changes)


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config, steps=40, images=4)


def corners(text: Text) -> np.ndarray:
    """The box of a drawn text as it is turned, pixels [4, 2]."""
    box = text.get_window_extent()
    if text.get_rotation_mode() != "anchor":
        return box.corners()[[0, 1, 3, 2]]
    angle = np.deg2rad(text.get_rotation())
    text.set_rotation(0)
    flat = text.get_window_extent().corners()[[0, 1, 3, 2]]
    text.set_rotation(np.rad2deg(angle))
    anchor = text.get_transform().transform(text.get_position())
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (flat - anchor) @ turn.T + anchor


def collide(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two turned boxes share more than a hair: no side of either has a gap behind it."""
    for box in (one, other):
        for side in (box[1] - box[0], box[2] - box[1]):
            first, second = (points @ (side / np.hypot(*side)) for points in (one, other))
            if min(first.max() - second.min(), second.max() - first.min()) < HAIR:
                return False
    return True


def collisions(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a drawn figure that are written over each other."""
    drawn: list[Text] = []
    with mock.patch.object(Text, "draw", autospec=True, side_effect=lambda t, _: drawn.append(t)):
        figure.draw_without_rendering()
    shown = [text for text in drawn if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), corners(text)) for text in shown]
    return [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if collide(one, other)]


def test_collisions_are_found() -> None:
    figure = Figure()
    for place, rotation in ((0.2, 90), (0.21, 90), (0.5, 40), (0.6, 40)):
        figure.text(place, 0.5, f"{place}", rotation=rotation, rotation_mode="anchor")
    assert collisions(figure) == [("0.2", "0.21")]


def test_no_text_is_written_over_another(config: Config, layout: Layout) -> None:
    content = read_content(config, layout)
    with drawing():
        for draw in DRAWERS:
            plot = draw(content)
            assert plot is not None
            settle(plot.figure)
            assert (plot.name, collisions(plot.figure)) == (plot.name, [])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@needs_browser
def test_accuracy_fits_a_screen(config: Config, layout: Layout, browser: Browser) -> None:
    page = build_report(config, layout)
    browser.open(page, 1280)
    assert browser.overflow("#accuracy .scroll") == 0
    for width in (360, 1280):
        browser.open(page, width)
        assert browser.overflow("html") == 0
    browser.open(page, A4, media="print")
    assert browser.cut() == []
    assert browser.overflow("html") == 0


@needs_browser
def test_tables_of_eight_tasks_fit_a_screen(tmp_path: Path, browser: Browser) -> None:
    conditions = ["each", "mixture", "stream", "small", "imbalanced"]
    adapted = {"methods": SEVERAL[:1], "severity": 3, "conditions": conditions}
    changes = EVERY | {
        "robustness": {"adapted": adapted},
        "generalization": {"leave_two_out": True},
        "seeds": [0, 1, 2],
    }
    config = write_config(tmp_path, **changes)
    page = build_report(config, write_artifacts(config, steps=2, images=4))
    browser.open(page, 1280)
    for table in ("calibration", "robustness", "adapted", "split-1", "pairs"):
        selector = f".scroll[aria-labelledby=table-{table}]"
        assert (table, browser.overflow(selector)) == (table, 0)
