"""Our figures on corrupted images beside published ones: only where they are of the same thing."""

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from published_artifacts import AS_ORIGINAL, clean_of, read_file, write_published_config
from report_artifacts import Page, write_artifacts

from pipeline.config import Config
from pipeline.files import write_json
from pipeline.merging.methods import METHODS
from pipeline.report import build_report
from pipeline.report.beside_corrupted import NOTE
from pipeline.report.comparison import compare
from pipeline.report.content import Content
from pipeline.report.published import title

TASKS = ["cars", "eurosat", "resisc45", "gtsrb"]
CORRUPTIONS = (
    *("motion_blur", "impulse_noise", "gaussian_noise", "pixelate"),
    *("spatter", "contrast", "jpeg_compression"),
)
LEARNED = "adamerging_layerwise"
ROBUSTNESS: dict[str, Any] = {
    "tasks": TASKS,
    "corruptions": [*CORRUPTIONS],
    "severities": [2],
    "scale": "published",
    "images": 13000,
    "adapted": {"methods": [LEARNED], "severity": 2, "conditions": ["each"]},
}


def printed(method: str, corruption: str) -> float:
    """The mean over tasks of what is printed, read without the module under test."""
    found = [
        float(row["accuracy_percent"])
        for row in read_file()
        if (row["table"], row["checkpoint_family"]) == ("robustness", "hf")
        and (row["method"], row["corruption"]) == (method, corruption)
    ]
    return sum(found) / len(found)


def config_of(root: Path, **changes: Any) -> Config:
    """A profile as vit-b-32-4. Its images are drawn, so it is asked for with another scale."""
    robustness = ROBUSTNESS | changes.pop("robustness", {})
    scale = robustness.pop("scale")
    changes = {"tasks": TASKS, "generalization": {"splits": {}}} | changes
    config = write_published_config(root, robustness=robustness, **changes)
    asked = config.profile.robustness.model_copy(update={"scale": scale})
    profile = config.profile.model_copy(update={"robustness": asked})
    return config.model_copy(update={"profile": profile})


def robustness_of(config: Config, added: float = 0.0) -> dict[str, Any]:
    """Metrics equal to the published ones, but for `added` to AdaMerging under contrast.

    AdaMerging's of clean images are 9 points lower: nothing may be compared with those.
    """
    clean, adapted = {}, {}
    for method in ("task_arithmetic", "ties", LEARNED):
        by = {name: {"2": printed(method, name)} for name in CORRUPTIONS}
        if method == LEARNED:
            by["contrast"]["2"] += added
            adapted[method] = {"corruptions": by, "avg": mean(v["2"] for v in by.values())}
            by = {name: {"2": value["2"] - 9} for name, value in by.items()}
        average = mean(value["2"] for value in by.values())
        clean[method] = {"clean": printed(method, "clean"), "corruptions": by, "avg": average}
    return {"clean": clean, "adapted": adapted, "conditions": {}}


def content_of(config: Config, added: float = 0.0) -> Content:
    return Content(config, clean_of(config), robustness=robustness_of(config, added))


def test_every_figure_stands_beside_its_own(tmp_path: Path) -> None:
    comparison = compare(content_of(config_of(tmp_path)))
    table = comparison.corrupted
    assert table is not None
    assert [line.method for line in table.lines] == ["task_arithmetic", "ties", LEARNED]
    names = ("clean", *CORRUPTIONS)
    for line in table.lines:
        theirs = [printed(line.method, name) for name in names]
        theirs.append(mean(theirs[1:]))
        assert [pair.theirs for pair in line.pairs] == pytest.approx(theirs)
        assert {pair.difference for pair in line.pairs} == {0.0}
    assert len(table.columns) == len(names) + 1
    assert NOTE in comparison.notes
    assert "FusionBench documentation" in comparison.sources


def test_adapted_figures_are_flagged_by_their_own_tolerance(tmp_path: Path) -> None:
    table = compare(content_of(config_of(tmp_path), added=-1.2)).corrupted
    flagged = [(line.method, column) for line, column, pair in table.compared if pair.outside]
    assert flagged == [(LEARNED, "Contrast")]


def test_what_was_not_adapted_is_not_compared(tmp_path: Path) -> None:
    content = content_of(config_of(tmp_path))
    alone = replace(content, robustness={**content.robustness, "adapted": {}})
    table = compare(alone).corrupted
    assert [line.method for line in table.lines] == ["task_arithmetic", "ties"]


def test_methods_not_run_here_are_listed(tmp_path: Path) -> None:
    elsewhere = compare(content_of(config_of(tmp_path))).elsewhere
    place = elsewhere.columns.index("Corrupted images")
    found = {row: cells[place] for row, cells in elsewhere.rows}
    for method in ("wemoe", "fisher", "regmean"):
        average = mean(printed(method, name) for name in CORRUPTIONS)
        assert found[title(method)] == f"{average:.1f}"
    assert METHODS["ties"].title not in found


OTHERS = [
    ({"tasks": [*TASKS, "mnist"]}, {}, "a merge of"),
    ({}, {"scale": "adamerging"}, "made with scale adamerging"),
    ({}, {"tasks": TASKS[:3]}, "means over"),
    ({}, {"severities": [1, 3], "adapted": ROBUSTNESS["adapted"] | {"severity": 3}}, "severity 2"),
    ({}, {"corruptions": [*CORRUPTIONS[1:]]}, "motion_blur was not tested here"),
]


@pytest.mark.parametrize(("changes", "asked", "why"), OTHERS, ids=[one[-1] for one in OTHERS])
def test_figures_of_something_else_are_refused(
    tmp_path: Path, changes: dict[str, Any], asked: dict[str, Any], why: str
) -> None:
    config = config_of(tmp_path, robustness=asked, **changes)
    comparison = compare(content_of(config))
    assert comparison.corrupted is None
    [note] = [one for one in comparison.notes if "corrupted images" in one]
    assert note.startswith("Figures on corrupted images are not compared: ")
    assert why in note


def test_nothing_is_said_where_nothing_is_printed(tmp_path: Path) -> None:
    comparison = compare(content_of(config_of(tmp_path, **AS_ORIGINAL)))
    assert comparison.corrupted is None
    assert not any("orrupted images" in note for note in comparison.notes)


def test_page_shows_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.page.DRAWERS", ())
    config = config_of(tmp_path)
    layout = write_artifacts(config, steps=2, images=4)
    write_json(layout.metric("clean"), clean_of(config))
    write_json(layout.metric("robustness"), robustness_of(config, added=-1.2))
    page = Page(build_report(config, layout).read_text(encoding="utf-8"))
    [table] = [one for one in page.tables if one[0][1:3] == ["Without corruption", "Motion blur"]]
    by = {row[0]: row for row in table}
    ours = printed(LEARNED, "contrast") - 1.2
    cell = by[METHODS[LEARNED].title][table[0].index("Contrast")]
    assert cell.startswith(f"▼ {ours:.1f} (")
    assert NOTE in page.text
