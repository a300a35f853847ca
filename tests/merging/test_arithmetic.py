"""Sums and means of task vectors in any precision, and how experts are read."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from streamed import Watched, double, flat, flat_rows, only, unreadable

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.merging.arithmetic import experts, task_arithmetic, ties, uniform, weight_average
from pipeline.vectors import TaskVectors

ORACLE = np.load(Path(__file__).with_name("ties_oracle.npz"))


def close(weights, expected, tolerance=1e-14):
    np.testing.assert_allclose(flat(weights), expected, rtol=0, atol=tolerance)


def reduced(column, sign, reduce):
    """Of one entry of all tasks, the values that agree."""
    agreeing = [value for value in column if value * sign > 0]
    total = sum(agreeing)
    return total / max(1, len(agreeing)) if reduce == "mean" else total


@pytest.mark.parametrize("keep", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_ties_is_the_papers_formula_entry_by_entry(vectors, reduce, keep):
    vectors = double(vectors)
    rows = flat_rows(vectors)
    trimmed = np.zeros_like(rows)
    for row, tau in zip(trimmed, rows, strict=True):
        largest = sorted(range(len(tau)), key=lambda entry: -abs(tau[entry]))
        kept = largest[: int(keep * len(tau))]
        row[kept] = tau[kept]
    balance = np.sign(np.sign(trimmed.sum(0)).sum())
    change = [reduced(column, np.sign(column.sum()) or balance, reduce) for column in trimmed.T]
    merged = ties(vectors, None, 0, coefficient=0.7, keep=keep, reduce=reduce).weights()
    close(merged, flat(vectors.pretrained) + 0.7 * np.array(change), 1e-12)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_ties_is_fusion_benchs(reduce):
    deltas = torch.from_numpy(ORACLE["deltas"])
    start = {"w": torch.zeros(deltas.shape[1], dtype=deltas.dtype)}
    vectors = TaskVectors(tuple("abcd"), start, {"w": deltas})
    keep = (int(0.3 * deltas.shape[1]) + 1.5) / deltas.shape[1]  # it keeps one entry more
    merged = ties(vectors, None, 0, coefficient=1.0, keep=keep, reduce=reduce).weights()
    np.testing.assert_allclose(merged["w"], ORACLE[reduce], rtol=0, atol=1e-15)


def test_the_mean_of_identical_experts_is_the_expert(vectors):
    vectors = only(double(vectors), "cars", "cars", "cars")
    merged = ties(vectors, None, 0, coefficient=1.0, keep=1.0, reduce="mean").weights()
    close(merged, flat(vectors.pretrained) + flat_rows(vectors)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce": "means"}, r"reduce of ties 'means'\. Did you mean mean\?"),
        ({"keep": 0.0}, r"keep is 0\.0: give a number above 0 and at most 1\."),
        ({"keep": 20}, "keep is 20"),
        ({"coefficient": float("nan")}, "coefficient is nan"),
    ],
)
def test_options_of_ties_are_checked_before_anything_is_read(options, message):
    given = {"coefficient": 0.3, "keep": 0.2, "reduce": "sum"} | options
    with pytest.raises(UserError, match=message):
        ties(unreadable("a", "b"), None, 0, **given)


def test_coefficients_are_as_precise_as_the_weights(vectors):
    # 1/3 and 0.3 in single precision are off by 1e-8.
    vectors = double(vectors)
    start, rows = flat(vectors.pretrained), flat_rows(vectors)
    close(weight_average(vectors, None, 0).weights(), start + rows.mean(0))
    close(task_arithmetic(vectors, None, 0, 0.3).weights(), start + 0.3 * rows.sum(0))


def test_sums_do_not_depend_on_how_task_vectors_are_kept(vectors):
    named = {task: vectors.expert(task) for task in vectors.tasks}
    lazy = TaskVectors.between(vectors.pretrained, named)
    held = lazy.to(torch.device("cpu"))
    for name, tensor in uniform(lazy, 0.3).weights().items():
        assert torch.equal(tensor, uniform(held, 0.3).weights()[name])


@pytest.mark.parametrize(
    ("method", "reads"),
    [
        (lambda vectors: uniform(vectors, 0.3), 1),
        (lambda vectors: ties(vectors, None, 0, 0.3, 0.2, "sum"), 4),
    ],
)
def test_one_tensor_is_in_memory_at_a_time(vectors, method, reads):
    watched = Watched(vectors)
    shared = method(watched.vectors).shared
    found = {name: shared[name] for name in shared}
    assert set(watched.reads.values()) == {reads}
    assert watched.most == 1
    close(found, flat(method(vectors).weights()), 0)


def test_each_expert_is_read_once_and_alone(vectors):
    reads = Counter()

    def model(task):
        held = vectors.expert(task)
        return Lazy(
            kinds_of(held), lambda name: (reads.update([(task, name)]), held[name].clone())[1]
        )

    named = {task: model(task) for task in vectors.tasks}
    merged = experts(TaskVectors.between(vectors.pretrained, named), None, 0)
    assert not reads
    found = merged.weights("mnist")
    assert reads == Counter(("mnist", name) for name in vectors.layers)
    close(found, flat(vectors.pretrained) + flat_rows(only(vectors, "mnist"))[0], 1e-6)
    for task in vectors.tasks:
        merged.weights(task)
    assert set(reads.values()) == {1, 2} and reads.total() == 4 * len(vectors.layers)
