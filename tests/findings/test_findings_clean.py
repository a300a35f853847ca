"""Statements about clean images, in each of their outcomes."""

from typing import Any

import pytest
from made_up_findings import MINUS, OURS, REFERENCE, TITLE, TUNED, headline, say, set_average
from report_metrics import compare

from pipeline.config import Config
from pipeline.findings import clean


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (75.0, "is above task arithmetic."),
        (65.0, "is below task arithmetic."),
        (70.5, "and task arithmetic do not differ clearly."),
    ],
)
def test_against_task_arithmetic(
    files: dict[str, Any], config: Config, ours: float, words: str
) -> None:
    set_average(files, REFERENCE, 70.0)
    set_average(files, OURS, ours)
    assert headline(clean.against_task_arithmetic, files, config) == f"{TITLE} {words}"
    text = say(clean.against_task_arithmetic, files, config)
    interval = f"{ours - 70.8:+.2f} to {ours - 69.2:+.2f}".replace("-", MINUS)
    assert f"95 % interval {interval}" in text
    assert f"It has {ours:.1f} % on average" in text


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ((2.0, 2.1, 1.9), "is above"),
        ((-2.0, -2.1, -1.9), "is below"),
        ((-2.0, 2.1, 1.9), "do not differ clearly"),
    ],
)
def test_seeds_decide_where_images_were_not_compared(
    files: dict[str, Any], config: Config, seeds: tuple[float, ...], words: str
) -> None:
    for method, values in ((TUNED, (0.0, 0.0, 0.0)), (OURS, seeds), ("wudi", (9.0, 9.0, 9.0))):
        row = files["clean"][method]
        row["seeds"] = {str(k): 60.0 + value for k, value in enumerate(values)}
        row["avg"] = 60 + sum(values) / 3
    compare(files["clean"])
    text = say(clean.against_tuned, files, config)
    assert words in text
    assert "over seeds)" in text


def test_the_best_may_have_company(files: dict[str, Any], config: Config) -> None:
    set_average(files, "regmean", 85.0)
    assert headline(clean.level_with_the_best, files, config) == (
        "RegMean is the best single model without labels."
    )
    set_average(files, "wudi", 84.5)
    assert headline(clean.level_with_the_best, files, config) == (
        "No single model without labels is clearly the best."
    )
    assert "level with it on these images is WUDI-merging." in say(
        clean.level_with_the_best, files, config
    )


@pytest.mark.parametrize(
    ("layer", "task", "words"),
    [
        (3.0, 3.0, "help"),
        (-3.0, -3.0, "hurt"),
        (0.0, 0.0, "change nothing clearly"),
        (3.0, -3.0, "help in one form and not in the other"),
    ],
)
def test_plus_plus(
    files: dict[str, Any], config: Config, layer: float, task: float, words: str
) -> None:
    for (plain, plus), gain in zip(clean.PLUS.items(), (layer, task), strict=True):
        set_average(files, plain, 70.0)
        set_average(files, plus, 70.0 + gain)
    assert headline(clean.plus_plus, files, config) == f"The ++ variants {words}."


@pytest.mark.parametrize(
    ("averages", "words"),
    [
        ((80, 80, 80, 80), "All of 4 recent methods that need weights only are above"),
        ((60, 60, 60, 70), "None of 4 recent methods that need weights only is above"),
        ((60, 80, 60, 60), "1 of 4 recent methods that need weights only is above"),
    ],
)
def test_weights_only(
    files: dict[str, Any], config: Config, averages: tuple[float, ...], words: str
) -> None:
    set_average(files, OURS, 70.0)
    for method, value in zip(clean.RECENT, averages, strict=True):
        set_average(files, method, value)
    assert headline(clean.weights_only, files, config) == f"{words} {TITLE}."


@pytest.mark.parametrize(
    ("ece", "nll", "words"),
    [
        (9.0, 0.9, "makes it worse calibrated"),
        (5.0, 0.7, "does not make it worse calibrated: both errors fall"),
        (5.0, 0.9, "changes calibration in no clear direction"),
    ],
)
def test_calibration(
    files: dict[str, Any], config: Config, ece: float, nll: float, words: str
) -> None:
    files["clean"][REFERENCE] |= {"ece": 7.0, "nll": 0.8}
    files["clean"][OURS] |= {"ece": ece, "nll": nll}
    assert headline(clean.calibration, files, config) == f"Minimising entropy {words}."
    assert f"ECE from 7.0 % to {ece:.1f} %" in say(clean.calibration, files, config)


def test_joint(files: dict[str, Any], config: Config) -> None:
    files["clean"][OURS] |= {"avg": 80.0, "joint": 55.5, "joint_same_words": 60.0}
    assert headline(clean.joint, files, config) == "Not knowing an image's task costs 24.5 points."
    files["clean"][OURS]["joint"] = 80.0
    assert headline(clean.joint, files, config) == "Not knowing an image's task changes nothing."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (99.0, "takes the longest"),
        (0.1, "takes the shortest"),
        (41.0, "takes longer than 1 of 2 other methods"),
    ],
)
def test_cost(files: dict[str, Any], config: Config, seconds: float, words: str) -> None:
    files["cost"]["rows"][OURS]["seconds"] = seconds
    assert headline(clean.cost, files, config) == f"{TITLE} {words}."
