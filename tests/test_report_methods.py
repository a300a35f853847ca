"""A report of every method: looks, what figures show, needs and groups of tables, sentences."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_artifacts import EVERY, Page, write_artifacts, write_config
from report_metrics import compare

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.readme import accuracy_block, methods_block
from pipeline.report import build_report
from pipeline.report.content import Content, competes, is_adamerging, one_per_task, read_content
from pipeline.report.drawn import ALWAYS, MOST, drawn
from pipeline.report.needs import NEEDS, key, needs_of
from pipeline.report.style import LOOKS
from pipeline.report.summary import key_figures, sentences
from pipeline.report.tables import OTHERS


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_config(tmp_path_factory.mktemp("every"), **EVERY)


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config, steps=8, images=6)


@pytest.fixture(scope="module")
def page(config: Config, layout: Layout) -> Page:
    return Page(build_report(config, layout).read_text(encoding="utf-8"))


@pytest.fixture
def content(config: Config, layout: Layout) -> Content:
    return read_content(config, layout)


def said(content: Content) -> str:
    return " ".join(sentences(content)).replace("\N{NO-BREAK SPACE}", " ")


def test_every_method_has_a_look_of_its_own() -> None:
    assert list(LOOKS) == list(METHODS)
    # The line's dashes are a help only: bars and markers have none.
    assert len({(look.colour, look.marker, look.open) for look in LOOKS.values()}) == len(METHODS)


def test_ten_are_drawn_of_many(content: Content) -> None:
    shown = drawn(content, content.methods)
    assert len(shown) == MOST < len(content.methods)
    assert {*ALWAYS} <= {*shown}
    averages = {method: content.clean[method]["avg"] for method in content.methods}
    learned = max(filter(is_adamerging, averages), key=averages.__getitem__)
    others = sorted({*averages} - {*ALWAYS, learned}, key=averages.__getitem__)
    assert {*shown} == {*ALWAYS, learned, *others[-(MOST - len(ALWAYS) - 1) :]}
    assert [method for method in METHODS if method in shown] == list(shown)


def test_the_best_adamerging_is_drawn_even_where_all_others_are_better(content: Content) -> None:
    for method in filter(is_adamerging, content.methods):
        content.clean[method]["avg"] = 20.0 + (method == "adamerging_blockwise")
    shown = drawn(content, content.methods)
    assert list(filter(is_adamerging, shown)) == ["adamerging_blockwise"]


def test_few_methods_are_all_drawn(content: Content) -> None:
    few = content.methods[3 : 3 + MOST]
    assert drawn(content, few) == few


def test_figures_draw_the_chosen_and_say_so(content: Content, layout: Layout, page: Page) -> None:
    def methods(name: str, key: str) -> list[str]:
        return [*json.loads((layout.report / f"{name}.json").read_text())[key]]

    assert methods("robustness", "clean") == [*drawn(content, content.methods)]
    assert methods("accuracy", "methods") == [*content.methods]
    assert len(methods("radar", "methods")) == 5
    assert f"Drawn are {MOST} of {len(content.methods)} methods" in page.text
    rows = [row for table in page.tables for row in table if row[0].startswith("DARE + TIES")]
    assert len(rows) >= 2  # clean and corrupted: tables leave nobody out


def test_needs_are_letters_with_a_key(page: Page) -> None:
    needs = {row[0].removesuffix(" †"): row[1] for row in page.tables[0] if len(row) > 1}
    for method, letters in (
        ("ties", "W"),
        ("task_arithmetic_tuned", "I L"),
        ("regmean", "I E"),
        ("adamerging_layerwise", "I"),
        ("emr", "T P"),
        ("experts", "T P"),
    ):
        assert needs[METHODS[method].title] == letters
    for letter, words in [("W", "weights only"), *NEEDS.values()]:
        assert f"{letter} {words}" in page.text


def test_the_key_has_no_letter_that_is_not_used() -> None:
    assert key(["ties", "fisher"]) == ", ".join(
        " ".join(both) for both in (*needs_of("ties"), *needs_of("fisher"))
    )


def test_what_is_no_single_model_stands_apart(config: Config, layout: Layout, page: Page) -> None:
    apart = [METHODS[method].title for method in config.methods if one_per_task(method)]
    assert apart == ["TALL masks", "EMR-merging", "Experts (upper bound)"]
    first = [row[0] for row in page.tables[0]]
    assert first[first.index(OTHERS) + 1 :] == apart
    lines = accuracy_block(config, layout).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith(f"| *{OTHERS}* |"))
    below = [line for line in lines[place + 1 :] if line.startswith("|")]
    assert [line.split("]")[0] for line in below] == [f"| [{title}" for title in apart]
    assert "**" not in "".join(below)


@pytest.mark.parametrize("best", ["wudi", "fisher", "breadcrumbs"])
def test_another_method_may_be_the_best(content: Content, best: str) -> None:
    content.clean[best]["avg"] = 81.0
    compare(content.clean)
    text = said(content)
    words = " and ".join(words for _, words in needs_of(best))
    name = METHODS[best].title
    assert content.best == best
    assert f"merged without labels, {name} has the highest average: 81.0 %" in text
    assert "Every other one is clearly below it." in text
    assert f"(it needs {words})" in text
    learned = max(
        filter(is_adamerging, content.methods), key=lambda method: content.clean[method]["avg"]
    )
    number = content.clean[learned]["avg"]
    assert f"The best AdaMerging, {METHODS[learned].title}, has {number:.1f} %" in text
    assert f"{81.0 - round(number, 1):.1f} points below {name} (95 % interval" in text
    assert key_figures(content)[0].meaning == f"{name}, average accuracy"


def test_masks_per_task_are_never_the_best(content: Content) -> None:
    content.clean["tall_mask"]["avg"] = 99.0
    assert content.best is not None and competes(content.best)
    assert "With a part of its own for every task, TALL masks has 99.0 %" in said(content)


def test_without_adamerging_nothing_is_said_of_it(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "learn": {"methods": []},
        "merge": {"methods": ["pretrained", "task_arithmetic", "tsv_m", "experts"]},
        "robustness": {"adapted": {"methods": [], "severity": 3}},
        "generalization": {"methods": ["pretrained", "tsv_m"]},
    }
    config = write_config(tmp_path, **changes)
    content = read_content(config, write_artifacts(config, steps=2, images=4))
    text = said(content)
    assert "TSV-M has the highest average" in text
    assert "AdaMerging" not in text
    assert "beside the pretrained model" in text


def test_the_table_of_methods_has_options_and_papers() -> None:
    cells = {
        line.split("`")[1]: [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in methods_block().splitlines()[2:]
    }
    assert cells["ties"][3] == "`coefficient` 0.3, `keep` 0.2, `reduce` sum"
    assert cells["lines"][3] == "`first` null, `slope` 0.3"
    assert cells["wudi"][3] == "`solve` adam, `steps` 300, `lr` 1e-05"
    assert cells["task_arithmetic_tuned"][3] == "`grid` 0, 0.05, ..., 1"
    assert "`clamp` true, `objective` entropy" in cells["adamerging_layerwise"][3]
    assert cells["slerp"][5] == "[doi:10.1145/325334.325242](https://doi.org/10.1145/325334.325242)"
    assert cells["ties"][5] == "[2306.01708](https://arxiv.org/abs/2306.01708)"
    assert cells["emr"][3] == ""
