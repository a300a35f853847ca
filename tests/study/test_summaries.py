"""The studies' figures, from made-up measurements: by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pipeline.evaluation import Predictions
from pipeline.study import budget, cost, entropy_loss, granularity, initial, selection, tasks
from pipeline.study.measuring import Measured
from pipeline.study.selection import Candidate
from pipeline.study.traces import Trace
from pipeline.study.validators import entropy, information, neighborhood_density, scores_of
from pipeline.study.variants import BEFORE, Result, rows

N = 100
PLACES = {task: [np.arange(N), np.arange(N) + N] for task in ("a", "b")}


def model(right, tasks=("a", "b")):
    """So many of each task's images are right, the first ones."""
    return Measured(
        {task: np.full(4, 0.5) for task in tasks}, {task: np.arange(N) < right for task in tasks}
    )


def result(right, steps=10, collapsed=()):
    facts = {"seconds_in_all": 2.0 * steps, "collapsed": dict.fromkeys(collapsed, 3)}
    return Result(model(right), Trace((0, steps), (0.0, 1.0), torch.zeros(2, 1, 2), facts))


def seeds(first, second):
    return {3: result(first), 4: result(second, 20, ["b"])}


# ---- Variants


def test_variants_beside_each_other():
    found = rows({"x": seeds(90, 80), "y": seeds(70, 60)}, PLACES, ("y",))
    assert found["y"]["beside"] == {}
    ours = found["x"]
    assert (ours["avg"], ours["avg_sd"]) == (85, round(10 / math.sqrt(2), 2))
    assert ours["seeds"] == {"3": 90, "4": 80} and ours["entropy"] == 1.0
    assert (ours["steps"], ours["seconds"], ours["collapsed"]) == (15, 30, ["b"])
    gap = ours["beside"]["y"]
    assert gap["difference"] == 20 and (gap["wins"], gap["tasks"]) == (2, 2)
    # 20 of 100 images of each of two tasks and seeds: 4 x 0.2 x 0.8 / 100 / 16, its root in points.
    error = 100 * math.sqrt(4 * 0.16 / N / 16)
    low, high = gap["interval"]
    assert low == pytest.approx(20 - 1.96 * error, abs=0.3)
    assert high == pytest.approx(20 + 1.96 * error, abs=0.3)


def test_a_row_where_nothing_was_learned_has_no_steps():
    before = {3: Result(model(50)), 4: Result(model(50))}
    found = budget.summary({BEFORE: before, "all": seeds(60, 60)}, PLACES, [900, 800])
    assert found["all"] == 800
    assert "steps" not in found["rows"][BEFORE]
    assert found["rows"]["all"]["beside"][BEFORE]["difference"] == 10


def test_budgets_are_those_below_what_there_is():
    assert budget.sizes(900) == [1, 4, 16, 64, 256]
    assert budget.sizes(64) == [1, 4, 16]
    assert budget.sizes(1) == []


def test_first_values_have_what_they_start_from():
    results = {"0.2": seeds(80, 80), "0.3": seeds(80, 80)}
    starts = {name: {3: model(50), 4: model(60)} for name in results}
    row = initial.summary(results, starts, PLACES)["rows"]["0.2"]
    assert row["start"] == {"avg": 55, "avg_sd": 7.07}
    assert row["beside"]["0.3"] == {"difference": 0, "interval": [0, 0], "wins": 0, "tasks": 2}


def test_granularities_are_compared_with_all_others():
    names = (BEFORE, *granularity.METHODS)
    found = granularity.summary(
        {name: seeds(60, 60 + k) for k, name in enumerate(names)}, PLACES, {"task": 2, "layer": 99}
    )["rows"]
    assert found["layer"]["beside"].keys() == {BEFORE, "task", "block"}
    assert found["layer"]["coefficients"] == 99 and found["task"]["coefficients"] == 2


# ---- Number of tasks


def test_sets_of_tasks_are_nested_and_drawn_by_the_seed():
    names = list("abcdefgh")
    found = tasks.subsets(names, 3)
    assert list(found) == [2, 3, 4, 5, 6, 7, 8] and found[8] == tuple(names)
    for count in range(2, 8):
        assert len(found[count]) == count and set(found[count]) < set(found[count + 1])
        assert sorted(found[count]) == list(found[count])
    assert found == tasks.subsets(names, 3)
    assert len({tasks.subsets(names, seed)[2] for seed in range(20)}) > 5


def test_numbers_of_tasks_normalised_by_the_experts():
    def methods(first, second, names):
        learned = dict.fromkeys(tasks.LEARNED, model(first, names))
        return {m: model(second, names) for m in tasks.STUDIED} | learned

    found = {2: {3: methods(80, 40, "ab"), 4: methods(80, 60, "bc")}}
    experts = {3: {"a": 80.0, "b": 40.0, "c": 1.0}, 4: {"a": 1.0, "b": 80.0, "c": 80.0}}
    images = {s: {task: np.arange(N) for task in "abc"} for s in (3, 4)}
    row = tasks.summary(found, experts, images)["counts"]["2"]
    ours, theirs = row["adamerging_layerwise"], row["task_arithmetic"]
    assert ours["normalized"] == 125 and theirs["normalized"] == 75
    assert theirs["normalized_sd"] == 0 and theirs["avg"] == 50 and theirs["beside"] == {}
    assert ours["beside"]["task_arithmetic"]["difference"] == 30
    assert ours["beside"]["task_arithmetic"]["tasks"] == 4  # each under each seed
    experts[4]["c"] = 0.0
    row = tasks.summary(found, experts, images)["counts"]["2"]
    assert row["task_arithmetic"]["normalized"] is None


# ---- Entropy against loss


def predictions(entropies, chances):
    n = len(entropies)
    label = np.zeros(n, np.int64)
    top = np.zeros((n, 2), np.int16)
    p = np.asarray(chances, np.float32)
    return Predictions(np.arange(n), label, top, p, p, np.asarray(entropies, np.float32), p)


def test_rank_correlation_is_scipys_with_ties():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 9, (3, 50)), rng.integers(0, 9, (3, 50))
    expected = [spearmanr(a, b).statistic for a, b in zip(ours, theirs, strict=True)]
    assert entropy_loss.spearman(ours, theirs) == pytest.approx(expected)
    assert entropy_loss.spearman(np.ones(4), np.arange(4)) == 0


def test_groups_have_like_entropies():
    found = predictions(np.arange(20)[::-1], np.exp(-np.arange(20.0)[::-1]))
    entropies, losses = entropy_loss.grouped(found)
    assert entropies.tolist() == [0.5 + 2 * k for k in range(10)]
    assert losses == pytest.approx(entropies, rel=1e-5)
    assert len(entropy_loss.grouped(predictions([1, 2], [0.5, 0.5]))[0]) == 2


def test_entropy_and_loss_of_two_tasks():
    alike = predictions(np.arange(20), np.exp(-np.arange(20.0)))
    opposite = predictions(np.arange(20), np.exp(-np.arange(20.0)[::-1]))
    row = entropy_loss.summary({"m": {"a": [alike, alike], "b": [alike, opposite]}})["methods"]["m"]
    assert row["tasks"]["a"]["images"] == 1 and row["tasks"]["b"]["images"] == 0
    assert row["images"] == 0.5 and row["groups"] == 0.5
    assert row["images_interval"] == [0.5, 0.5]  # any images of these are in order
    assert row["tasks"]["b"]["loss"] == [9.5] * 10


# ---- Selection


def test_validators_in_closed_form():
    sure, even = np.eye(4), np.full((4, 4), 0.25)
    assert entropy(even) == pytest.approx(math.log(4)) and entropy(sure) == 0
    assert information(sure) == pytest.approx(math.log(4)) and information(even) == 0
    # All alike: every other image is as near.
    assert neighborhood_density(even) == pytest.approx(math.log(3))
    assert neighborhood_density(sure) == pytest.approx(math.log(3))
    pairs = np.repeat(np.eye(2), 2, axis=0)
    odds = np.array([1.0, math.exp(-20), math.exp(-20)])
    odds /= odds.sum()
    assert neighborhood_density(pairs) == pytest.approx(-(odds * np.log(odds)).sum())
    assert neighborhood_density(even[:1]) == 0


def test_density_does_not_depend_on_blocks(monkeypatch):
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    whole = neighborhood_density(shares)
    monkeypatch.setattr("pipeline.study.validators._ROWS", 7)
    assert neighborhood_density(shares) == pytest.approx(whole)


def test_scores_are_means_over_tasks():
    shares = {"a": np.eye(2), "b": np.full((2, 2), 0.5)}
    found = scores_of(shares, {"a": np.array([0, 1]), "b": np.array([1, 1])})
    assert found["entropy"] == pytest.approx(math.log(2) / 2)
    assert found["accuracy"] == 50


def candidate(right, entropy, snd=0.0):
    scores = {"entropy": entropy, "infomax": 1.0, "snd": snd, "accuracy": 50.0}
    return Candidate(scores, model(right))


def test_choices_against_the_oracle():
    found = {
        "0": {3: candidate(90, 3.0), 4: candidate(50, 3.0, snd=1.0)},
        "5": {3: candidate(80, 1.0), 4: candidate(70, 2.0)},
        "9": {3: candidate(60, 2.0, snd=1.0), 4: candidate(60, 2.5)},
    }
    choice = selection.summary({"step": found}, PLACES)["choices"]["step"]
    own = choice["rows"]
    assert choice["candidates"] == 3
    assert own["oracle"]["chosen"] == {"3": "0", "4": "5"} and own["oracle"]["avg"] == 80
    assert own["entropy"]["chosen"] == {"3": "5", "4": "5"}
    assert own["snd"]["chosen"] == {"3": "9", "4": "0"}
    assert own["infomax"]["chosen"] == {"3": "0", "4": "0"}  # the first of equals
    assert own["none"]["chosen"] == {"3": "9", "4": "9"}
    assert own["entropy"]["beside"]["oracle"]["difference"] == -5
    assert own["entropy"]["beside"]["none"]["difference"] == 15
    assert own["oracle"]["beside"].keys() == {"none"}


# ---- Cost


def test_costs_are_in_order():
    def record(seconds, peak):
        return {"seconds": seconds, "peak_gb": peak, "before_gb": 0.4, "steps": 3, "machine": {}}

    found = cost.summary(
        {"adamerging_layerwise": record(6, 0.9), "task_arithmetic": record(1, 0.5)}
    )
    assert list(found["rows"]) == ["task_arithmetic", "adamerging_layerwise"]
    assert found["rows"]["adamerging_layerwise"] == {
        **{"seconds": 6, "peak_gb": 0.9, "above_gb": 0.5, "steps": 3, "learns": True}
    }
