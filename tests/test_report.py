"""The report: complete, faithful to the metrics, self-contained and reproducible."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_artifacts import LAYERS, Page, write_artifacts, write_config
from report_metrics import compare

from pipeline.config import Config
from pipeline.errors import CheckpointError, MissingInput, UserError
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.readme import accuracy_block
from pipeline.report import build_report
from pipeline.report.accuracy import accuracy_note, accuracy_table
from pipeline.report.content import competes, read_content
from pipeline.report.curves import MAX_POINTS, smoothed
from pipeline.report.heatmaps import blocks
from pipeline.report.summary import MINIATURE, key_figures, sentences
from pipeline.report.tables import OTHERS
from pipeline.report.words import duration
from pipeline.tasks import get_task

PLOTS = (
    "accuracy",
    "coefficients",
    "coefficients_tensors",
    "entropy",
    "coefficient_curves",
    "radar",
    "confusion",
    "robustness",
    "generalization",
    "task_vectors",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_config(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config)


@pytest.fixture(scope="module")
def html(config: Config, layout: Layout) -> str:
    return build_report(config, layout).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def metric(layout: Layout, name: str) -> dict:
    return json.loads(layout.metric(name).read_text())


def test_page_loads_nothing(html: str, page: Page) -> None:
    assert page.references
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert "<script" not in html


def test_every_method_task_and_plot_is_there(config: Config, layout: Layout, page: Page) -> None:
    for method in config.methods:
        assert METHODS[method].title in page.text
    for task in config.profile.tasks:
        assert get_task("mini", task).title in page.text
    assert len(page.images) == len(PLOTS)
    assert all(page.images)
    for name in PLOTS:
        assert (layout.report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((layout.report / f"{name}.json").read_text())
    sections = (
        "summary accuracy coefficients tasks robustness generalization task-vectors unmeasured"
    )
    assert page.sections == sections.split()


def test_table_repeats_the_metrics(config: Config, layout: Layout, page: Page) -> None:
    clean = metric(layout, "clean")
    head, *rows = page.tables[0]
    assert head[:2] == ["Method", "Needs"]
    rows = [row for row in rows if row != [OTHERS]]
    assert len(rows) == len(config.methods)
    for method, cells in zip(config.methods, rows, strict=True):
        row = clean[method]
        tasks = [row["tasks"][task] for task in config.profile.tasks]
        numbers = [row["avg"], *tasks, row["normalized"], row["ece"]]
        assert cells[2:] == [f"{number:.1f}" for number in numbers]


def test_label_tuned_row_is_flagged_and_never_best(html: str, page: Page) -> None:
    flagged = {row[0] for row in page.tables[0] if "†" in row[0]}
    assert flagged == {METHODS["task_arithmetic_tuned"].title + " †"}
    row = re.search(r'<tr class="label-tuned">.*?</tr>', html, re.DOTALL)[0]
    assert "<strong>" not in row


def test_all_that_are_level_with_the_best_are_bold(config: Config, layout: Layout) -> None:
    clean = metric(layout, "clean")
    for row in clean.values():
        row["avg"] = 60.0
    clean["task_arithmetic_tuned"]["avg"] = clean["experts"]["avg"] = 80.0
    clean["ties"]["avg"] = 80.0
    clean["adamerging_layerwise"]["avg"] = 79.5  # within the made-up intervals of 0.8 points
    clean["adamerging_layerwise_pp"]["avg"] = 79.0
    compare(clean)
    table = accuracy_table(config, clean)
    average = table.columns.index("Average")
    marked = {row.method for row in table.rows if row.cells[average].marked}
    assert marked == {"ties", "adamerging_layerwise"}
    assert not any(cell.marked for row in table.rows for cell in row.cells[1:])
    assert "all that the images cannot tell from it" in accuracy_note(config, table)


def test_older_metrics_rank_nothing(config: Config, layout: Layout) -> None:
    clean = metric(layout, "clean")
    for row in clean.values():
        del row["beside"]
    table = accuracy_table(config, clean)
    assert not table.marked
    assert "Bold" not in accuracy_note(config, table)


def test_markdown_is_the_same_table(config: Config, layout: Layout, page: Page) -> None:
    lines = accuracy_block(config, layout).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert rows[0] == page.tables[0][0]
    assert set("".join(rows[1])) <= set(": -")
    heading = [f"*{OTHERS}*", *[""] * (len(rows[0]) - 1)]
    assert [place for place, row in enumerate(rows[1:]) if row == heading] == [
        place for place, row in enumerate(page.tables[0]) if row == [OTHERS]
    ]
    plain = [[cell.replace("**", "") for cell in row[1:]] for row in rows[2:] if row != heading]
    assert plain == [row[1:] for row in page.tables[0][1:] if row != [OTHERS]]
    clean = metric(layout, "clean")
    best = max(filter(competes, config.methods), key=lambda m: clean[m]["avg"])
    assert f"**{clean[best]['avg']:.1f}**" in next(
        row for row in rows if METHODS[best].title in row[0]
    )


def test_summary_is_computed_from_the_metrics(config: Config, layout: Layout, page: Page) -> None:
    content = read_content(config, layout)
    best, reference = content.clean[content.best], content.clean["task_arithmetic"]
    text = " ".join(sentences(content)).replace("\N{NO-BREAK SPACE}", " ")
    gain = round(round(best["avg"], 1) - round(reference["avg"], 1), 1)
    assert f"{best['avg']:.1f} % over 8 tasks" in text
    assert f"{gain:.1f} points above task arithmetic" in text
    assert f"{min(best['tasks'].values()):.1f} %" in text
    assert content.gain.low < content.gain.high
    assert [key.number for key in key_figures(content)][1] == f"+{gain:.1f}"
    assert MINIATURE in page.text


def test_summary_admits_a_loss(config: Config, layout: Layout) -> None:
    content = read_content(config, layout)
    for method in config.methods:
        if competes(method):
            content.clean[method]["avg"] = 20.0
    content.clean["ties"]["avg"] = content.clean["task_arithmetic"]["avg"] = 60.0
    content.clean["weight_average"]["avg"] = 59.0
    content.clean["task_arithmetic_tuned"]["avg"] = 61.0
    compare(content.clean)
    text = " ".join(sentences(content)).replace("\N{NO-BREAK SPACE}", " ")
    assert content.best == "task_arithmetic"
    assert "task arithmetic has the highest average: 60.0 %" in text
    assert "1.0 points below task arithmetic with its coefficient tuned on labels" in text


def test_footer_says_where_the_figures_come_from(config: Config, page: Page) -> None:
    assert "4 min 22 s" in page.text  # learn
    assert "0123456789abcdef0123456789abcdef01234567 with uncommitted changes" in page.text
    assert "Example CPU" in page.text
    assert config.profile.checkpoint.sha256 in page.text
    assert "weight_decay" in page.text


def test_same_inputs_give_the_same_bytes(config: Config, layout: Layout, html: str) -> None:
    before = {path.name: path.read_bytes() for path in layout.report.iterdir()}
    build_report(config, layout)
    assert {path.name: path.read_bytes() for path in layout.report.iterdir()} == before


def test_sections_without_data_vanish(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        learn={"methods": ["adamerging_taskwise"]},
        robustness={"adapted": {"methods": [], "severity": 3}},
        seeds=[0, 1],
    )
    layout = write_artifacts(config, steps=8, images=20)
    layout.metric("robustness").unlink()
    layout.metric("generalization").unlink()
    layout.vectors_summary(1).unlink()
    page = Page(build_report(config, layout).read_text(encoding="utf-8"))
    assert page.sections == ["summary", "accuracy", "coefficients", "tasks", "unmeasured"]
    assert "python -m stages.robustness" in page.text
    assert "python -m stages.vectors" in page.text
    assert "python -m stages.learn" not in page.text
    assert "±" in page.tables[0][1][2]
    assert not (layout.report / "coefficients.png").exists()
    assert (layout.report / "entropy.png").exists()


def test_without_artifacts_the_metrics_suffice(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = write_artifacts(config, steps=2, images=4)
    shutil.rmtree(layout.artifacts)
    content = read_content(config, layout)
    assert content.gain.low < content.gain.high
    assert not content.runs
    assert set(content.absent) == {
        "learned coefficients",
        "task vectors",
        "confusions of the worst task",
        "sample images before and after merging",
    }


def test_missing_metrics_name_the_stage(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = Layout(config.root, config.name)
    with pytest.raises(MissingInput, match=r"clean\.json .* 'python -m stages\.evaluate'"):
        build_report(config, layout)
    write_json(layout.metric("clean"), {"ties": {"tasks": {"mnist": 1.0}}})
    with pytest.raises(UserError, match="lacks figures of pretrained"):
        build_report(config, layout)


def test_damaged_coefficients_are_an_error_of_the_user(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = write_artifacts(config, steps=2, images=4)
    layout.coefficients(0, "adamerging_layerwise").write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match=r"damaged .* 'python -m stages\.learn'"):
        read_content(config, layout)


def test_blocks_follow_the_forward_pass() -> None:
    found = blocks(LAYERS)
    assert [block.title for block in found] == [
        "stem",
        *(f"block {number}" for number in range(6)),
        "out",
    ]
    assert sorted(row for block in found for row in block.rows) == list(range(len(LAYERS)))
    assert found[0].labels[0] == "class_embedding"
    assert found[-1].labels == ("proj", "ln_post.weight", "ln_post.bias")
    assert found[1].labels[2] == "attn.in_proj_weight"


def test_smoothing_keeps_a_straight_line() -> None:
    line = np.arange(500.0)[:, None] * np.array([1.0, -2.0])
    steps, means = smoothed(line)
    assert len(steps) == MAX_POINTS
    assert np.allclose(means, steps[:, None] * np.array([1.0, -2.0]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.26, "9.3 s"), (59.97, "1 min 00 s"), (248, "4 min 08 s"), (7500, "2 h 05 min")],
)
def test_durations_are_said_in_fitting_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
