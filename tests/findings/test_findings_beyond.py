"""Statements about corrupted images and unseen tasks, in each of their outcomes."""

from typing import Any

import pytest
from made_up_findings import MINUS, OURS, headline, say

from pipeline.config import Config
from pipeline.findings import beyond


@pytest.mark.parametrize(
    ("change", "words"), [(3.0, "helps"), (-3.0, "hurts"), (0.0, "makes no clear difference")]
)
@pytest.mark.parametrize("condition", ["each", "mixture", "stream", "small", "imbalanced"])
def test_adapting(
    files: dict[str, Any], config: Config, condition: str, change: float, words: str
) -> None:
    statement = getattr(beyond, f"adapted_on_{condition}")
    rows = files["robustness"]
    after = rows["adapted"] if condition == "each" else rows["conditions"][condition]
    for name, by in rows["clean"][OURS]["corruptions"].items():
        after[OURS]["corruptions"][name] = {"3": by["3"] + change}
    assert headline(statement, files, config).endswith(f"{words}.")


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (60.0, "errs less than"),
        (140.0, "errs more than"),
        (100.1, "errs about as often as"),
    ],
)
def test_errors_on_corrupted_images(
    files: dict[str, Any], config: Config, ratio: float, words: str
) -> None:
    found = files["robustness"]["clean"][OURS]["error_ratio"]
    spread = {name: ratio + place - 3 for place, name in enumerate(found["corruptions"])}
    found |= {"mean": ratio, "corruptions": spread}
    text = say(beyond.corrupted_errors, files, config)
    assert f"learned on clean ones, {words} the pretrained model.**" in text
    assert f"Its errors are {ratio:.1f} % of the pretrained model's" in text


def test_the_best_on_corrupted_images(files: dict[str, Any], config: Config) -> None:
    rows = files["robustness"]["clean"]
    for place, by in enumerate(rows["ties"]["corruptions"].values()):
        by.update(dict.fromkeys(by, 90.0 + place))
    rows["ties"]["avg"] = 93.0
    text = headline(beyond.corrupted_level, files, config)
    assert text == "TIES-merging is the best single model without labels on corrupted images."
    for place, by in enumerate(rows["wudi"]["corruptions"].values()):
        by.update(dict.fromkeys(by, 89.5 + place + place % 2))
    rows["wudi"]["avg"] = 92.9
    assert headline(beyond.corrupted_level, files, config) == (
        "No single model without labels is clearly the best on corrupted images."
    )


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ((3, 3, 3, 3), "every merge gains on unseen tasks"),
        ((-3, -3, -3, -3), "every merge loses on unseen tasks"),
        ((0, 0, 0, 0), "no merge clearly gains or loses on unseen tasks"),
        ((3, -3, -3, 0), "of 4 merges 1 clearly gains and 2 clearly lose on unseen tasks"),
    ],
)
def test_unseen(files: dict[str, Any], config: Config, gaps: tuple[float, ...], words: str) -> None:
    methods = [method for method in files["leave_two_out"] if method != "pretrained"]
    for method, gap in zip(methods, gaps, strict=True):
        files["leave_two_out"][method] |= {"gap": gap, "gap_interval": [gap - 1, gap + 1]}
    text = say(beyond.unseen_pairs, files, config)
    assert text.startswith(f"**Against the pretrained model {words}.**")
    for split in files["generalization"].values():
        for method, gap in zip(methods, gaps, strict=True):
            split[method] |= {"gap": gap, "gap_interval": [gap - 1, gap + 1]}
    text = say(beyond.unseen_splits, files, config)
    twice = words.replace("of 4 merges 1 clearly gains and 2", "of 8 merges 2 clearly gain and 4")
    assert text.startswith(f"**Against the pretrained model {twice}, over 2 splits.**")
    assert "mini MNIST and mini EuroSAT: weight averaging" in text


def test_unseen_tasks_by_name(files: dict[str, Any], config: Config) -> None:
    tasks = files["leave_two_out"][OURS]["tasks"]
    for place, task in enumerate(tasks):
        tasks[task]["gap"] = [-4.0, 2.0, 0.0][min(place, 2)]
    text = say(beyond.unseen_tasks, files, config)
    assert "above zero on 1 of 8 tasks" in text
    assert f"gains on mini Cars (+2.0) and loses on mini SUN397 ({MINUS}4.0)." in text
