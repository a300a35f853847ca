"""Fisher merging against its formula, one gradient at a time; what all merges by images share."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from statistics_problem import SCALE, build, close, distance, expert, only, pixels_of, problem
from tiny import TASKS
from torch.nn import functional as F

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.learning.feeding import draw
from pipeline.merging import fisher as module
from pipeline.merging.fisher import fewer, fisher, fisher_diagonal
from pipeline.merging.regmean import regmean, regmean_plus_plus
from pipeline.vectors import TaskVectors

BOTH = [regmean, regmean_plus_plus]


def brute_fisher(encoder, weights, head, images):
    """The mean of E over y of the squared gradient of log p(y), one by one."""
    own = {name.removeprefix("visual."): t.clone().requires_grad_() for name, t in weights.items()}
    total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for image in pixels_of(images):
        features = torch.func.functional_call(encoder.visual, own, (image[None],))
        logs = (SCALE * F.normalize(features, dim=1) @ head.T).log_softmax(dim=1)[0]
        for log in logs:
            gradients = torch.autograd.grad(log, list(own.values()), retain_graph=True)
            for diagonal, gradient in zip(total.values(), gradients, strict=True):
                diagonal += log.detach().exp() * gradient**2 / len(images)
    return total


def weighted(vectors, informations):
    """Experts weighted by F / |F| + 1e-6."""
    norms = [torch.cat([t.flatten() for t in f.values()]).norm() for f in informations]
    merged = {}
    for name in vectors.pretrained:
        parts = [f[name] / norm + 1e-6 for f, norm in zip(informations, norms, strict=True)]
        models = [expert(vectors, row)[name] for row in range(len(parts))]
        merged[name] = sum(w * m for w, m in zip(parts, models, strict=True)) / sum(parts)
    return merged


def test_fisher_is_the_formula_exactly_for_few_classes():
    vectors, data = problem((2, 5, 11))
    found = [
        brute_fisher(data.encoder, expert(vectors, row), data.heads[task], data.images[task])
        for row, task in enumerate(TASKS)
    ]
    close(
        fisher(vectors, data, 0, images=99).weights(),
        weighted(vectors, found),
        rtol=1e-9,
        atol=1e-11,
    )


def test_the_diagonal_is_a_mean_over_images():
    vectors, data = problem((5, 5, 5))
    head, images = data.heads["cars"], data.images["cars"]
    data.encoder.load(expert(vectors, 0), "the expert")
    weights = dict(data.encoder.named_parameters())
    found = fisher_diagonal(data.encoder, weights, head, SCALE, images, seed=0)
    expected = brute_fisher(data.encoder, expert(vectors, 0), head, images)
    close(found, expected, rtol=1e-9, atol=1e-11)


def test_columns_added_up_with_random_signs_are_right_on_average():
    columns = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = torch.zeros(7, 7, dtype=torch.float64)
    for signs in product((-1.0, 1.0), repeat=3):
        few = fewer(columns, torch.tensor(signs))
        assert few.shape == (7, 3) and torch.equal(few[:, :2], columns[:, :2])
        mean += few @ few.T / 8
    torch.testing.assert_close(mean, columns @ columns.T)


def test_fisher_of_many_classes_is_near_and_repeats_itself(monkeypatch):
    vectors, data = problem((7, 8, 9))
    exact = fisher(vectors, data, 0, images=7).weights()
    monkeypatch.setattr(module, "DIRECTIONS", 3)
    near, again, other = (fisher(vectors, data, seed, 7).weights() for seed in (0, 0, 1))
    mean = vectors.merged(torch.full((3,), 1 / 3))
    assert 0 < distance(near, exact) < 0.2 * distance(mean, exact)
    assert distance(near, again) == 0 < distance(near, other)


def test_one_class_tells_nothing():
    vectors, data = problem((1, 1, 1))
    mean = vectors.merged(torch.full((3,), 1 / 3))
    close(fisher(vectors, data, 0, images=2).weights(), dict(mean))


def test_fisher_does_not_depend_on_how_sure_the_experts_are():
    vectors, data = problem()
    one, low, lower = (
        fisher(vectors, replace(data, logit_scale=scale), 0, images=3).weights()
        for scale in (20.0, 1e-3, 1e-4)
    )
    assert distance(low, lower) < 1e-3 * distance(one, low)


def test_information_that_is_small_counts_in_single_precision():
    vectors, data = problem(counts=(2, 2, 2))
    data = replace(data, encoder=build(torch.float32), logit_scale=1e-9)  # F of some 1e-20
    vectors = TaskVectors(
        TASKS,
        {name: tensor.float() for name, tensor in vectors.pretrained.items()},
        {name: tensor.float() for name, tensor in vectors.deltas.items()},
    )
    heads = {task: head.float() for task, head in data.heads.items()}
    tiny = fisher(vectors, replace(data, heads=heads), 0, images=2).weights()
    small = fisher(vectors, replace(data, heads=heads, logit_scale=1e-4), 0, images=2).weights()
    mean = vectors.merged(torch.full((3,), 1 / 3))
    assert distance(tiny, small) < 1e-3 * distance(mean, small)


def test_fisher_is_for_any_tower():
    vectors, data = problem(pool_type="avg")
    found = [
        brute_fisher(data.encoder, expert(vectors, row), data.heads[task], data.images[task])
        for row, task in enumerate(TASKS)
    ]
    merged = fisher(vectors, data, 0, images=99).weights()
    close(merged, weighted(vectors, found), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [fisher, *BOTH])
def test_the_order_of_tasks_does_not_matter(method):
    options = {"images": 3} if method is fisher else {"images": 3, "shrink": 0.95}
    vectors, data = problem((4, 14, 6))
    one = method(vectors, data, 0, **options).weights()
    close(method(only(vectors, [2, 0, 1]), data, 0, **options).weights(), dict(one))


@pytest.mark.parametrize("method", [fisher, *BOTH])
def test_images_are_drawn_by_the_seed(method):
    options = {} if method is fisher else {"shrink": 0.95}
    vectors, data = problem()
    kept = {task: own[np.sort(draw(3, task, 7, 1, 2)[0])] for task, own in data.images.items()}
    one = method(vectors, data, 3, images=2, **options).weights()
    close(method(vectors, replace(data, images=kept), 3, images=9, **options).weights(), dict(one))
    assert distance(method(vectors, data, 4, images=2, **options).weights(), one) > 0


@pytest.mark.parametrize(("method", "times"), [(fisher, 3), (regmean, 1), (regmean_plus_plus, 1)])
def test_task_vectors_are_read_a_tensor_at_a_time(method, times):
    options = {"images": 1} if method is fisher else {"images": 1, "shrink": 0.95}
    vectors, data = problem()
    reads = Counter()

    def read(name):
        reads[name] += 1
        return vectors.deltas[name]

    lazy = replace(vectors, deltas=Lazy(kinds_of(vectors.deltas), read))
    merged = method(lazy, data, 0, **options).shared
    assert reads == dict.fromkeys(vectors.layers, times)
    assert kinds_of(merged) == kinds_of(vectors.pretrained)
    close(merged, dict(method(vectors, data, 0, **options).shared))


def test_fisher_of_a_frozen_encoder_is_the_same():
    vectors, data = problem()
    wanted = fisher(vectors, data, 0, images=3).weights()
    data.encoder.requires_grad_(False)
    with torch.no_grad():
        found = fisher(vectors, data, 0, images=3).weights()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not any(weight.requires_grad for weight in data.encoder.parameters())


def test_fisher_reads_every_expert_once():
    vectors, data = problem()
    reads = Counter()

    def model(row):
        held = expert(vectors, row)
        return Lazy(kinds_of(held), lambda name: (reads.update([(row, name)]), held[name])[1])

    lazy = TaskVectors.between(
        vectors.pretrained, dict(zip(TASKS, map(model, range(3)), strict=True))
    )
    merged = fisher(lazy, data, 0, images=1).weights()
    assert reads == Counter((row, name) for row in range(3) for name in vectors.layers)
    close(merged, dict(fisher(vectors, data, 0, images=1).weights()))


@pytest.mark.parametrize("method", [fisher, *BOTH])
def test_single_precision_is_enough(method):
    options = {"images": 7} if method is fisher else {"images": 7, "shrink": 0.95}
    found = []
    for dtype in (torch.float32, torch.float64):
        vectors, data = problem()
        single = {name: tensor.to(dtype) for name, tensor in vectors.pretrained.items()}
        deltas = {name: tensor.to(dtype) for name, tensor in vectors.deltas.items()}
        heads = {task: head.to(dtype) for task, head in data.heads.items()}
        data = replace(data, encoder=build(dtype), heads=heads)
        found.append(method(TaskVectors(TASKS, single, deltas), data, 0, **options).weights())
    one, other = found
    assert all(tensor.dtype is torch.float32 for tensor in one.values())
    for name, tensor in other.items():
        assert (one[name] - tensor).norm() <= 1e-5 * tensor.norm(), name


@pytest.mark.parametrize("method", [fisher, partial(regmean, shrink=0.95)])
def test_missing_images_and_heads_are_named_before_work(method):
    vectors, data = problem()
    with pytest.raises(UserError, match="images is 0"):
        method(vectors, data, 0, images=0)
    for images in ({}, {**data.images, "mnist": data.images["mnist"][:0]}):
        with pytest.raises(UserError, match="no images of"):
            method(vectors, replace(data, images=images), 0, images=1)
    if method is fisher:
        with pytest.raises(UserError, match="a head for cars"):
            fisher(vectors, replace(data, heads={}), 0, images=1)
