"""The studies of coefficient learning: what counts as equal, and how figures are told."""

import math
import re

import numpy as np
import pytest
from made_up_study import IMAGES, ablation, curve, model, two_seeds, write_metrics
from stage_project import tree
from tiny import ROOT

from pipeline.config.sections import Learning
from pipeline.layout import Layout
from pipeline.learning.objectives import OBJECTIVES
from pipeline.learning.schedules import SCHEDULES
from pipeline.readme import fill
from pipeline.study import objectives, schedules
from pipeline.study.figures import draw_studies
from pipeline.study.measuring import Measured
from pipeline.study.pages import FIGURES, TOLD, study_blocks
from pipeline.study.quality import (
    accuracy_gap,
    as_good,
    entropy_gap,
    first_good,
    mean_difference,
    paired,
)

# ---- Differences and their noise


def test_the_error_of_a_paired_difference_in_accuracy_is_mcnemars():
    ours, theirs = np.zeros(IMAGES, bool), np.zeros(IMAGES, bool)
    ours[:30], theirs[20:45] = True, True  # 20 right in ours alone, 15 in theirs alone
    found = paired({"a": ours}, {"a": theirs})
    assert found.value == pytest.approx(0.05)
    assert found.error == pytest.approx(math.sqrt((35 - 5**2 / IMAGES) / IMAGES**2))
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(0.05) and high - low > 3.9 * found.error


def test_what_both_models_share_is_no_noise():
    loud = np.random.default_rng(0).normal(size=(2, IMAGES)) * 100
    ours = Measured({"a": loud[0] + 1, "b": loud[1] + 2}, model(50).correct)
    theirs = Measured({"a": loud[0], "b": loud[1]}, model(40).correct)
    assert entropy_gap(ours, theirs).value == pytest.approx(3)
    assert entropy_gap(ours, theirs).error == pytest.approx(0, abs=1e-12)
    # 10 of 100 images of each of two tasks: 10 points, each with variance 0.1 * 0.9.
    gap = accuracy_gap(ours, theirs)
    assert gap.value == pytest.approx(10)
    assert gap.error == pytest.approx(100 / 2 * math.sqrt(2 * 0.09 / IMAGES))


def test_errors_of_independent_seeds_shrink_with_their_number():
    one = accuracy_gap(model(50), model(40))
    both = mean_difference([one, one])
    assert both.value == pytest.approx(one.value)
    assert both.error == pytest.approx(one.error / math.sqrt(2))


@pytest.mark.parametrize(
    ("ours", "good"),
    [
        (model(80), True),
        (model(79), True),  # 1 point: the error is 0.7
        (model(95, nats=0.5), True),
        (model(60), False),
        (model(80, nats=1.001), False),  # no image disagrees: no noise
        (model(80, nats=1.001, ripple=0.1), True),
        (model(80, nats=1.1, ripple=0.1), False),
        (model(60, nats=0.5), False),  # accuracy counts as well
    ],
)
def test_as_good_means_not_worse_by_more_than_the_noise(ours, good):
    assert as_good(ours, model(80)) is good


@pytest.mark.parametrize(
    ("rights", "place"),
    [
        ([20, 50, 80, 80], 2),
        ([20, 80, 50, 80, 80], 3),  # a lucky moment is not enough
        ([80, 80], 0),
        ([80, 80, 50], None),  # nor is one that passes
        ([20], None),
    ],
)
def test_the_first_good_snapshot_has_only_good_ones_after_it(rights, place):
    assert first_good([model(right) for right in rights], model(80)) == place


# ---- Schedules in figures


def test_times_to_the_same_quality():
    found = schedules.summary(two_seeds())
    first, second, mean = found["seeds"]["0"], found["seeds"]["1"], found["mean"]
    assert first["paper"]["good"] == {
        "steps": 400,
        "seconds": 40.0,
        "accuracy": 80.0,
        "entropy": 2.0,
    }
    assert first["ratios"] == {
        "end_to_end": {"steps": 25.0, "seconds": 12.5},
        "end_to_good": {"steps": 50.0, "seconds": 25.0},
        "good": {"steps": 40.0, "seconds": 20.0},
    }
    assert second["ratios"]["end_to_good"] == {"steps": 31.25, "seconds": 10.0}
    # Means of each seed's ratio, not ratios of means.
    assert mean["ratios"]["end_to_good"] == {"steps": 40.62, "seconds": 17.5}
    assert mean["fast"]["end"]["steps"] == 18 and mean["fast"]["reached"] == 2
    assert second["fast"]["collapsed"] == ["a"]
    assert first["fast"]["curve"]["accuracy"] == [20.0, 80.0, 85.0]
    assert first["gap"]["accuracy"]["value"] == 5
    assert first["gap"]["accuracy"]["low"] < mean["gap"]["accuracy"]["low"] < 5


def test_a_seed_that_never_gets_there_is_not_averaged_away():
    found = schedules.summary(two_seeds(last=50))
    assert found["seeds"]["1"]["fast"]["good"] is None
    assert found["seeds"]["1"]["ratios"]["end_to_good"] == {"steps": None, "seconds": None}
    assert found["mean"]["fast"]["good"] is None
    assert found["mean"]["fast"]["reached"] == 1
    assert found["mean"]["ratios"]["good"] == {"steps": None, "seconds": None}
    assert found["mean"]["ratios"]["end_to_end"]["steps"] is not None


def test_no_ratio_to_what_takes_no_time():
    same = curve((0, 10), (0.0, 1.0), [model(80), model(80)])
    row = schedules.summary({0: {"paper": same, "fast": same}})["seeds"]["0"]
    assert row["fast"]["good"]["steps"] == 0
    assert row["ratios"]["end_to_good"] == {"steps": None, "seconds": None}


# ---- Objectives in figures


def test_every_objective_and_both_details_have_a_row():
    assert set(OBJECTIVES) < set(objectives.CASES)
    rows = objectives.rows(ablation())
    assert rows["entropy"]["difference"] is None
    assert rows["distillation"]["needs"] == "experts" and rows["diversity"]["needs"] == ""
    better = rows["diversity"]
    assert better["avg"] == 90 and better["avg_sd"] == 0 and better["worst"] == 90
    assert (better["wins"], better["losses"]) == (2, 0)
    assert better["difference"]["value"] == 10 and better["difference"]["low"] > 0
    assert better["collapsed"] == ["a"] and better["steps"] == 10.5 and better["seconds"] == 9
    assert rows["no_clamp"]["difference"] == {
        "value": 0,
        "low": 0,
        "high": 0,
        "seeds": {"0": 0, "1": 0},
    }


# ---- Pages


@pytest.fixture
def told(tmp_path):
    """The metrics of a made-up study."""
    return write_metrics(tmp_path, two_seeds())


def test_blocks_without_a_study_stay_as_they_are(tmp_path):
    blocks = study_blocks(Layout(tmp_path, "study"))
    assert {name for name, text in blocks.items() if text is None} == {
        "schedules-sentence",
        *(f"{name}-study" for name in ("schedules", "objectives", *TOLD)),
    }
    assert all(f"| `{name}` |" in blocks["schedules"] for name in SCHEDULES)
    assert all(f"| `{name}` |" in blocks["objectives"] for name in OBJECTIVES)


def test_every_table_is_whole(told):
    for text in filter(None, study_blocks(told).values()):
        assert text.endswith("\n") and "None" not in text and "nan" not in text
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({row.count("|") for row in table.splitlines()}) == 1


def test_the_schedules_are_told_with_their_seeds(told):
    blocks = study_blocks(told)
    lines = blocks["schedules-study"].splitlines()
    assert any(
        "| 0 | 500 steps, 50.0 s | 400 steps, 40.0 s | 20 steps, 4.0 s |" in x for x in lines
    )
    assert "40.6, 17.5" in blocks["schedules-study"]
    assert "as the 500 steps of `paper` after 13 steps: " in blocks["schedules-sentence"]
    assert "40.6 times fewer steps, 17.5 times less time." in blocks["schedules-sentence"]
    assert "after 18 steps, with accuracy 5.00 points higher" in blocks["schedules-sentence"]


def test_a_schedule_that_fails_is_told_as_well(tmp_path):
    blocks = study_blocks(write_metrics(tmp_path, two_seeds(last=50)))
    assert "as the 500 steps of `paper` on 1 of 2 seeds." in blocks["schedules-sentence"]
    assert "points lower (95 % interval" in blocks["schedules-sentence"]
    assert "| never |" in blocks["schedules-study"]


def test_the_objectives_are_told_with_their_verdicts(told):
    text = study_blocks(told)["objectives-study"]
    assert "More accurate than entropy: `diversity`.\x20" in text.replace("\n", " ")
    assert "Less accurate: `distillation`." in text
    assert "`entropy`, 2 batches per task; `entropy`, clamp: false." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `distillation` |")]
    assert "| the experts |" in row and "| hurts, on 2 of 2 seeds | 0, 2 |" in row
    (row,) = [line for line in text.splitlines() if line.startswith("| `gated_entropy` |")]
    assert "| no difference |" in row


def test_figures_are_drawn_and_the_same_each_time(told, tmp_path):
    assert draw_studies(told, tmp_path / "one") == draw_studies(told, tmp_path / "two") == 2
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert set(tree(tmp_path / "one")) == {f"{name}.png" for name in FIGURES}
    assert draw_studies(Layout(tmp_path, "other"), tmp_path / "none") == 0


def test_the_page_explains_every_key_of_the_section():
    text = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text.split("## Keys")[1], re.MULTILINE) == list(
        Learning.model_fields
    )
    assert fill(text, dict.fromkeys(study_blocks(Layout(ROOT, "study"))), "") == text
