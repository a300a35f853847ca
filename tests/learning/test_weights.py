"""Frozen and tied tensors, and task vectors kept in less memory than they are used in."""

from dataclasses import replace

import pytest
import torch
from oracles import coefficients, expected, problem, tower
from torch import nn
from torch.nn import functional as F

from pipeline.errors import CheckpointError, UserError


class Odd(nn.Module):
    """A tower with a tied weight, a buffer that is a weight, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(48, 8, bias=False)
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.randn(8))
        self.register_buffer("calls", torch.tensor(3))
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)
        self.out = nn.Linear(8, 12)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.embed(pixels.flatten(1)) + self.shift
        x = self.second(torch.tanh(self.first(torch.tanh(x)))) * self.frozen
        return self.out(x)


FIRST, SECOND = "visual.first.weight", "visual.second.weight"
FIXED = ("visual.shift", "visual.frozen")


@pytest.fixture
def odd():
    """A problem with the odd tower; its experts keep the tie and changed the fixed tensors."""
    case = problem(Odd(), (3, 2, 4), image=4)
    case.vectors.deltas[SECOND].copy_(case.vectors.deltas[FIRST])
    assert all(case.vectors.deltas[name].abs().min() > 0 for name in FIXED)
    return case


def unmoved(case):
    """The same with task vectors that leave the fixed tensors alone."""
    deltas = {
        name: torch.zeros_like(delta) if name in FIXED else delta
        for name, delta in case.vectors.deltas.items()
    }
    return replace(case, vectors=replace(case.vectors, deltas=deltas))


def shared(raw, names):
    """Coefficients by tensor name, tied ones with those of the first [names, 3]."""
    rows = [name for name in names if name not in (SECOND, *FIXED)]
    place = {name: row for row, name in enumerate(rows)} | {SECOND: rows.index(FIRST)}
    return rows, place, torch.stack([raw[place.get(name, 0)] for name in names])


def test_tied_and_fixed_tensors_in_the_gradient(odd):
    names = list(odd.vectors.pretrained)
    raw = coefficients(4)
    rows, place, whole = shared(raw, names)
    wanted = expected(unmoved(odd), whole).gradient
    measured, gradient = odd.measure(raw)
    assert gradient.shape == (4, 3) and len(rows) == 4
    for name, row in place.items():
        total = sum(wanted[k] for k, other in enumerate(names) if place.get(other) == row)
        torch.testing.assert_close(gradient[place[name]], total, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(measured.losses, expected(unmoved(odd), whole).losses)


@pytest.mark.parametrize("granularity", ["layer", "block", "task"])
def test_values_repeat_tied_rows_and_are_zero_for_fixed_tensors(odd, granularity):
    with odd.step(granularity=granularity) as step:
        with torch.no_grad():
            step.raw.copy_(coefficients(len(step.raw)))
        step(odd.images)
        names, values = step.values()
    assert names == odd.vectors.layers
    found = dict(zip(names, values, strict=True))
    assert all((found[name] == 0).all() for name in FIXED)
    assert torch.equal(found[FIRST], found[SECOND])
    assert all((found[name] != 0).any() for name in names if name not in FIXED)
    weights = odd.encoder.weights()
    for name, wanted in odd.vectors.merged(values).items():
        torch.testing.assert_close(weights[name], wanted)


def test_fixed_tensors_have_their_pretrained_values(odd):
    # Whatever the encoder held before, an expert's weights for example.
    other = {name: start + 1 for name, start in odd.vectors.pretrained.items()}
    odd.encoder.load(other, "")
    with odd.step() as step:
        step(odd.images)
    weights = odd.encoder.weights()
    for name in FIXED:
        assert torch.equal(weights[name], odd.vectors.pretrained[name])


def test_experts_that_untie_a_tensor_are_refused(odd):
    odd.vectors.deltas[SECOND][1, 0, 0] += 1e-3
    with pytest.raises(CheckpointError, match=rf"'{SECOND}' and '{FIRST}' are one tensor"):
        odd.step()


def test_nothing_to_learn_is_said(odd):
    odd.encoder.requires_grad_(False)
    with pytest.raises(UserError, match="trainable"):
        odd.step()


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("block", [None, 7])
def test_half_precision_task_vectors(monkeypatch, block):
    if block:
        monkeypatch.setattr("pipeline.learning.store.BLOCK", {"cpu": block})
    case = problem(tower(), dtype=torch.float32)
    # Experts as near to the pretrained weights as they are in practice: a merge of rounded task
    # vectors is another model, too.
    near = {name: delta / 10 for name, delta in case.vectors.deltas.items()}
    case = replace(case, vectors=replace(case.vectors, deltas=near))
    raw = torch.full((len(near), 3), 0.3)
    _, full = case.measure(raw)
    halves = case.vectors.half()
    assert {delta.dtype for delta in halves.deltas.values()} == {torch.float16}
    _, found = replace(case, vectors=halves).measure(raw)
    widened = {name: delta.float() for name, delta in halves.deltas.items()}
    _, wanted = replace(case, vectors=replace(halves, deltas=widened)).measure(raw)
    assert 1e-5 < relative(found, full) < 1e-3
    if block:  # sums over blocks are rounded elsewhere
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    else:
        assert torch.equal(found, wanted)


def test_half_precision_task_vectors_in_blocks_are_exact(monkeypatch):
    monkeypatch.setattr("pipeline.learning.store.BLOCK", {"cpu": 7})
    case = problem(tower())
    raw = coefficients(len(case.vectors.layers))
    halves = case.vectors.half()
    widened = {name: delta.double() for name, delta in halves.deltas.items()}
    oracle = expected(replace(case, vectors=replace(halves, deltas=widened)), raw)
    measured, gradient = replace(case, vectors=halves).measure(raw)
    torch.testing.assert_close(gradient, oracle.gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(measured.losses, oracle.losses, rtol=1e-9, atol=1e-11)


def test_task_vectors_in_a_file_change_no_bit(tmp_path):
    case = problem(tower(), dtype=torch.float32)
    raw = coefficients(len(case.vectors.layers)).float()
    measured, gradient = case.measure(raw)
    case.vectors.write_deltas(tmp_path / "vectors")
    mapped = replace(case, vectors=case.vectors.mapped(tmp_path / "vectors"))
    again, same = mapped.measure(raw)
    assert torch.equal(same, gradient)
    assert all(torch.equal(one, two) for one, two in zip(again, measured, strict=True))


def test_bfloat16_computes_nearly_the_same_in_float32_parameters():
    case = problem(tower(), (8, 8, 8), dtype=torch.float32)
    raw = coefficients(len(case.vectors.layers)).float().clamp(0, 1)
    _, full = case.measure(raw, clamp=False)
    case.encoder.precision = torch.bfloat16
    seen = []
    case.encoder.visual.transformer.resblocks[0].mlp.gelu.register_forward_hook(
        lambda module, given, result: seen.append(result.dtype)
    )
    _, low = case.measure(raw, clamp=False)
    assert seen == [torch.bfloat16]
    assert low.dtype == torch.float32
    assert {weight.dtype for weight in case.encoder.parameters()} == {torch.float32}
    assert 1e-4 < relative(low, full) < 0.1
    assert F.cosine_similarity(low.flatten(), full.flatten(), dim=0) > 0.99
