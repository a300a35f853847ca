"""docs/findings.md: every statement in each of its outcomes, and every figure traceable."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from report_artifacts import write_artifacts, write_config
from report_metrics import compare

from pipeline.config import Config
from pipeline.files import write_json
from pipeline.findings import (
    COMMAND,
    FILES,
    SECTIONS,
    beyond,
    clean,
    findings,
    findings_blocks,
    read_files,
    studies,
)
from pipeline.findings.look import Look
from pipeline.layout import Layout
from pipeline.study import selection

OURS, REFERENCE = "adamerging_layerwise", "task_arithmetic"
TUNED = "task_arithmetic_tuned"
GIT = {"commit": "0123456789abcdef", "dirty": False}
TITLE = "AdaMerging (layer-wise)"
MINUS = "\N{MINUS SIGN}"


def beside(difference: float, half: float = 1.0) -> dict[str, Any]:
    return {"difference": difference, "interval": [difference - half, difference + half]}


def rows_of(**differences: dict[str, float]) -> dict[str, Any]:
    """Row -> figures: `name={other: difference}`."""
    return {
        name: {"avg": 70.0, "beside": {o: beside(d) for o, d in others.items()}}
        for name, others in differences.items()
    }


def made_up_studies() -> dict[str, Any]:
    budget = {"before": {}, "all": {"before": 9.0}}
    for size, gain in {"1": -2.0, "4": 0.5, "16": 3.0, "64": 8.5}.items():
        budget[size] = {"before": gain, "all": gain - 9}
    layer = {"task": 4.0, "block": 0.5}
    choices = {name: {"none": 0.0} for name in selection.CRITERIA}
    return {
        "entropy_loss": {
            "methods": {OURS: {"images": 0.61, "images_interval": [0.58, 0.64], "groups": 0.98}}
        },
        "budget": {"all": 900, "rows": rows_of(**budget)},
        "initial": {
            "rows": rows_of(**{"0.1": {"0.3": -2.0}, "0.3": {}, "0.5": {"0.3": 0.2}}),
        },
        "granularity": {"rows": rows_of(task={}, block={"task": 3.0}, layer=layer)},
        "tasks": {
            "counts": {
                str(n): {
                    OURS: {"beside": {REFERENCE: beside(n - 3.0), TUNED: beside(n - 5.0)}},
                }
                for n in range(2, 7)
            }
        },
        "selection": {
            "choices": {
                f"step/{OURS}": {"rows": rows_of(**choices)},
                "variant": {"rows": rows_of(**choices)},
            }
        },
        "cost": {
            "cost_seed": 3,
            "rows": {
                REFERENCE: {"seconds": 0.2, "above_gb": 0.1},
                OURS: {"seconds": 41.0, "above_gb": 0.5},
                "wudi": {"seconds": 50.0, "above_gb": 0.4},
            },
        },
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_config(tmp_path_factory.mktemp("findings"), "study")


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    layout = write_artifacts(config, steps=2, images=4)
    for name, figures in made_up_studies().items():
        write_json(layout.metric(name), {"git": GIT, **figures})
    run = json.loads(layout.run("evaluate").read_text())
    write_json(layout.run("study"), run | {"stage": "study"})
    return layout


@pytest.fixture
def files(layout: Layout) -> dict[str, Any]:
    return copy.deepcopy(dict(read_files(layout)))


def say(statement: Any, files: dict[str, Any], config: Config) -> str:
    text = statement(Look(files, config))
    assert text is not None
    return text.replace("\N{NO-BREAK SPACE}", " ")


def headline(statement: Any, files: dict[str, Any], config: Config) -> str:
    return say(statement, files, config).split("**")[1]


def set_average(files: dict[str, Any], method: str, value: float) -> None:
    files["clean"][method] |= {
        "avg": value,
        "seeds": dict.fromkeys(files["clean"][method]["seeds"], value),
    }
    compare(files["clean"])


# ---- The page


def test_everything_is_said_and_every_key_is_there(files: dict[str, Any], config: Config) -> None:
    found = findings(files, config)
    assert {section: len(group) for section, group in found.items()} == {
        section: len(statements) for section, statements in SECTIONS.items()
    }
    for one in (one for group in found.values() for one in group):
        assert one.sources, one.text
        for file, key in one.sources:
            if not key.startswith("*/"):  # of every method
                assert Look(files, config)(file, *key.split("/")) is not None, key


def test_the_page_leads_to_files_and_runs(config: Config, layout: Layout) -> None:
    blocks = findings_blocks(config, layout)
    text, runs = blocks["findings"], blocks["findings-runs"]
    assert text and runs
    assert f"[clean.json](../metrics/study/clean.json): `{OURS}/avg`, `{REFERENCE}/avg`" in text
    assert all(f"[{name}.json]" in runs for name in FILES)
    assert "| `study` | 3, 4, 5 | `0123456789` |" in runs
    assert "[cost.json](../metrics/study/cost.json) | `study` | 3 | `0123456789` |" in runs
    assert "| `generalization` | 3, 4, 5 | `0123456789` with changes |" in runs
    missing = blocks["findings-missing"]
    assert missing and "not there yet" not in missing
    assert "Methods that were not run: SLERP." in missing
    assert "7 of 19" in missing


def test_what_was_not_measured_is_left_out_and_listed(config: Config, tmp_path: Path) -> None:
    layout = Layout(tmp_path, "study")
    blocks = findings_blocks(config, layout)
    assert set(blocks.values()) == {None}
    row = {"avg": 70.0, "seeds": {"0": 70.0}, "tasks": {"mnist": 70.0}}
    write_json(layout.metric("clean"), {OURS: row, REFERENCE: row | {"avg": 60.0}})
    blocks = findings_blocks(config, layout)
    assert blocks["findings"] and blocks["findings-missing"]
    assert blocks["findings-runs"] is None
    assert blocks["findings"].count("\n- ") == 1
    assert "one seed, no interval: not clear" in blocks["findings"]
    topics = [s.__doc__.rstrip(".") for group in SECTIONS.values() for s in group]
    for topic in topics[1:]:
        assert (
            f"- {topic}: its figures are not there yet (`{COMMAND}`)." in blocks["findings-missing"]
        )


# ---- Clean images


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


# ---- Corrupted images, unseen tasks


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


def test_unseen_tasks_by_name(files: dict[str, Any], config: Config) -> None:
    tasks = files["leave_two_out"][OURS]["tasks"]
    for place, task in enumerate(tasks):
        tasks[task]["gap"] = [-4.0, 2.0, 0.0][min(place, 2)]
    text = say(beyond.unseen_tasks, files, config)
    assert "above zero on 1 of 8 tasks" in text
    assert f"gains on mini Cars (+2.0) and loses on mini SUN397 ({MINUS}4.0)." in text


# ---- Studies


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
