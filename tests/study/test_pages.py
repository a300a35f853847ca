"""docs/studies.md: blocks and figures from made-up figures."""

import re

import pytest
from made_up_figures import MADE, made_up_tasks, write_figures
from stage_project import tree
from tiny import ROOT

from pipeline.files import read_json, write_json
from pipeline.layout import Layout
from pipeline.readme import fill
from pipeline.study import figures_learning, figures_methods, pages_learning, pages_methods
from pipeline.study.figures import draw_studies
from pipeline.study.pages import study_blocks
from stages._studies import STUDIES

SENTENCES = pages_learning.SENTENCES | pages_methods.SENTENCES


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return write_figures(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def blocks(layout):
    return study_blocks(layout)


def sentences(layout, name):
    return SENTENCES[name](read_json(layout.metric(name), ""))


def test_every_study_is_told_and_drawn():
    told = {*STUDIES} - {"schedules", "objectives"}  # those are in docs/learning.md
    assert {*MADE} == {*SENTENCES} == told
    assert {*figures_learning.DRAWN, *figures_methods.DRAWN} == told


def test_the_page_has_every_block_and_how_to_ask_again():
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert re.findall(r"^<!-- generated: (\S+)-study -->$", text, re.MULTILINE) == list(MADE)
    assert fill(text, dict.fromkeys(study_blocks(Layout(ROOT, "study"))), "") == text
    for name in MADE:
        assert f"python -m stages.study --profile study --only {name}" in text
    for experiment in re.findall(r"dvc exp run.*", text):
        assert experiment.count("'") % 2 == 0


@pytest.mark.parametrize("name", MADE)
def test_blocks_are_whole(name, blocks):
    text = blocks[f"{name}-study"]
    assert text.startswith("![") and f"](images/study_{name}.png)" in text
    assert text.endswith("commit 0123456789.\n") and "None" not in text and "nan" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({row.count("|") for row in table.splitlines()}) == 1
    assert tables and "\n- " in text


def test_budgets_are_told_with_their_intervals(layout):
    before, one, helps, enough = sentences(layout, "budget")
    assert re.search(r"all 900 images of each task: \d\.\d\d points more accurate than not", before)
    assert "On 1 image of each task: " in one and "points less accurate" in one
    assert helps == "Learning helps from 16 images of each task on."
    assert enough.startswith("No loss can be seen from 256 images on: not to be told from")


def test_a_budget_that_is_enough_by_chance_is_not_told(layout):
    figures = read_json(layout.metric("budget"), "")
    figures["rows"]["4"]["beside"]["all"] |= {"difference": 0.1, "interval": [-0.1, 0.3]}
    figures["rows"]["256"]["beside"]["all"] |= {"difference": -0.3, "interval": [-0.5, -0.1]}
    said = pages_learning.budget_sentences(figures)
    assert said[-1].startswith("Even 256 images are too few: 0.30 points less accurate")


def test_what_cannot_be_told_apart_is_not_ranked(layout):
    said = sentences(layout, "initial")
    assert said[1:] == [
        "Less accurate than from 0.3, the published value: 0.1, 0.2 and 0.5.",
        "Not to be told from 0.3, the published value: 0.4.",
    ]


def test_numbers_of_tasks_are_told_by_verdict(layout):
    figures = read_json(layout.metric("tasks"), "")
    rows = figures["counts"]
    rows["3"]["adamerging_layerwise"]["beside"]["task_arithmetic"]["interval"] = [-1, 1]
    rows["4"]["adamerging_layerwise"]["beside"]["task_arithmetic"] |= {
        "difference": -2,
        "interval": [-3, -1],
    }
    assert (
        "AdaMerging (layer-wise) beside Task arithmetic: more accurate with 2, 5, 6, 7 and 8; less "
        "with 4; no telling with 3 tasks." in pages_learning.tasks_sentences(figures)
    )


def test_experts_that_know_nothing_are_no_measure(tmp_path):
    layout = write_figures(tmp_path)
    figures = read_json(layout.metric("tasks"), "")
    write_json(layout.metric("tasks"), figures | made_up_tasks(experts=0.0))
    assert "| 2 | \N{EN DASH} |" in study_blocks(layout)["tasks-study"]
    assert not any("% of the experts'" in one for one in sentences(layout, "tasks"))
    assert draw_studies(layout, tmp_path) == len(MADE)


def test_what_reads_labels_is_flagged(blocks):
    lines = [line for line in blocks["selection-study"].splitlines() if line.startswith("| ")]
    flagged = {line.split(" | ")[1] for line in lines if "†" in line}
    assert flagged == {"accuracy on `select` †", "oracle: accuracy on `eval` †"}
    assert "Task arithmetic, tuned on labels † |" in blocks["tasks-study"]


def test_figures_are_the_same_each_time(layout, tmp_path):
    assert draw_studies(layout, tmp_path / "one") == draw_studies(layout, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert set(tree(tmp_path / "one")) == {f"study_{name}.png" for name in MADE}
