"""Methods on what a user's model holds: weights in bfloat16, and parameters with gradients."""

import pytest
import torch
from torch.nn import Parameter

from pipeline.merging import METHODS, merge
from pipeline.trimming import COLUMNS, ranked, smallest_kept, trimmed
from pipeline.vectors import TaskVectors

AT_ONCE = [name for name, row in METHODS.items() if not row.learns and row.experts[1] is None]


@pytest.fixture
def pretrained(vectors):
    return vectors.pretrained


def every(change, models):
    return {
        task: {name: change(tensor) for name, tensor in model.items()}
        for task, model in models.items()
    }


@pytest.mark.parametrize("method", AT_ONCE)
def test_bfloat16_is_merged_and_kept(method, pretrained, experts, fit_data):
    start = every(torch.Tensor.bfloat16, {"": pretrained})[""]
    merged = merge(method, start, every(torch.Tensor.bfloat16, experts), data=fit_data)
    for task in experts:
        weights = merged.weights(task)
        assert weights.keys() == start.keys()
        assert all(tensor.dtype == torch.bfloat16 for tensor in weights.values())
        assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize("method", AT_ONCE)
def test_parameters_are_merged_by_their_values(method, pretrained, experts, fit_data):
    expected = merge(method, pretrained, experts, data=fit_data)
    start = every(Parameter, {"": pretrained})[""]
    merged = merge(method, start, every(Parameter, experts), data=fit_data)
    for task in experts:
        weights, wanted = merged.weights(task), expected.weights(task)
        assert weights.keys() == wanted.keys()
        assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
        assert not any(tensor.requires_grad for tensor in weights.values())


def test_order_statistics_of_bfloat16_are_those_of_its_values():
    rows = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    ordered = rows.double().abs().sort().values
    found = smallest_kept({"w": rows}, 0.2)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == ordered[:, 4000].tolist()
    assert ranked(rows[0].abs(), [7, 90]).tolist() == ordered[0, [7, 90]].tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_majority_is_counted_beyond_half_precision(dtype):
    """Of sums 65,535 are positive and 65,536 negative: one number in bfloat16, none in float16."""
    row = torch.ones(2 * COLUMNS, dtype=dtype)
    row[COLUMNS:] = -1
    rows = torch.stack([row, row])
    rows[1, 0] = -1  # the sum that is zero, and goes by the majority
    start = torch.zeros(2 * COLUMNS, dtype=dtype)
    vectors = TaskVectors(("a", "b"), {"w": start}, {"w": rows})
    assert trimmed(vectors, 1.0).deltas["w"][:, 0].tolist() == [0, -1]
