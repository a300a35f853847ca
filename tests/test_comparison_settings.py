"""Settings that differ from the published ones: named, and their figures not flagged."""

from pathlib import Path
from typing import Any

import pytest
from published_artifacts import (
    AS_ORIGINAL,
    LATER,
    MERGED,
    ORIGINAL,
    content_of,
    figures,
    write_published_config,
)

from pipeline.learning.schedules import SCHEDULES
from pipeline.merging.methods import METHODS
from pipeline.merging.options import check_options
from pipeline.report.comparability import MERGED as MERGED_AS
from pipeline.report.comparability import OTHERWISE, PAPER, other_settings
from pipeline.report.comparison import compare
from pipeline.report.published import title

PLUS_PLUS = {"learn": {**AS_ORIGINAL["learn"], "keep": 0.1}}


def options(**by_method: dict[str, Any]) -> dict[str, Any]:
    """Changes of a profile: these options of merging methods."""
    return {"merge": {"options": by_method}}


@pytest.mark.parametrize(
    ("changes", "methods", "why"),
    [
        ({"learn": {"steps": None}}, "adamerging", "steps 500, published: 1000"),
        ({"learn": {"clamp": True}}, "adamerging", "clamp on, published: off"),
        ({"learn": {"initial": 0.2}}, "adamerging", "initial 0.2, published: 0.3"),
        ({"learn": {"schedule": "fast"}}, "adamerging", "schedule fast, published: paper"),
        (options(task_arithmetic={"coefficient": 0.2}), "task", "coefficient 0.2, published: 0.3"),
        (options(ties={"keep": 0.1}), "ties", "keep 0.1, published: 0.2"),
        (options(ties={"reduce": "mean"}), "ties", "reduce mean, published: sum"),
        (AS_ORIGINAL | PLUS_PLUS, "adamerging_layerwise_pp", "keep 0.1, published: 0.2"),
        (ORIGINAL, "adamerging", "steps 1000, published: 500"),
        (AS_ORIGINAL, "ties", "the published settings are not known"),
    ],
)
def test_other_settings_are_named_and_not_flagged(
    tmp_path: Path, changes: dict[str, Any], methods: str, why: str
) -> None:
    config = write_published_config(tmp_path, **changes)
    content = content_of(config, {("adamerging_layerwise", "cars"): 9.0, ("ties", "cars"): 9.0})
    comparison = compare(content)
    other = [line for line in comparison.clean.lines if line.method.startswith(methods)]
    assert other
    for line in other:
        assert why in line.other_settings
        assert not any(pair.outside for pair in line.pairs)
    assert any(why in note and other[0].title in note for note in comparison.notes)


def test_settings_that_nobody_printed_are_not_known(tmp_path: Path) -> None:
    config = write_published_config(tmp_path, checkpoint={"family": "tall_masks"})
    for method in ("adamerging_taskwise", "adamerging_layerwise_pp", "task_arithmetic", "pcb"):
        assert other_settings(config, method) == ("the published settings are not known",)
    for method in ("pretrained", "weight_average", "emr"):  # nothing to set
        assert other_settings(config, method) == ()


def test_methods_of_both_stand_beside_each_other(tmp_path: Path) -> None:
    config = write_published_config(tmp_path, merge={"methods": [*MERGED, *LATER]})
    comparison = compare(content_of(config, {(method, "cars"): 9.0 for method in LATER}))
    *_, single, others = comparison.clean.groups
    assert {line.method for line in single} >= {*LATER} - {"emr"}
    assert [line.method for line in others] == ["emr"]
    # FusionBench merges them otherwise than the papers and this project do: nothing is flagged.
    for line in (line for line in comparison.clean.lines if line.method in LATER):
        assert line.other_settings
        assert not any(pair.outside for pair in line.pairs)
    assert not {title(method) for method in LATER} & {row for row, _ in comparison.elsewhere.rows}


def test_an_option_that_differs_is_named_beside_what_no_option_changes(tmp_path: Path) -> None:
    config = write_published_config(tmp_path, merge={"methods": [*MERGED, "iso_c"]})
    apart = "queries, keys and values in one matrix, published: in three"
    assert other_settings(config, "iso_c") == ("coefficient 1.3, published: 1.5", apart)
    chosen = {"methods": [*MERGED, "iso_c"], "options": {"iso_c": {"coefficient": 1.5}}}
    assert other_settings(write_published_config(tmp_path, merge=chosen), "iso_c") == (apart,)


def test_every_published_option_is_one_that_the_method_has() -> None:
    for by_method in MERGED_AS.values():
        for method, published_options in by_method.items():
            check_options(method, published_options)
            assert published_options.keys() == METHODS[method].defaults.keys()
    for family, method in OTHERWISE:
        assert method in figures(family)


def test_coefficients_of_the_authors_count_as_learned(tmp_path: Path) -> None:
    file = {"adamerging_layerwise": {"path": "published.json", "sha256": "0" * 64}}
    for family, agrees in (("original", True), ("hf", False)):
        config = write_published_config(
            tmp_path, checkpoint={"family": family}, learn={"coefficients": file}
        )
        clean = compare(content_of(config)).clean
        [line] = [line for line in clean.lines if line.method == "adamerging_layerwise"]
        assert (line.other_settings == ()) == agrees


def test_paper_schedule_is_the_one_that_learning_uses() -> None:
    paper = SCHEDULES["paper"]
    assert {"steps": paper.steps, "lr": paper.lr} == PAPER
