"""Intervals and comparisons against closed forms, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import binom

from pipeline import statistics as module
from pipeline.statistics import Comparison, Interval, level_with, resample

SIZES = {"cars": 400, "dtd": 150, "mnist": 900}


def outcomes(rng, share, sizes=SIZES, seeds=1):
    """Task -> for every seed whether each image is right, with probability `share`."""
    return {task: [rng.random(n) < share for _ in range(seeds)] for task, n in sizes.items()}


def numbered(sizes=SIZES, seeds=1, apart=True):
    """Task -> for every seed the images' numbers: new ones for each seed, or the same."""
    return {
        task: [np.arange(n) + apart * seed * n for seed in range(seeds)]
        for task, n in sizes.items()
    }


def variance_of(correct):
    """Of the average in percent: of binomial shares, each of its task and seed."""
    shares = [
        right.var() / len(right) / len(seeds) ** 2 for seeds in correct.values() for right in seeds
    ]
    return 1e4 * sum(shares) / len(correct) ** 2


def width(interval):
    return interval.high - interval.low


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("share", [0.5, 0.85])
def test_spread_is_that_of_binomial_shares(share, seeds):
    correct = outcomes(np.random.default_rng(seeds), share, seeds=seeds)
    found = resample({"a": correct}, numbered(seeds=seeds))
    assert found.draws["a"].shape == (module.DRAWS,)
    assert found.draws["a"].var() == pytest.approx(variance_of(correct), rel=0.08)
    assert found.draws["a"].mean() == pytest.approx(found.average("a"), abs=0.1)
    expected = 2 * 1.96 * variance_of(correct) ** 0.5
    assert width(found.interval("a")) == pytest.approx(expected, rel=0.06)


def test_draws_of_one_task_are_binomial():
    right = np.arange(20) < 13
    draws = resample({"a": {"dtd": [right]}}, numbered({"dtd": 20}), draws=20_000).draws["a"]
    counts = np.arange(21)
    below = [(draws <= 5 * count + 1e-6).mean() for count in counts]
    np.testing.assert_allclose(below, binom(20, 13 / 20).cdf(counts), atol=0.012)


def test_averages_are_means_over_tasks_of_means_over_seeds():
    correct = {
        "cars": [np.array([1, 1, 0, 0], bool), np.array([1, 1], bool)],
        "dtd": [np.array([0, 0], bool), np.array([1, 0, 0, 0], bool)],
    }
    images = {"cars": [np.arange(4), np.arange(2)], "dtd": [np.arange(2), np.arange(4)]}
    found = resample({"a": correct}, images)
    assert found.tasks["a"] == {"cars": 75, "dtd": 12.5}
    assert found.average("a") == 43.75


@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds):
    """Of a single average and of a difference whose methods are right on much the same images."""
    rng, sizes = np.random.default_rng(seeds), {"cars": 120, "dtd": 80}
    images, rounds = numbered(sizes, seeds), 400
    held = np.zeros(2)
    for number in range(rounds):
        first = outcomes(rng, 0.7, sizes, seeds)
        kept = outcomes(rng, 0.9, sizes, seeds)
        second = {t: [a & k for a, k in zip(first[t], kept[t], strict=True)] for t in sizes}
        found = resample({"a": first, "b": second}, images, draws=400, seed=number)
        alone, pair = found.interval("a"), found.compare("a", "b").interval
        held += [alone.low <= 70 <= alone.high, pair.low <= 7 <= pair.high]
    # 95 % of 400 rounds, give or take three standard deviations.
    assert (np.abs(held / rounds - 0.95) < 3 * (0.95 * 0.05 / rounds) ** 0.5).all()


def test_differences_are_of_the_same_images():
    rng = np.random.default_rng(4)
    first = outcomes(rng, 0.7)
    changed = outcomes(rng, 0.02)
    second = {task: [first[task][0] ^ changed[task][0]] for task in SIZES}
    found = resample({"a": first, "b": second}, numbered())
    pair = found.compare("a", "b")
    assert pair.difference == pytest.approx(found.average("a") - found.average("b"))
    steps = {t: [first[t][0].astype(float) - second[t][0]] for t in SIZES}
    expected = 2 * 1.96 * variance_of(steps) ** 0.5
    assert width(pair.interval) == pytest.approx(expected, rel=0.08)
    assert width(pair.interval) < width(found.interval("a")) / 3
    other = found.compare("b", "a")
    assert other.difference == -pair.difference
    assert (other.interval.low, other.interval.high) == pytest.approx(
        (-pair.interval.high, -pair.interval.low)
    )


def test_equal_methods_do_not_differ():
    correct = outcomes(np.random.default_rng(5), 0.6)
    names = [f"method {number}" for number in range(9)]
    found = resample(dict.fromkeys(names, correct), numbered())
    for name in names:
        pair = found.compare(name, names[0])
        assert pair == Comparison(0, Interval(0, 0), wins=0, tasks=3)
        assert not pair.interval.clear


def test_what_is_always_right_has_an_interval_without_width():
    found = resample({"a": {t: [np.ones(n, bool)] for t, n in SIZES.items()}}, numbered())
    assert found.interval("a") == Interval(100, 100)


def test_seeds_on_the_same_images_are_not_more_images():
    correct = outcomes(np.random.default_rng(6), 0.7)
    thrice = {task: seeds * 3 for task, seeds in correct.items()}
    one = resample({"a": correct}, numbered())
    same = resample({"a": thrice}, numbered(seeds=3, apart=False))
    np.testing.assert_allclose(same.draws["a"], one.draws["a"], atol=1e-8)
    apart = resample({"a": thrice}, numbered(seeds=3))
    ratio = width(one.interval("a")) / width(apart.interval("a"))
    assert ratio == pytest.approx(3**0.5, rel=0.08)


def test_images_that_some_seeds_share_are_drawn_for_these_together():
    """Half of the images of either seed are the other's: against the sum over images."""
    right = np.random.default_rng(7).random(300) < 0.7
    images = {"dtd": [np.arange(200), np.arange(100, 300)]}
    correct = {"a": {"dtd": [right[:200], right[100:]]}}
    lifts = np.zeros(300)
    for place in images["dtd"]:
        lifts[place] += (right[place] - right[place].mean()) / 400
    expected = 1e4 * (lifts**2).sum()
    assert resample(correct, images).draws["a"].var() == pytest.approx(expected, rel=0.08)


def test_nothing_depends_on_the_order_of_tasks_images_and_methods():
    rng = np.random.default_rng(8)
    correct, images = {m: outcomes(rng, 0.7, seeds=2) for m in "abc"}, numbered(seeds=2)
    found = resample(correct, images)
    orders = {task: [rng.permutation(n) for _ in range(2)] for task, n in SIZES.items()}

    def turned(arrays):
        return {
            task: [array[order] for array, order in zip(arrays[task], orders[task], strict=True)]
            for task in reversed(SIZES)
        }

    again = resample({m: turned(correct[m]) for m in "ca"}, turned(images))
    for method in "ca":
        np.testing.assert_allclose(again.draws[method], found.draws[method], atol=1e-8)
        assert again.tasks[method] == pytest.approx(found.tasks[method])
    assert again.compare("a", "c").wins == found.compare("a", "c").wins


def test_draws_are_the_same_each_time_and_differ_between_seeds(monkeypatch):
    correct, images = {"a": outcomes(np.random.default_rng(9), 0.7)}, numbered()
    found = resample(correct, images).draws["a"]
    assert np.array_equal(resample(correct, images).draws["a"], found)
    assert not np.array_equal(resample(correct, images, seed=1).draws["a"], found)
    monkeypatch.setattr(module, "_ENTRIES", 5000)  # blocks of a few draws
    np.testing.assert_allclose(resample(correct, images).draws["a"], found, atol=1e-8)


def test_wins_are_counted_over_tasks():
    def shares(*values):
        return {f"t{k}": [np.arange(10) < value] for k, value in enumerate(values)}

    correct = {"a": shares(9, 5, 5, 1), "b": shares(4, 5, 4, 2)}
    found = resample(correct, numbered({f"t{k}": 10 for k in range(4)}))
    assert (found.compare("a", "b").wins, found.compare("b", "a").wins) == (2, 1)
    assert found.compare("a", "b").tasks == 4


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(0.1, 2, True), (-2, -0.1, True), (-1, 1, False), (0, 1, False), (-1, 0, False)],
)
def test_a_difference_is_clear_where_zero_lies_outside(low, high, clear):
    assert Interval(low, high).clear is clear


def test_what_rounds_to_zero_is_not_clear_in_the_files():
    pair = Comparison(0.5049, Interval(0.004, 1.006), wins=5, tasks=8)
    assert pair.rounded() == {"difference": 0.5, "interval": [0.0, 1.01], "wins": 5, "tasks": 8}
    assert not Interval(*pair.rounded()["interval"]).clear
    assert str(Interval(-0.001, 1).rounded()) == "[0.0, 1.0]"


def test_methods_level_with_the_best():
    def beside(low, high):
        return {"beside": {"best": {"interval": [low, high]}}}

    rows = {
        "worse": beside(-3, -1),
        "level": beside(-1, 0.5),
        "best": {"beside": {}},
        "touching": beside(-1, 0.0),
        "better": beside(0.2, 1),
    }
    assert level_with("best", rows) == ("level", "best", "touching")
