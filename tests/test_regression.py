"""What counts as a fall and as noise: made-up figures, and the miniature's."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.regression import averages, changes, compare, summary_table
from pipeline.statistics import Interval

ROOT = Path(__file__).parents[1]
METRICS = ROOT / "metrics"

Metrics = dict[str, Any]


def accuracy(value: float, half: float | None = None, sd: float = 0.0) -> Metrics:
    """A method's row in clean.json, with an interval of this half width if any."""
    row: Metrics = {"avg": value, "avg_sd": sd, "worst": 50.0, "tasks": {"mnist": value}}
    return row if half is None else {**row, "avg_interval": [value - half, value + half]}


def robust(value: float, sd: float = 0.0) -> Metrics:
    """A method's row in robustness.json: it holds no interval."""
    return {"avg": value, "avg_sd": sd, "clean": 80.0, "corruptions": {"spatter": {"1": 60.0}}}


def split(seen: float, unseen: float, pretrained: float = 45.0, half: float = 1.5) -> Metrics:
    """A method's row in generalization.json."""
    gap = unseen - pretrained
    row = {"seen": seen, "unseen": unseen, "gap": gap, "gap_interval": [gap - half, gap + half]}
    return {**row, "seen_sd": 0.0, "unseen_sd": 0.0, "tasks": {"mnist": unseen}}


@pytest.fixture
def metrics() -> Metrics:
    return {
        "clean": {"ties": accuracy(71.2, half=0.9), "experts": accuracy(90.0, half=0.5)},
        "robustness": {
            "clean": {"ties": robust(55.0), "experts": robust(70.0)},
            "adapted": {"adamerging_layerwise": robust(60.0)},
        },
        "generalization": {
            "unseen_mnist_eurosat": {"ties": split(72.0, 40.0)},
            "unseen_resisc45_svhn": {"ties": split(70.0, 50.0)},
        },
    }


@pytest.fixture
def other(metrics: Metrics) -> Metrics:
    """The same metrics, for a test to change."""
    return copy.deepcopy(metrics)


@pytest.fixture(scope="module")
def mini() -> Metrics:
    """The committed metrics of the miniature."""
    names = ("clean", "robustness", "generalization")
    return {
        name: json.loads((METRICS / "mini" / f"{name}.json").read_text("utf-8")) for name in names
    }


def shifted(metrics: Metrics, name: str, points: float) -> Metrics:
    """Metrics of a model that is better or worse in one average, by so many points."""
    changed = copy.deepcopy(metrics)
    *parents, key = name.split("/")
    row = changed
    for parent in parents:
        row = row[parent]
    row[key] += points
    for moved in {"avg": ["avg_interval"], "unseen": ["gap_interval"]}.get(key, []):
        if moved in row:
            row[moved] = [end + points for end in row[moved]]
    if key == "unseen":
        row["gap"] += points
    return changed


def listed(before: Metrics, after: Metrics, max_drop: float = 1.0) -> list[str]:
    return [str(finding) for finding in compare(before, after, max_drop)]


def test_equal_metrics_have_no_findings(metrics: Metrics, mini: Metrics):
    assert compare(metrics, metrics) == []
    assert compare(mini, mini) == []


def test_the_interval_of_a_change_is_the_textbook_s_for_correlated_means():
    error, other_error = 0.4, 0.7  # standard errors of two means of normal variables
    z = NormalDist().inv_cdf(0.975)
    before = {"clean": {"ties": accuracy(70.0, half=z * error)}}
    after = {"clean": {"ties": accuracy(71.0, half=z * other_error)}}
    variance = error**2 + other_error**2 - 2 * 0.5 * error * other_error
    spread = NormalDist(1.0, math.sqrt(variance))
    noise = changes(before, after)["clean/ties/avg"].noise
    ends = [spread.inv_cdf(0.025), spread.inv_cdf(0.975)]
    assert [noise.low, noise.high] == pytest.approx(ends, abs=0.005)


def test_unequal_sides_meet_crosswise():
    before = {"clean": {"ties": {"avg": 70.0, "avg_interval": [55.0, 78.0]}}}
    after = {"clean": {"ties": {"avg": 60.0, "avg_interval": [55.0, 67.0]}}}
    noise = changes(before, after)["clean/ties/avg"].noise
    # Triangles with 60 degrees between 5 = 60 - 55 and 8 = 78 - 70, and between 7 and 15.
    assert [noise.low, noise.high] == [-10.0 - 7.0, -10.0 + 13.0]


@pytest.mark.parametrize(
    ("name", "inside", "beyond", "line"),
    [
        (
            "clean/ties/avg",
            0.9,
            0.91,
            "71.20 -> 70.29 (-0.91, 95 % interval -1.81 to -0.01)",
        ),
        (
            "generalization/unseen_mnist_eurosat/ties/unseen",
            1.5,
            3.1,
            "40.00 -> 36.90 (-3.10, 95 % interval -4.60 to -1.60)",
        ),
        (
            "robustness/adapted/adamerging_layerwise/avg",
            1.0,  # 60.0 - 59.0, and so on, may be a little more than 1 in binary
            1.01,
            "60.00 -> 58.99 (-1.01, no interval: allowed 1.00)",
        ),
        (
            "generalization/unseen_resisc45_svhn/ties/seen",
            1.0,
            3.1,
            "70.00 -> 66.90 (-3.10, no interval: allowed 1.00)",
        ),
    ],
)
def test_a_fall_inside_and_beyond_noise(
    metrics: Metrics, name: str, inside: float, beyond: float, line: str
):
    assert compare(metrics, shifted(metrics, name, -inside)) == []
    assert compare(metrics, shifted(metrics, name, inside)) == []
    (fell,) = compare(metrics, shifted(metrics, name, -beyond))
    assert str(fell) == f"{name} fell: {line}"
    assert fell.fails
    (rose,) = compare(metrics, shifted(metrics, name, beyond))
    assert rose.kind == "rose" and not rose.fails


def test_the_allowance_is_for_averages_without_an_interval(metrics: Metrics):
    seen = shifted(metrics, "generalization/unseen_resisc45_svhn/ties/seen", -3.1)
    assert compare(metrics, seen, max_drop=4.0) == []
    clean = shifted(metrics, "clean/ties/avg", -3.1)
    assert len(compare(metrics, clean, max_drop=4.0)) == 1


@pytest.mark.parametrize("without", ["before", "after"])
def test_an_interval_that_one_side_lacks_or_that_has_no_width_is_none(
    metrics: Metrics, other: Metrics, without: str
):
    row = {"before": metrics, "after": other}[without]["clean"]["ties"]
    del row["avg_interval"]
    other["clean"]["ties"]["avg"] = 70.0
    (line,) = listed(metrics, other)
    assert line.endswith("(-1.20, no interval: allowed 1.00)")
    row["avg_interval"] = [row["avg"]] * 2
    assert listed(metrics, other) == [line]


@pytest.mark.parametrize("noisy", ["before", "after"])
def test_seed_noise_widens_the_allowance(metrics: Metrics, other: Metrics, noisy: str):
    {"before": metrics, "after": other}[noisy]["robustness"]["clean"]["ties"]["avg_sd"] = 1.05
    name = "robustness/clean/ties/avg"
    assert compare(metrics, shifted(other, name, -3.1)) == []
    assert listed(metrics, shifted(other, name, -3.2)) == [
        f"{name} fell: 55.00 -> 51.80 (-3.20, no interval: allowed 3.10)"
    ]


def test_what_is_no_average_does_not_count(metrics: Metrics, other: Metrics):
    other["clean"]["ties"]["worst"] = 0.0
    other["clean"]["ties"]["tasks"]["mnist"] = 0.0
    other["robustness"]["clean"]["ties"]["corruptions"]["spatter"]["1"] = 0.0
    assert compare(metrics, other) == []


def test_vanished_methods_and_splits_fail_and_stand_first(metrics: Metrics, other: Metrics):
    other["clean"]["unheard_of"] = accuracy(70.0)
    del other["clean"]["ties"]
    del other["generalization"]["unseen_resisc45_svhn"]
    findings = compare(metrics, other)
    assert [str(finding) for finding in findings] == [
        "clean/ties/avg 71.20 -> vanished",
        "generalization/unseen_resisc45_svhn/ties/seen 70.00 -> vanished",
        "generalization/unseen_resisc45_svhn/ties/unseen 50.00 -> vanished",
        "clean/unheard_of/avg 70.00 is new",
    ]
    assert [finding.fails for finding in findings] == [True, True, True, False]


def test_summary_table_has_titles_and_changes(metrics: Metrics, other: Metrics):
    other["clean"]["ties"]["avg"] = 68.1
    other["generalization"]["unseen_mnist_eurosat"]["ties"]["unseen"] = 42.0
    del other["clean"]["experts"], other["robustness"]["clean"]["experts"]
    other["clean"]["unheard_of"] = accuracy(70.0)
    assert summary_table(metrics, other).splitlines() == [
        "| Method | Clean | Robust | Unseen |",
        "| :-- | --: | --: | --: |",
        "| TIES-merging | 68.10 (-3.10) | 55.00 (+0.00) | 46.00 (+1.00) |",
        "| unheard_of | 70.00 (new) |  |  |",
        "| Experts (upper bound) | vanished (90.00) | vanished (70.00) |  |",
    ]


def stored_pairs(clean: Metrics) -> Iterator[tuple[str, str, Interval]]:
    """(a, b, interval of a less b): what the pipeline resampled pairwise, on the same images."""
    for method, row in clean.items():
        for rival, found in row["beside"].items():
            yield method, rival, Interval(*found["interval"])


@pytest.mark.parametrize("profile", ["mini", "study"])
def test_one_method_in_another_s_place_against_the_paired_bootstrap(profile: str):
    """The rule is never the narrower one where methods are near, and never calls another winner."""
    clean = json.loads((METRICS / profile / "clean.json").read_text("utf-8"))
    outcomes = set()
    for method, rival, paired in stored_pairs(clean):
        before, after = {"clean": {"one": clean[rival]}}, {"clean": {"one": clean[method]}}
        change = changes(before, after)["clean/one/avg"]
        assert change.measured
        if abs(change.points) < 5:
            assert change.noise.low <= paired.low and paired.high <= change.noise.high
        if change.noise.clear:
            assert paired.clear and (paired.low > 0) == (change.noise.low > 0)
        outcomes.add((change.noise.clear, change.points > 0))
    assert outcomes >= {(True, True), (True, False), (False, True)}


def test_falls_of_the_miniature_s_own_figures(mini: Metrics):
    """Every average is measured or has its allowance; half the noise passes, twice it does not."""
    for name, change in changes(mini, mini).items():
        bound = change.noise.high
        assert bound > 0
        assert compare(mini, shifted(mini, name, -bound / 2)) == []
        (finding,) = compare(mini, shifted(mini, name, -2 * bound))
        assert (finding.name, finding.kind) == (name, "fell")


def test_which_of_the_miniature_s_averages_have_intervals(mini: Metrics):
    measured = {name for name, change in changes(mini, mini).items() if change.measured}
    for name, _ in averages(mini):
        file, *_, method, key = name.split("/")
        has = file == "clean" or (key == "unseen" and method != "pretrained")
        assert (name in measured) == has, name


@pytest.mark.parametrize(
    "row",
    [{"avg": "much"}, {"avg": None}, {"unseen": 1.0, "gap_interval": [0.0, 1.0]}, {"avg": [1]}],
)
def test_a_damaged_row_is_named(row):
    with pytest.raises(UserError, match="damaged at clean/ties/"):
        dict(averages({"clean": {"ties": row}}))
