"""Tables and sentences that say how sure they are: calibration, conditions, unseen tasks."""

from pathlib import Path

import pytest
from report_artifacts import Page, write_artifacts, write_config

from pipeline.config import Config
from pipeline.files import read_json, write_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report import build_report
from pipeline.report.accuracy import calibration_table
from pipeline.report.clear import level_corrupted, over
from pipeline.report.content import Content, read_content
from pipeline.report.corrupted import CLEAN, LEARNED_ON, adapted_figures, adapted_table
from pipeline.report.summary import sentences
from pipeline.report.tables import NOTHING, Table
from pipeline.report.unseen import generalization_table, leave_two_out_table

OURS = "adamerging_layerwise"
CONDITIONS = ["each", "mixture", "stream", "small", "imbalanced"]
SPLIT = "unseen_mnist_eurosat"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    adapted = {"methods": [OURS], "severity": 3, "conditions": CONDITIONS}
    return write_config(
        tmp_path_factory.mktemp("statements"),
        robustness={"adapted": adapted},
        generalization={"leave_two_out": True},
    )


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config, steps=4, images=6)


@pytest.fixture
def content(config: Config, layout: Layout) -> Content:
    return read_content(config, layout)


def said(content: Content) -> str:
    return " ".join(sentences(content)).replace("\N{NO-BREAK SPACE}", " ")


def column(table: Table, title: str) -> dict[str, str]:
    place = table.columns.index(title)
    return {
        row.title: " | ".join(filter(None, (row.cells[place].text, row.cells[place].below)))
        for row in table.rows
    }


def test_conditions_are_learned_on_what_there_is() -> None:
    from pipeline.conditions import CONDITIONS as known

    assert list(LEARNED_ON) == [CLEAN, *known]


def test_students_interval() -> None:
    interval = over([1.0, 2.0, 3.0])
    assert interval is not None
    assert interval.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=0.005)  # of a printed table
    assert interval.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=0.005)
    assert over([1.0]) is None


def test_calibration_repeats_the_metrics(content: Content) -> None:
    table = calibration_table(content)
    assert table is not None
    row = content.clean[OURS]
    title, beside = METHODS[OURS].title, row["beside"]["task_arithmetic"]
    low, high = row["avg_interval"]
    assert column(table, "Average")[title] == f"{row['avg']:.1f} | {low:.1f} to {high:.1f}"
    assert column(table, "Tasks won")[title] == f"{beside['wins']} of 8"
    assert column(table, "Beside task arithmetic")[title].startswith(f"+{beside['difference']:.1f}")
    assert column(table, "Brier")[title] == "0.432"
    assert column(table, "ECE, equal mass")[title] == f"{row['ece_mass']:.1f}"
    assert column(table, "Joint")[title] == f"{row['joint']:.1f}"
    assert column(table, "Joint")[METHODS["experts"].title] == NOTHING
    assert not table.marked


def test_adapted_rows_stand_beside_clean_images(content: Content) -> None:
    table, title = adapted_table(content), METHODS[OURS].title
    assert table is not None
    rows = [f"{title}, {LEARNED_ON[condition]}" for condition in (CLEAN, *CONDITIONS)]
    assert [row.title for row in table.rows] == [METHODS["task_arithmetic"].title, *rows]
    first = content.config.profile.robustness.corruptions[0]
    corrupted = column(table, first.replace("_", " ").capitalize())
    for condition, figures in (("clean", "clean"), ("each", "adapted")):
        number = content.robustness[figures][OURS]["corruptions"][first]["3"]
        assert corrupted[f"{title}, {LEARNED_ON[condition]}"] == f"{number:.1f}"
    beside = column(table, "Beside clean images")
    assert beside[rows[0]] == NOTHING
    assert beside[rows[1]] == "+2.5 | +2.50 to +2.50"


@pytest.mark.parametrize(("change", "words"), [(3.0, "+3.0 points"), (-3.0, "−3.0 points")])  # noqa: RUF001
def test_adapting_helps_or_hurts(content: Content, change: float, words: str) -> None:
    before = adapted_figures(content)[OURS, CLEAN]
    mixture = content.robustness["conditions"]["mixture"][OURS]
    for name, value in before["corruptions"].items():
        mixture["corruptions"][name] = {"3": value + change}
    assert f"on a mixture of the corruptions {before['avg'] + change:.1f} % ({words})" in said(
        content
    )


def test_adapting_that_helps_here_and_hurts_there_is_not_clear(content: Content) -> None:
    before = adapted_figures(content)[OURS, CLEAN]
    mixture = content.robustness["conditions"]["mixture"][OURS]
    for place, (name, value) in enumerate(before["corruptions"].items()):
        mixture["corruptions"][name] = {"3": value + (5 if place % 2 else -4)}
    assert "on a mixture of the corruptions" in said(content)
    after = adapted_figures(content)[OURS, "mixture"]["avg"]
    assert f"on a mixture of the corruptions {after:.1f} % (no clear difference)" in said(content)


def test_corruptions_tell_methods_apart_or_not() -> None:
    def row(values: list[float]) -> dict:
        return {
            "avg": sum(values) / len(values),
            "corruptions": {str(place): {"1": value} for place, value in enumerate(values)},
        }

    figures = {"ties": row([70, 60, 50]), "dare": row([69, 61, 49.5]), "awd": row([65, 55, 45.1])}
    assert level_corrupted(figures, list(figures)) == ("ties", "dare")
    assert level_corrupted({"ties": row([70])}, ["ties"]) == ()


def test_gaps_of_splits_and_pairs(content: Content) -> None:
    for table, figures in (
        (generalization_table(content, SPLIT), content.generalization[SPLIT]),
        (leave_two_out_table(content), content.leave_two_out),
    ):
        assert table is not None
        gaps, place = column(table, "Gap"), table.columns.index("Gap")
        assert gaps[METHODS["pretrained"].title] == NOTHING
        marked = {row.method for row in table.rows if row.cells[place].marked}
        assert marked == {m for m in figures if figures[m]["gap_interval"][0] > 0} != set()
    pairs = column(leave_two_out_table(content), "Pairs above zero")
    assert pairs[METHODS[OURS].title] == f"{content.leave_two_out[OURS]['pairs_above_zero']} of 28"


def test_losses_on_unseen_tasks_are_said(content: Content) -> None:
    for figures in (content.generalization[SPLIT], content.leave_two_out):
        gaps = {"ties": (-3, 1), OURS: (2, 1), "weight_average": (1, 2)}
        for method, (gap, half) in gaps.items():
            figures[method] |= {"gap": gap, "gap_interval": [gap - half, gap + half]}
        for method in [m for m in figures if m not in ("pretrained", *gaps)]:
            del figures[method]
    text = said(content)
    words = (
        "AdaMerging (layer-wise) (+2.0) gains; TIES-merging (\N{MINUS SIGN}3.0) loses; "
        "no clear difference: weight averaging (+1.0)."
    )
    assert text.count(words) == 2
    assert f"Over all 28 pairs of unseen tasks, beside the pretrained model: {words}" in text


def test_metrics_of_an_earlier_version_name_what_to_run(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = write_artifacts(config, steps=2, images=4)
    for name, keys in (
        ("clean", ("ece_mass", "beside", "avg_interval", "joint")),
        ("generalization", ("gap", "gap_interval")),
        ("robustness", ("error_ratio",)),
    ):
        metrics = read_json(layout.metric(name), "")
        groups = [metrics] if name == "clean" else metrics.values()
        for row in (row for group in groups for row in group.values()):
            for key in keys:
                row.pop(key, None)
        write_json(layout.metric(name), metrics)
    page = Page(build_report(config, layout).read_text(encoding="utf-8"))
    for stage in ("evaluate", "robustness", "generalization"):
        assert f"python -m stages.{stage}" in page.text
    assert "Calibration" not in page.text
    assert "Error ratio" not in [title for table in page.tables for title in table[0]]
