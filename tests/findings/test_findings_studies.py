"""Statements about the studies, in each of their outcomes."""

from typing import Any

import pytest
from made_up_findings import MINUS, OURS, REFERENCE, TITLE, beside, headline, say

from pipeline.config import Config
from pipeline.findings import studies


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.5, 0.6, "rises with"),
        (-0.6, -0.5, "falls where"),
        (-0.1, 0.1, "does not clearly follow"),
    ],
)
def test_entropy(
    files: dict[str, Any], config: Config, low: float, high: float, words: str
) -> None:
    files["entropy_loss"]["methods"][OURS]["images_interval"] = [low, high]
    assert words in headline(studies.entropy_for_loss, files, config)


def test_images_needed(files: dict[str, Any], config: Config) -> None:
    text = say(studies.images_needed, files, config)
    assert text.startswith("**With 16 unlabeled images of each task or more learning clearly helps")
    assert "From 64 on it is not clearly below learning from all 900." in text
    for size in ("1", "4", "16", "64"):
        files["budget"]["rows"][size]["beside"] = {"before": beside(0.0), "all": beside(-5.0)}
    text = say(studies.images_needed, files, config)
    assert "With up to 64 unlabeled images of each task learning does not clearly help" in text
    assert "With 64 it is still clearly below learning from all 900." in text


def test_first_values(files: dict[str, Any], config: Config) -> None:
    rows = files["initial"]["rows"]
    assert headline(studies.first_values, files, config) == (
        "Starting at 0.1 is clearly worse than at 0.3."
    )
    rows["0.5"]["beside"]["0.3"] = beside(2.0)
    assert headline(studies.first_values, files, config) == (
        "Starting at 0.5 is clearly better than at 0.3."
    )
    rows["0.1"]["beside"]["0.3"] = rows["0.5"]["beside"]["0.3"] = beside(0.5)
    assert "makes no clear difference" in headline(studies.first_values, files, config)


@pytest.mark.parametrize(
    ("gain", "words"), [(3.0, "is better than"), (-3.0, "is worse than"), (0.5, "not clearly")]
)
def test_granularity(files: dict[str, Any], config: Config, gain: float, words: str) -> None:
    files["granularity"]["rows"]["layer"]["beside"]["task"] = beside(gain)
    assert words in headline(studies.finer_coefficients, files, config)


def test_numbers_of_tasks(files: dict[str, Any], config: Config) -> None:
    text = say(studies.numbers_of_tasks, files, config)
    assert text.startswith(f"**{TITLE} is clearly above task arithmetic at 5 and 6 tasks.**")
    assert f"2: {MINUS}1.0, 3: 0.0, 4: +1.0, 5: +2.0, 6: +3.0." in text
    counts = files["tasks"]["counts"].values()
    for gap, words in ((3.0, "at every number of tasks from 2 to 6"), (0.0, "at no number of")):
        for row in counts:
            row[OURS]["beside"][REFERENCE] = beside(gap)
        assert words in headline(studies.numbers_of_tasks, files, config)
    files["tasks"]["counts"]["2"][OURS]["beside"][REFERENCE] = beside(-3.0)
    assert "clearly below it at 2" in headline(studies.numbers_of_tasks, files, config)


def test_selection(files: dict[str, Any], config: Config) -> None:
    assert headline(studies.label_free_selection, files, config) == (
        "Choosing without labels does not clearly help."
    )
    rows = files["selection"]["choices"]["variant"]["rows"]
    rows["snd"]["beside"]["none"] = beside(3.0)
    rows["oracle"]["beside"]["none"] = beside(-3.0)
    text = say(studies.label_free_selection, files, config)
    assert text.startswith("**Choosing without labels clearly helps in 1 of 6 cases.**")
    assert "3.0 points above choosing nothing" in text
