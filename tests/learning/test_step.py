"""A step against plain autograd through the merge, in double precision."""

import pytest
import torch
from oracles import (
    FORMULAS,
    TOWERS,
    coefficients,
    expected,
    expert_predictions,
    problem,
    row_names,
    rows_in,
    tower,
)

from pipeline.clip import pools_class_token
from pipeline.learning.objectives import OBJECTIVES

GRANULARITIES = ("layer", "block", "task")


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11, check_dtype=False)


def agree(measured, gradient, oracle):
    close(measured.losses, oracle.losses)
    close(measured.entropies, oracle.entropies)
    close(measured.shares, oracle.shares)
    close(gradient, oracle.gradient)


def test_every_objective_has_its_formula():
    assert FORMULAS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("clamp", [True, False])
def test_gradient_is_that_of_the_whole_graph(kind, granularity, clamp):
    case = problem(tower(kind), (1, 5, 3))
    raw = coefficients(rows_in(kind, granularity))
    oracle = expected(case, raw, granularity=granularity, clamp=clamp)
    agree(*case.measure(raw, granularity=granularity, clamp=clamp), oracle)
    assert (oracle.gradient != 0).any()
    outside = (raw < 0) | (raw > 1)
    assert outside.any() == (granularity != "task")
    assert (oracle.gradient[outside] == 0).all() == (clamp or not outside.any())


def test_towers_take_both_ways_through_the_last_block():
    short = {kind: pools_class_token(tower(kind)) for kind in TOWERS}
    assert short == {
        "gelu": True,
        "quick_gelu": True,
        "layer_scale": True,
        "average": False,
        "attention": False,
    }


@pytest.mark.parametrize("objective", FORMULAS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", ["gelu", "average"])
def test_any_division_into_chunks_gives_the_same(objective, granularity, kind):
    case = problem(tower(kind), (4, 3, 5))
    raw = coefficients(rows_in(kind, granularity))
    oracle = expected(case, raw, objective, granularity=granularity)
    experts = expert_predictions(case) if objective == "distillation" else None
    for chunk in (None, *range(1, 14)):
        found = case.measure(raw, objective, experts, granularity=granularity, chunk=chunk)
        agree(*found, oracle)


@pytest.mark.parametrize("objective", FORMULAS)
def test_two_batches_weigh_twice(objective):
    case = problem(tower(), (6, 2, 4))
    raw = coefficients(rows_in("gelu", "layer"))
    experts = expert_predictions(case) if objective == "distillation" else None
    oracle = expected(case, raw, objective, batches=2)
    agree(*case.measure(raw, objective, experts, batches=2, chunk=5), oracle)


def test_two_batches_are_the_sum_of_both_means():
    case = problem(tower(), (8, 8, 8))
    raw = coefficients(rows_in("gelu", "layer"))
    halves = [
        expected(case, raw, images=[batch[part] for batch in case.images])
        for part in (slice(None, 4), slice(4, None))
    ]
    measured, gradient = case.measure(raw, batches=2)
    close(gradient, halves[0].gradient + halves[1].gradient)
    close(measured.losses, halves[0].losses + halves[1].losses)


def test_gate_opens_for_some_images_only():
    # So that the tests above see both sides of the margin.
    case = problem(tower(), (4, 3, 5))
    raw = coefficients(rows_in("gelu", "layer"))
    plain, gated = (expected(case, raw, name) for name in ("entropy", "gated_entropy"))
    assert ((gated.losses > 0) & (gated.losses < plain.losses)).any()


# The gated one holds its weights fixed, so that its gradient is no slope.
@pytest.mark.parametrize("objective", sorted(FORMULAS.keys() - {"gated_entropy"}))
def test_gradient_is_the_slope(objective):
    case = problem(tower())
    raw = coefficients(rows_in("gelu", "block")).clamp(0.1, 0.9)
    experts = expert_predictions(case) if objective == "distillation" else None
    _, gradient = case.measure(raw, objective, experts, granularity="block")
    for row, task in ((0, 0), (1, 1), (3, 2)):
        losses = []
        for change in (1e-6, -1e-6):
            moved = raw.clone()
            moved[row, task] += change
            measured, _ = case.measure(moved, objective, experts, granularity="block")
            losses.append(measured.losses.sum().item())
        slope = (losses[0] - losses[1]) / 2e-6
        assert slope == pytest.approx(gradient[row, task].item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("clamp", [True, False])
def test_model_is_merged_with_the_values_that_are_given_out(granularity, clamp):
    case = problem(tower())
    raw = coefficients(rows_in("gelu", granularity))
    with case.step(granularity=granularity, clamp=clamp) as step:
        with torch.no_grad():
            step.raw.copy_(raw)
        step(case.images)
        names, values = step.values()
    weights = case.encoder.weights()
    for name, wanted in case.vectors.merged(values).items():
        close(weights[name], wanted)
    if granularity == "task":
        assert names == ("*",)
    else:
        assert names == tuple(weights)
        rows = row_names(names, granularity)
        for name, row in zip(rows, values, strict=True):
            assert torch.equal(row, values[rows.index(name)])
    used = raw.clamp(0, 1) if clamp else raw
    assert {*values.flatten().tolist()} == {*used.flatten().tolist()}


def test_a_step_starts_from_nothing():
    case = problem(tower())
    raw, other = (coefficients(rows_in("gelu", "layer"), seed) for seed in (5, 6))
    with case.step() as step:
        for values in (other, raw):
            with torch.no_grad():
                step.raw.copy_(values)
            measured = step(case.images)
        agree(measured, step.raw.grad, expected(case, raw))


def test_nothing_is_left_on_the_encoder():
    case = problem(tower())
    with case.step() as step:
        step(case.images)
        assert all(weight.grad is None for weight in case.encoder.parameters())
    case.encoder(case.images[0]).sum().backward()
    assert all(weight.grad is not None for weight in case.encoder.parameters())
