"""Order statistics over task vectors that are read a tensor at a time, against sorting them."""

import numpy as np
import pytest
import torch

from pipeline import trimming
from pipeline.trimming import order_statistics, ranked, smallest_kept

SHAPES = {"a": (40, 50), "b": (), "c": (7,), "d": (3, 4, 5, 6), "e": (1000,)}
VALUES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "coarse": lambda rng, shape: rng.integers(-3, 4, shape) / 2,
    "mostly zero": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.1),
    "all alike": lambda rng, shape: np.full(shape, 0.25),
}


def rows(kind, tasks=3):
    rng = np.random.default_rng(0)
    return {
        name: torch.from_numpy(np.array(VALUES[kind](rng, (tasks, *shape))))
        for name, shape in SHAPES.items()
    }


def whole(parts):
    return np.concatenate([part.reshape(len(part), -1).numpy() for part in parts.values()], axis=1)


@pytest.fixture(params=[2**18, 300, 20])
def sample(request, monkeypatch):
    """From all entries down to a few, and columns that do not fit the tensors."""
    monkeypatch.setattr(trimming, "SAMPLE", request.param)
    monkeypatch.setattr(trimming, "COLUMNS", 97)


@pytest.mark.parametrize("key", [torch.positive, torch.abs])
@pytest.mark.parametrize("kind", VALUES)
def test_they_are_those_of_the_sorted_vectors(sample, kind, key):
    parts = rows(kind)
    total = whole(parts).shape[1]
    places = [0, 1, total // 100, total // 2, total - total // 10, total - 2, total - 1]
    found = order_statistics(parts, places, key)
    expected = np.sort(key(torch.from_numpy(whole(parts))).numpy(), axis=1)[:, places].T
    np.testing.assert_array_equal(found, expected)


def test_a_key_sees_the_entries_of_all_rows(sample):
    parts = rows("normal")
    found = order_statistics(parts, [10, 3000], lambda columns: columns * columns.sum(0))
    products = whole(parts) * whole(parts).sum(0)
    np.testing.assert_array_equal(found, np.sort(products, axis=1)[:, [10, 3000]].T)


def test_an_unfair_sample_only_costs_time(monkeypatch):
    # The guess is taken for exact, which it is not.
    monkeypatch.setattr(trimming, "SAMPLE", 1000)
    monkeypatch.setattr(trimming, "SPREAD", 0)
    part = torch.rand(2, 10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    passes = []
    fill = trimming._fill
    monkeypatch.setattr(trimming, "_fill", lambda *of: (passes.append(1), fill(*of)))
    found = order_statistics({"w": part}, [5000])
    np.testing.assert_array_equal(found[0], np.sort(part.numpy(), axis=1)[:, 5000])
    assert len(passes) == 2


def test_a_matrix_whose_columns_differ_takes_one_pass(monkeypatch):
    # A regular sample would lie in few of its columns.
    monkeypatch.setattr(trimming, "SAMPLE", 1000)
    generator = torch.Generator().manual_seed(0)
    part = torch.rand(2, 1000, 64, generator=generator) * torch.linspace(0.1, 10, 64)
    passes = []
    fill = trimming._fill
    monkeypatch.setattr(trimming, "_fill", lambda *of: (passes.append(1), fill(*of)))
    found = order_statistics({"w": part}, [51_200], torch.abs)
    np.testing.assert_array_equal(found[0], np.sort(part.flatten(1).numpy(), axis=1)[:, 51_200])
    assert len(passes) == 1


def test_few_entries_are_kept_of_a_pass(monkeypatch):
    # Also where nearly all are equal: what repeats is counted.
    monkeypatch.setattr(trimming, "SAMPLE", 2000)
    part = torch.zeros(1, 200_000)
    part[0, ::100] = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    kept = []
    at = trimming._Bracket.at

    def noted(bracket, place):
        kept.extend(len(stored) // 4 for stored in bracket.between)
        return at(bracket, place)

    monkeypatch.setattr(trimming._Bracket, "at", noted)
    found = order_statistics({"w": part[:, 1:], "v": part[:, :1]}, [1000, 100_000, 199_000])
    assert found[:2].flatten().tolist() == [0.0, 0.0]
    assert found[2] == part.sort().values[0, 199_000]
    assert 0 < max(kept) <= 2000


@pytest.mark.parametrize("keep", [0.2, 0.999, 1.0, 1e-9])
def test_smallest_kept_counts_from_the_largest(sample, keep):
    parts = rows("normal")
    sizes = -np.sort(-abs(whole(parts)), axis=1)
    count = max(1, int(keep * sizes.shape[1]))
    np.testing.assert_array_equal(smallest_kept(parts, keep), sizes[:, count - 1])


def test_ranked_leaves_its_values_in_place():
    values = torch.tensor([3.0, 1.0, 2.0])
    assert ranked(values, [0, 2]).tolist() == [1.0, 3.0]
    assert values.tolist() == [3.0, 1.0, 2.0]
