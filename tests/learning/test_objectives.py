"""Losses per image, against their formulas and where predictions are extreme."""

import math

import pytest
import torch
from oracles import FORMULAS, nats

from pipeline.learning.objectives import ENTROPY_MARGIN, OBJECTIVES, objective_named


def logits(classes=7, images=20, scale=3.0):
    generator = torch.Generator().manual_seed(classes)
    values = torch.randn(images, classes, generator=generator, dtype=torch.float64)
    # From hardly sure to quite sure, so that a margin divides them.
    return (values * torch.linspace(0.3, scale, images)[:, None]).requires_grad_()


def reference(name, given, others):
    needs = OBJECTIVES[name].needs
    return {"": None, "mean": given.softmax(1).mean(0), "experts": others.softmax(1)}[needs]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("classes", [2, 7, 40])
def test_mean_over_images_is_the_formula(name, classes):
    given, others = logits(classes), logits(classes).detach().flip(0)
    losses = OBJECTIVES[name].losses(given, reference(name, given, others))
    assert losses.shape == (20,)
    (found,) = torch.autograd.grad(losses.mean(), given)
    wanted = FORMULAS[name](given.softmax(1), others.softmax(1))
    torch.testing.assert_close(losses.mean(), wanted)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, given)[0])


def test_table_says_what_and_from_where():
    for name, objective in OBJECTIVES.items():
        assert objective_named(name) is objective
        assert objective.paper.startswith("https://arxiv.org/abs/")
        assert objective.summary and objective.needs in ("", "mean", "experts")


EXTREME = [[500.0, -500.0, 0.0], [0.0, 0.0, 0.0], [-1000.0, 900.0, 0.0]]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 0, 0], [2]])
def test_extreme_predictions_stay_finite(name, rows):
    # In some of these batches a class has no probability at all, in any image.
    given = torch.tensor([EXTREME[row] for row in rows], requires_grad=True)
    others = torch.tensor([[-900.0, 0.0, 900.0], [500.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    losses = OBJECTIVES[name].losses(given, reference(name, given, others[: len(rows)]))
    losses.sum().backward()
    assert losses.isfinite().all() and given.grad.isfinite().all()


def test_gate_shuts_out_unsure_images_and_weighs_the_others():
    given = logits(10, scale=8.0)
    found, sure = OBJECTIVES["gated_entropy"].losses(given, None), nats(given.softmax(1))
    (gradient,) = torch.autograd.grad(found.sum(), given, retain_graph=True)
    (plain,) = torch.autograd.grad(sure.sum(), given)
    margin = ENTROPY_MARGIN * math.log(10)
    shut = sure >= margin
    assert 5 < shut.sum() < 15
    assert (found[shut] == 0).all() and (gradient[shut] == 0).all()
    weight = (margin - sure[~shut]).exp()
    assert (weight > 1).all()
    torch.testing.assert_close(gradient[~shut], weight[:, None] * plain[~shut])


def test_diversity_prefers_many_classes_to_one():
    one, many = torch.full((4, 4), -30.0), torch.full((4, 4), -30.0)
    one[:, 2], many[range(4), range(4)] = 30.0, 30.0
    losses = OBJECTIVES["diversity"].losses
    assert losses(one, one.softmax(1).mean(0)).mean() == pytest.approx(0, abs=1e-6)
    assert losses(many, many.softmax(1).mean(0)).mean() == pytest.approx(-math.log(4))


def test_distillation_is_least_for_the_experts_own_predictions():
    others = logits().detach()
    losses = OBJECTIVES["distillation"].losses
    assert losses(others, others.softmax(1)).abs().max() < 1e-12
    assert (losses(logits().detach().flip(1), others.softmax(1)) > 0).all()
