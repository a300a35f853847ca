"""Masks entry by entry, against the papers' formulas and FusionBench's functions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints.weights import load_weights, save_weights
from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import CheckpointError, UserError
from pipeline.masked import Masked, packed, unpacked
from pipeline.merging.masks import consensus_ta, emr, emr_masked, tall_mask, tall_masked
from pipeline.vectors import TaskVectors

ORACLE = Path(__file__).with_name("masks_oracle.npz")
SHAPES = {"a.weight": (3, 5), "b": (7,), "c": (2, 3, 2, 2), "d": ()}


def test_a_task_without_a_mask_is_named():
    with pytest.raises(CheckpointError, match="no mask of other, only of task0"):
        emr_masked(made()).weights("other")


def made(tasks=3, seed=0, dtype=torch.float64):
    """Task vectors with many zeros and draws between signs."""
    rng = np.random.default_rng(seed)

    def tensor(*shape):
        return torch.tensor(rng.integers(-4, 5, shape) / 4, dtype=dtype)

    pretrained = {name: tensor(*shape) for name, shape in SHAPES.items()}
    deltas = {name: tensor(tasks, *shape) for name, shape in SHAPES.items()}
    return TaskVectors(tuple(f"task{k}" for k in range(tasks)), pretrained, deltas)


def entries(vectors):
    """Every entry's start, and task vectors as floats, one by one: (name, place, start, taus)."""
    for name, start in vectors.pretrained.items():
        flat = [row.flatten().tolist() for row in vectors.deltas[name]]
        for place, value in enumerate(start.flatten().tolist()):
            yield name, place, value, [row[place] for row in flat]


def check(vectors, task, weights, formula):
    """`formula(start, taus, number of the task)` gives each entry of the weights."""
    number = vectors.tasks.index(task) if task else None
    assert list(weights) == list(SHAPES)
    made = {name: tensor.flatten().tolist() for name, tensor in weights.items()}
    for name, place, start, taus in entries(vectors):
        expected = start + formula(taus, number)
        assert made[name][place] == pytest.approx(expected, abs=1e-12), (name, place)
    for name, tensor in weights.items():
        assert tensor.shape == SHAPES[name]
        assert tensor.dtype == vectors.pretrained[name].dtype


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0])
def test_tall_mask_keeps_what_the_other_tasks_do_not_outweigh(threshold):
    vectors = made()
    merged = tall_mask(vectors, None, 0, mask=threshold)

    def formula(taus, t):
        kept = abs(taus[t]) > threshold * abs(sum(taus) - taus[t])
        return sum(taus) if kept else 0.0

    for task in vectors.tasks:
        check(vectors, task, merged.weights(task), formula)


@pytest.mark.parametrize("least", [1, 2, 3])
def test_consensus_keeps_what_enough_tasks_need(least):
    vectors = made()
    merged = consensus_ta(vectors, None, 0, coefficient=0.3, mask=0.4, least=least)

    def formula(taus, _):
        votes = sum(abs(tau) > 0.4 * abs(sum(taus) - tau) for tau in taus)
        return 0.3 * sum(taus) if votes >= least else 0.0

    check(vectors, None, merged.weights(), formula)


def test_consensus_of_no_threshold_is_task_arithmetic_where_anything_changed():
    vectors = made()
    merged = consensus_ta(vectors, None, 0, coefficient=0.3, mask=0.0, least=1).weights()
    plain = vectors.merged(torch.full((3,), 0.3))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, plain[name])


def unified(taus):
    sign = 1 if sum(taus) > 0 else -1
    return sign * max([0.0, *(abs(tau) for tau in taus if tau * sign > 0)])


def emr_scale(vectors, t):
    """The authors' ratio of sums over tensors of means."""
    own, kept = {}, {}
    for name, _, _, taus in entries(vectors):
        one = unified(taus)
        own.setdefault(name, []).append(abs(taus[t]))
        kept.setdefault(name, []).append(abs(one) if taus[t] * one > 0 else 0.0)
    return sum(map(np.mean, own.values())) / sum(map(np.mean, kept.values()))


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_emr_elects_masks_and_rescales(tasks):
    vectors = made(tasks)
    merged = emr(vectors, None, 0)
    scales = [emr_scale(vectors, t) for t in range(tasks)]

    def formula(taus, t):
        return scales[t] * unified(taus) if taus[t] * unified(taus) > 0 else 0.0

    for task in vectors.tasks:
        check(vectors, task, merged.weights(task), formula)


@pytest.mark.parametrize("method", [emr_masked, lambda vectors: tall_masked(vectors, 0.4)])
def test_one_expert_comes_back(method):
    vectors = made(1)
    for name, tensor in method(vectors).weights("task0").items():
        torch.testing.assert_close(tensor, vectors.pretrained[name] + vectors.deltas[name][0])


def test_emr_gives_identical_experts_back():
    one = made(1)
    vectors = TaskVectors(
        ("a", "b"), one.pretrained, {n: torch.cat([d, d]) for n, d in one.deltas.items()}
    )
    for name, tensor in emr(vectors, None, 0).weights("b").items():
        torch.testing.assert_close(tensor, one.pretrained[name] + one.deltas[name][0])


def test_an_expert_that_is_the_pretrained_model_stays_so():
    vectors = made()
    for delta in vectors.deltas.values():
        delta[1] = 0
    weights = emr(vectors, None, 0).weights("task1")
    assert all(torch.equal(weights[name], start) for name, start in vectors.pretrained.items())


def test_the_order_of_tasks_does_not_matter():
    vectors = made()
    turned = TaskVectors(
        vectors.tasks[::-1], vectors.pretrained, {n: d.flip(0) for n, d in vectors.deltas.items()}
    )
    for task in vectors.tasks:
        for method in (emr_masked, lambda given: tall_masked(given, 0.4)):
            one, other = (method(given).weights(task) for given in (vectors, turned))
            for name in SHAPES:
                torch.testing.assert_close(one[name], other[name])


def test_each_tensor_is_read_once_and_weights_are_made_when_asked_for():
    vectors, reads = made(), []

    def read(name):
        reads.append(name)
        return vectors.deltas[name]

    lazy = TaskVectors(vectors.tasks, vectors.pretrained, Lazy(kinds_of(vectors.deltas), read))
    for method in (emr_masked, lambda given: tall_masked(given, 0.4)):
        reads.clear()
        masked = method(lazy)
        for task in vectors.tasks:
            assert set(masked.weights(task)) == set(SHAPES)
            assert not isinstance(masked.weights(task), dict)
        assert reads == list(SHAPES)
    reads.clear()
    weights = consensus_ta(lazy, None, 0, coefficient=0.3, mask=0.4, least=2).shared
    assert reads == [] and kinds_of(weights) == kinds_of(vectors.pretrained)
    assert weights["b"].shape == (7,) and reads == ["b"]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (3, 5), (2, 3, 4)])
def test_bits_come_back(shape):
    generator = torch.Generator().manual_seed(0)
    bits = torch.rand(shape, generator=generator) < 0.5
    values = torch.rand(shape, generator=generator) + 1
    mask = packed(bits.flatten())
    assert mask.dtype is torch.uint8 and mask.shape == (-(-values.numel() // 8),)
    expected = np.packbits(bits.flatten().numpy(), bitorder="little")
    assert mask.tolist() == expected.tolist()
    assert torch.equal(unpacked(mask, values), values * bits)


@pytest.mark.parametrize("method", [emr_masked, lambda vectors: tall_masked(vectors, 0.4)])
def test_a_file_gives_the_same_weights_back(method, tmp_path):
    vectors = made(dtype=torch.float32)
    masked = method(vectors)
    path = tmp_path / "masked.safetensors"
    save_weights(path, masked.tensors(), {})
    again = Masked.from_tensors(vectors.pretrained, load_weights(path, "fit"), str(path))
    assert set(again.masks) == set(vectors.tasks)
    for task in vectors.tasks:
        for name, tensor in masked.weights(task).items():
            assert torch.equal(again.weights(task)[name], tensor)
    bits = 8 * sum(-(-tensor.numel() // 8) for tensor in vectors.pretrained.values())
    assert masked.extra_bits == again.extra_bits == bits + 32
    names = set(masked.tensors())
    assert {"unified.a.weight", "mask.task1.a.weight", "scale.task2"} <= names
    assert len(names) == len(SHAPES) * 4 + 3


def damaged(tensors, how):
    if how == "missing":
        del tensors["mask.task1.b"]
    elif how == "short":
        tensors["mask.task1.b"] = tensors["mask.task1.a.weight"][:0]
    elif how == "numbers":
        tensors["mask.task1.b"] = tensors["mask.task1.b"].float()
    else:
        del tensors["unified.b"]


@pytest.mark.parametrize("how", ["missing", "short", "numbers", "unified"])
def test_a_file_that_does_not_fit_is_refused(how):
    vectors = made()
    tensors = emr_masked(vectors).tensors()
    damaged(tensors, how)
    with pytest.raises(CheckpointError, match=r"some\.file.*b|b.*some\.file"):
        Masked.from_tensors(vectors.pretrained, tensors, "some.file")


@pytest.mark.parametrize("mask", [-0.1, float("nan"), float("inf")])
def test_thresholds_that_mean_nothing_are_refused(mask):
    with pytest.raises(UserError, match="mask is"):
        tall_mask(made(), None, 0, mask=mask)
    with pytest.raises(UserError, match="mask is"):
        consensus_ta(made(), None, 0, coefficient=0.3, mask=mask, least=2)


@pytest.mark.parametrize("least", [0, 4])
def test_more_votes_than_tasks_are_refused(least):
    with pytest.raises(UserError, match=f"least is {least}, but there are 3 tasks"):
        consensus_ta(made(), None, 0, coefficient=0.3, mask=0.4, least=least)


def test_fusion_bench_agrees():
    with np.load(ORACLE) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    names = [name.removeprefix("pretrained/") for name in arrays if name.startswith("pretrained/")]
    vectors = TaskVectors(
        ("one", "two", "three"),
        {name: arrays[f"pretrained/{name}"] for name in names},
        {name: arrays[f"delta/{name}"] for name in names},
    )
    elected, tall = emr_masked(vectors), tall_masked(vectors, 0.4)
    for row, task in enumerate(vectors.tasks):
        for name in names:
            assert torch.equal(elected.unified[name], arrays[f"unified/{name}"])
            mask = unpacked(elected.masks[task][name], torch.ones_like(elected.unified[name]))
            assert torch.equal(mask.bool(), arrays[f"emr/{name}"][row])
            mask = unpacked(tall.masks[task][name], torch.ones_like(tall.unified[name]))
            assert torch.equal(mask.bool(), arrays[f"tall/{name}"][row])
        torch.testing.assert_close(elected.scales[task].float(), arrays["scales"][row])
