"""What the page tells beside figures: cost, options, what was not measured, block by block maps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_artifacts import EVERY, Page, write_artifacts, write_config

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.readme import accuracy_block
from pipeline.report import build_report
from pipeline.report.accuracy import options_note
from pipeline.report.content import Content, read_content
from pipeline.report.cost import LEAST, cost_table, costs
from pipeline.report.heatmaps import NUMBERED, block_coefficients
from pipeline.report.style import drawing
from pipeline.report.tables import NOTHING
from pipeline.report.unmeasured import unmeasured


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    options = {"wudi": {"solve": "closed"}, "ties": {"keep": 0.2}}
    methods = ["pretrained", "task_arithmetic", "ties", "wudi", "experts"]
    merge = {"methods": methods, "options": options}
    return write_config(tmp_path_factory.mktemp("told"), merge=merge)


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config, steps=30, images=6)


@pytest.fixture
def content(config: Config, layout: Layout) -> Content:
    return read_content(config, layout)


def test_options_that_differ_from_the_defaults_are_said(config: Config, layout: Layout) -> None:
    note = "Options that are not the defaults: WUDI-merging (solve closed)."
    assert options_note(config, config.methods) == note
    assert note in accuracy_block(config, layout)
    assert options_note(config, ["ties", "pretrained"]) == ""


def test_coefficients_from_a_file_are_said(tmp_path: Path) -> None:
    file = {"adamerging_layerwise": {"path": "published.json", "sha256": "0" * 64}}
    config = write_config(tmp_path, learn={"coefficients": file})
    title = METHODS["adamerging_layerwise"].title
    note = f"Options that are not the defaults: {title} (coefficients from published.json)."
    assert options_note(config, config.methods) == note


def test_the_cost_of_learning_is_said(content: Content) -> None:
    best = content.best
    assert best is not None and METHODS[best].learns
    [sentence] = costs(content)
    seconds = 0.5 + content.methods.index(best)
    assert sentence == (
        f"It took {METHODS[best].title} 41.5 s to learn its coefficients in 30 steps (schedule "
        f"fast) and {seconds} s to merge, on Example CPU with 2 cores and no GPU; the stage learn, "
        "all methods in turn, peaked at 1.4 GB of memory."
    )


def test_a_model_that_learns_nothing_costs_its_merge(content: Content) -> None:
    content.clean["wudi"]["avg"] = 90.0
    merged, learned = costs(replace(content, merging={"wudi": LEAST / 2}))
    assert merged.startswith(f"It took WUDI-merging less than {LEAST} s to merge, on Example CPU")
    assert "the stage merge" in merged
    assert "AdaMerging" in learned and "to learn its coefficients" in learned


def test_no_record_no_cost(content: Content) -> None:
    bare = replace(content, learned={}, merging={}, runs=())
    assert [*costs(bare)] == []
    assert cost_table(bare) is None


def test_costs_of_all_methods_are_a_table(content: Content) -> None:
    table = cost_table(content)
    assert table is not None
    rows = {row.method: [cell.text for cell in row.cells] for row in table.rows}
    assert list(rows) == list(content.methods)
    place = content.methods.index("adamerging_taskwise")
    assert rows["adamerging_taskwise"] == ["30", "41.5", f"{0.5 + place:.2f}"]
    assert rows["ties"][:2] == [NOTHING, NOTHING]


def test_what_was_not_measured_follows_the_profile(content: Content, tmp_path: Path) -> None:
    text = " ".join(unmeasured(content))
    assert "one was run" in text
    for task in content.tasks:
        tested = task in content.config.profile.robustness.tasks
        assert (content.task_titles[task] in text) != tested
    assert "Unseen tasks with WUDI-merging" in text
    assert "which every merge starts from" not in text
    changes: dict[str, Any] = {"seeds": [0, 1], "protocol": "transductive"}
    changes["merge"] = {"methods": ["task_arithmetic", "experts"]}
    changes["learn"] = {"methods": ["adamerging_layerwise"]}
    other = replace(content, config=write_config(tmp_path, **changes), leave_two_out={"a": {}})
    text = " ".join(unmeasured(other))
    assert "one was run" not in text
    assert "read the evaluation images themselves" in text
    assert "Other choices of unseen tasks" not in text
    assert "which every merge starts from" in text


def test_the_page_ends_with_what_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.report.page.DRAWERS", ())
    small = write_config(tmp_path)
    layout = write_artifacts(small, steps=2, images=4)
    layout.metric("robustness").unlink()
    page = Page(build_report(small, layout).read_text(encoding="utf-8"))
    assert page.sections[-1] == "unmeasured"
    text = " ".join(page.text.split())
    assert "not at hand: robustness. python -m stages.robustness adds it." in text


@pytest.mark.parametrize(
    ("name", "changes"),
    [("mini", EVERY), ("vit-b-32-20", {}), ("vit-b-32", {})],
    ids=["every method", "20 tasks", "8 tasks"],
)
def test_coefficients_of_blocks_have_numbers(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    config = write_config(tmp_path, name, **changes)
    content = read_content(config, write_artifacts(config, steps=2, images=4))
    with drawing():
        plot = block_coefficients(content)
    assert plot is not None
    panels = [axes for axes in plot.figure.axes if axes.get_title("left")]
    assert len(panels) == len(plot.data["methods"])
    for axes, by_task in zip(panels, plot.data["methods"].values(), strict=True):
        shown = [text.get_text() for text in axes.texts]
        blocks = range(len(plot.data["blocks"]))
        assert shown == [f"{column[k]:.2f}" for k in blocks for column in by_task.values()]
        assert len(by_task) <= NUMBERED
