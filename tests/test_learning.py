"""Coefficient learning against plain autograd through the merge, in double precision."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from pipeline.checkpoints import load_weights
from pipeline.errors import UserError
from pipeline.learning import (
    LearningOptions,
    learn_coefficients,
    load_coefficients,
    save_coefficients,
    select_coefficient,
)
from pipeline.learning.step import CoefficientStep
from pipeline.vectors import TaskVectors


def doubled(vectors, data):
    """The same merge in float64."""
    vectors = TaskVectors(
        vectors.tasks,
        {name: tensor.double() for name, tensor in vectors.pretrained.items()},
        {name: tensor.double() for name, tensor in vectors.deltas.items()},
    )
    heads = {task: head.double() for task, head in data.heads.items()}
    return vectors, replace(data, encoder=data.encoder.double(), heads=heads)


def plain(vectors, data, raw, images):
    """Entropies and gradient by autograd, one task after the other, through the merged weights."""
    raw = raw.detach().clone().requires_grad_()
    rows = raw.clamp(0, 1).expand(len(vectors.layers), -1)
    weights = {
        name: start + sum(rows[k, t] * vectors.deltas[name][t] for t in range(len(vectors.tasks)))
        for k, (name, start) in enumerate(vectors.pretrained.items())
    }
    entropies = []
    for task, batch in zip(vectors.tasks, images, strict=True):
        features = functional_call(data.encoder, weights, (batch,))
        p = torch.softmax(data.logit_scale * features @ data.heads[task].T, dim=1)
        entropies.append(-(p * p.log()).sum(1).mean())
    sum(entropies).backward()
    return torch.stack(entropies).detach(), raw.grad


def batch_of(data, sizes):
    return [
        torch.from_numpy(images[:size])
        for images, size in zip(data.images.values(), sizes, strict=True)
    ]


@pytest.mark.parametrize("granularity", ["layer", "task"])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (1, 5, 3)])
def test_step_equals_plain_autograd(vectors, fit_data, granularity, sizes):
    vectors, data = doubled(vectors, fit_data)
    images = batch_of(data, sizes)
    with CoefficientStep(
        data.encoder, vectors, data.heads, data.logit_scale, granularity=granularity
    ) as step:
        # Values inside, outside and exactly on both bounds of the clamp.
        values = torch.rand(step.raw.shape, generator=torch.Generator().manual_seed(5)) * 1.4 - 0.2
        values[0] = torch.tensor([0.0, 1.0, 0.5])
        with torch.no_grad():
            step.raw.copy_(values)
        entropies = step(images)
        expected_entropies, expected = plain(vectors, data, step.raw, images)
    torch.testing.assert_close(entropies, expected_entropies, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(step.raw.grad, expected, rtol=1e-9, atol=1e-12)
    assert (expected != 0).any() and (values <= 0).any()


def test_gradient_equals_finite_differences(vectors, fit_data):
    vectors, data = doubled(vectors, fit_data)
    images = batch_of(data, (4, 4, 4))
    with CoefficientStep(data.encoder, vectors, data.heads, data.logit_scale) as step:
        step(images)
        gradient, step_size = step.raw.grad.clone(), 1e-6
        for row, task in ((0, 0), (3, 1), (10, 2)):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    step.raw[row, task] += sign * step_size
                losses.append(step(images).sum().item())
                with torch.no_grad():
                    step.raw[row, task] -= sign * step_size
            slope = (losses[0] - losses[1]) / (2 * step_size)
            assert slope == pytest.approx(gradient[row, task].item(), rel=1e-4, abs=1e-8)


def test_step_leaves_no_hook_behind(vectors, fit_data):
    with CoefficientStep(fit_data.encoder, vectors, fit_data.heads, 20.0) as step:
        step(batch_of(fit_data, (2, 2, 2)))
    images = next(iter(fit_data.images.values()))
    fit_data.encoder(torch.from_numpy(images[:2])).sum().backward()
    assert all(parameter.grad is not None for parameter in fit_data.encoder.parameters())


@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_learning_lowers_the_entropy(vectors, fit_data, granularity):
    options = LearningOptions(granularity=granularity, steps=40, batch=8, lr=1e-2)
    learned = learn_coefficients(vectors, fit_data, options)
    loss = learned.history["loss"]
    assert loss[-5:].mean() < loss[:5].mean()
    rows = len(vectors.layers) if granularity == "layer" else 1
    assert learned.values.shape == (rows, 3)
    assert learned.values.min() >= 0 and learned.values.max() <= 1
    assert learned.history["coefficients"][0].tolist() == pytest.approx([0.3] * 3)


def test_learning_is_repeatable_and_depends_on_the_seed(vectors, fit_data):
    options = LearningOptions(steps=6, batch=4)
    first, again, other = (
        learn_coefficients(vectors, fit_data, options, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)


@pytest.mark.parametrize("stop_at", [1, 3, 7])
def test_killed_run_goes_on_to_the_same_result(vectors, fit_data, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr("pipeline.learning.loop.SECONDS_BETWEEN_SAVES", 0.0)
    options, state = LearningOptions(steps=8, batch=4), tmp_path / "state.safetensors"
    whole = learn_coefficients(vectors, fit_data, options)

    class Killed(BaseException):
        pass

    def die(progress):
        if progress.step == stop_at:
            raise Killed

    with pytest.raises(Killed):
        learn_coefficients(vectors, fit_data, options, state=state, on_step=die)
    assert len(load_weights(state, "")["loss"]) == stop_at
    steps = []
    rest = learn_coefficients(
        vectors, fit_data, options, state=state, on_step=lambda p: steps.append(p.step)
    )
    assert steps == list(range(stop_at + 1, 9))
    assert torch.equal(rest.values, whole.values)
    for name, series in whole.history.items():
        assert torch.equal(rest.history[name], series)
    assert not state.exists()


def test_fewer_images_than_a_batch(vectors, fit_data):
    images = dict(fit_data.images, cars=fit_data.images["cars"][:2])
    learned = learn_coefficients(
        vectors, replace(fit_data, images=images), LearningOptions(steps=2, batch=8)
    )
    assert torch.isfinite(learned.values).all()


def test_no_images_and_nan_are_said(vectors, fit_data):
    empty = dict(fit_data.images, mnist=fit_data.images["mnist"][:0])
    with pytest.raises(UserError, match="'mnist' has no unlabeled images"):
        learn_coefficients(vectors, replace(fit_data, images=empty), LearningOptions(steps=2))
    vectors.deltas["visual.proj"][1] = float("nan")
    with pytest.raises(UserError, match="not a finite number at step 1"):
        learn_coefficients(vectors, fit_data, LearningOptions(steps=2, batch=4))


def test_coefficients_survive_the_file(vectors, fit_data, tmp_path):
    learned = learn_coefficients(vectors, fit_data, LearningOptions(steps=3, batch=4))
    save_coefficients(tmp_path / "c.safetensors", learned)
    loaded = load_coefficients(tmp_path / "c.safetensors", "")
    assert torch.equal(loaded.values, learned.values)
    assert (loaded.tasks, loaded.layers) == (learned.tasks, learned.layers)
    assert loaded.facts == dict(learned.facts)
    assert loaded.history.keys() == learned.history.keys()


def test_label_tuned_coefficient_is_the_best_of_the_grid(vectors, fit_data):
    # Labels that the model itself gives at 0.5 make 0.5 the best answer there is.
    data = fit_data
    data.encoder.load(vectors.merged(torch.full((3,), 0.5)), "")
    labels = {}
    for task, images in data.images.items():
        with torch.no_grad():
            features = data.encoder(torch.from_numpy(images))
        labels[task] = (features @ data.heads[task].T).argmax(1).numpy()
    chosen = select_coefficient(vectors, replace(data, labels=labels), [0.0, 0.5, 1.0])
    assert chosen.values.tolist() == [[0.5] * 3]
    assert chosen.facts["accuracy_on_select"][0.5] == 100
    with pytest.raises(UserError, match="labelled images only"):
        select_coefficient(vectors, data, [0.1])
