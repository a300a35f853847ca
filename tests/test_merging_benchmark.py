"""How the benchmark of merging judges what it measured. Nothing is timed."""

import math

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.merging import apart, misses, ratios

THEIRS = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[1.0, 2.0], [2.0, 0.0]])}


def compared(tmp_path, ours, theirs=THEIRS):
    for name, tensors in (("ours", ours), ("theirs", theirs)):
        save_file(tensors, tmp_path / name)
    return apart(tmp_path / "ours", tmp_path / "theirs")


def test_results_are_apart_by_the_worst_tensor(tmp_path):
    assert compared(tmp_path, THEIRS) == 0
    ours = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([[1.0, 2.0], [2.0, 0.6]])}
    assert compared(tmp_path, ours) == pytest.approx(0.2)  # 0.5 of 5, and 0.6 of 3
    assert compared(tmp_path, ours | {"more": torch.ones(1)}) == pytest.approx(0.2)
    zeros = {"a": torch.zeros(2)}
    assert compared(tmp_path, zeros, zeros) == 0


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["ours", "theirs", "both"])
def test_what_is_not_finite_is_infinitely_far_apart(side, value, name, tmp_path):
    wrong = THEIRS | {name: torch.full_like(THEIRS[name], value)}
    ours, theirs = (wrong if side in (own, "both") else THEIRS for own in ("ours", "theirs"))
    assert compared(tmp_path, ours, theirs) == math.inf


def test_what_cannot_be_compared_is_infinitely_far_apart(tmp_path):
    assert compared(tmp_path, {"a": THEIRS["a"]}) == math.inf
    assert compared(tmp_path, THEIRS | {"a": torch.ones(1)}) == math.inf
    assert compared(tmp_path, THEIRS, {}) == math.inf
    assert compared(tmp_path, THEIRS, {"a": torch.zeros(2)}) == math.inf


def test_ratios_are_of_the_least_samples():
    found = {
        "seconds": {"ours": [2.0, 5.0], "theirs": [9.0, 6.0]},
        "bytes": {"ours": [30, 10], "theirs": [40, 50]},
    }
    assert ratios(found) == {"faster": 3.0, "memory": 0.25}


TARGETS = {"faster": 2, "memory": 0.5, "apart": 1e-2}
NONE = {"faster": 2, "memory": None, "apart": None}


@pytest.mark.parametrize(
    ("found", "targets", "missed"),
    [
        ({}, TARGETS, []),
        ({"faster": 1.9}, TARGETS, ["T is less than 2 times as fast"]),
        ({"memory": 0.6}, TARGETS, ["T holds more than 0.5 of the memory"]),
        ({"apart": 0.02}, TARGETS, ["T: results are 2e-02 apart"]),
        ({"apart": None}, TARGETS, ["T: results are inf apart"]),  # as JSON has infinity
        ({"memory": 0.6, "apart": None}, NONE, []),
    ],
)
def test_targets_that_are_missed(found, targets, missed):
    method = {"title": "T", "faster": 2.0, "memory": 0.5, "apart": 0.01, "targets": targets}
    assert misses({"methods": {"t": method | found}}) == missed
