"""WUDI-merging and AWD beside their losses written down plainly and differentiated by torch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.disentangling import disentangled
from pipeline.errors import UserError
from pipeline.merging.interference import LINEAR, awd, wudi
from pipeline.vectors import TaskVectors

ORACLE = Path(__file__).with_name("interference_oracle.npz")
WEIGHT = "visual.transformer.resblocks.0.mlp.c_fc.weight"


def of(deltas):
    """Task vectors [tasks, *shape] by name, on pretrained weights of zero."""
    first = next(iter(deltas.values()))
    start = {name: torch.zeros_like(delta[0]) for name, delta in deltas.items()}
    return TaskVectors(tuple(f"task{n}" for n in range(len(first))), start, deltas)


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def double(vectors):
    """The tiny CLIP's task vectors in double precision."""
    start = {name: tensor.double() for name, tensor in vectors.pretrained.items()}
    deltas = {name: delta.double() for name, delta in vectors.deltas.items()}
    return TaskVectors(vectors.tasks, start, deltas)


def interference(found, taus):
    """WUDI's loss at `found`, as the paper writes it."""
    return sum(((found - tau) @ tau.T).square().sum() / tau.square().sum() for tau in taus)


def plain_wudi(taus, steps, lr):
    """Adam on that loss, from the sum of task vectors."""
    found = sum(taus).clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        interference(found, taus).backward()
        optimizer.step()
    return found.detach()


def test_wudi_takes_adams_steps_on_the_linear_layers_of_a_clip(double):
    merged = wudi(double, None, 0, steps=25, lr=3e-3).shared
    linear = 0
    for name, start in double.pretrained.items():
        wanted = start
        if name.endswith(LINEAR):
            linear += 1
            wanted = start + plain_wudi(list(double.deltas[name]), 25, 3e-3)
        torch.testing.assert_close(merged[name], wanted, rtol=0, atol=1e-9)
    assert linear == 8  # four in each of two blocks


def test_wudi_in_single_precision():
    delta = 1e-3 * normal(4, 40, 30, dtype=torch.float32)
    found = wudi(of({WEIGHT: delta}), None, 0).shared[WEIGHT]
    assert found.dtype == torch.float32 and not found.requires_grad and found.grad is None
    wanted = plain_wudi(list(delta.double()), 300, 1e-5)
    moved = (wanted - delta.double().sum(0)).norm()
    assert (found.double() - wanted).norm() < 1e-4 * moved


def test_wudi_as_fusion_bench_computes_it():
    arrays = np.load(ORACLE)
    names = [key.removeprefix("tau/") for key in arrays if key.startswith("tau/")]
    vectors = of({name: torch.from_numpy(arrays[f"tau/{name}"]) for name in names})
    merged = wudi(vectors, None, 0, steps=40).shared
    assert len(names) == 4
    for name in names:
        wanted = torch.from_numpy(arrays[f"wudi/{name}"])
        torch.testing.assert_close(merged[name], wanted, rtol=0, atol=1e-12)
        assert (wanted - vectors.deltas[name].sum(0)).abs().median() > 1e-4  # it moved


@pytest.mark.parametrize("shape", [(3, 8, 5), (3, 5, 8), (2, 3, 9)])
def test_wudi_closed_is_the_smallest_minimum(shape):
    """The last: six rows of task vectors for nine columns, so that there are many minima."""
    taus = normal(*shape)
    found = wudi(of({WEIGHT: taus}), None, 0, solve="closed").shared[WEIGHT]
    probe = found.clone().requires_grad_()
    interference(probe, list(taus)).backward()
    assert probe.grad.abs().max() < 1e-12
    # As least squares: X times all task vectors, transposed and side by side.
    sizes = [np.linalg.norm(tau) for tau in taus.numpy()]
    sides = [tau.T / size for tau, size in zip(taus.numpy(), sizes, strict=True)]
    targets = [tau @ side for tau, side in zip(taus.numpy(), sides, strict=True)]
    wanted = np.linalg.lstsq(np.hstack(sides).T, np.hstack(targets).T, rcond=None)[0].T
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-10)


def test_wudi_by_adam_goes_to_the_minimum():
    taus = 1e-2 * normal(3, 8, 5)
    vectors = of({WEIGHT: taus})
    losses = [
        float(interference(wudi(vectors, None, 0, **options).shared[WEIGHT], list(taus)))
        for options in ({"steps": 0}, {"lr": 1e-4}, {"solve": "closed"})
    ]
    assert losses[0] > 1.5 * losses[1] > 1.5 * losses[2] > 0


@pytest.mark.parametrize("solve", ["adam", "closed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wudi_of_one_expert_is_the_expert(solve, dtype):
    tau = 1e-3 * normal(1, 6, 9, dtype=dtype)
    alone = wudi(of({WEIGHT: tau}), None, 0, solve=solve).shared[WEIGHT]
    torch.testing.assert_close(alone, tau[0], rtol=1e-6, atol=0)
    beside = torch.cat([tau, torch.zeros_like(tau)])  # one that left the tensor alone
    found = wudi(of({WEIGHT: beside}), None, 0, solve=solve).shared[WEIGHT]
    torch.testing.assert_close(found, tau[0], rtol=1e-6, atol=0)
    idle = wudi(of({WEIGHT: torch.zeros_like(beside)}), None, 0, solve=solve).shared[WEIGHT]
    assert not idle.any()


def test_wudi_closed_of_identical_experts_is_the_expert():
    tau = normal(1, 6, 9)
    found = wudi(of({WEIGHT: tau.expand(3, -1, -1)}), None, 0, solve="closed").shared[WEIGHT]
    torch.testing.assert_close(found, tau[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"solve": "newton"}, "Available: adam, closed"),
        ({"steps": -1}, "number of steps"),
        ({"lr": 0.0}, "rate above 0"),
        ({"lr": float("nan")}, "rate above 0"),
    ],
)
def test_options_of_wudi_that_are_refused(options, says, vectors):
    with pytest.raises(UserError, match=says):
        wudi(vectors, None, 0, **options)


def test_wudi_refuses_a_model_without_linear_layers():
    with pytest.raises(UserError, match=r"has none\. Choose another"):
        wudi(of({"visual.proj": normal(2, 3, 4)}), None, 0)


def plain_awd(taus, weight, rate, steps):
    """Whole task vectors [tasks, entries] less the shared vector, by gradient steps on it."""
    tasks = len(taus)
    shared = torch.zeros_like(taus[0]).requires_grad_()
    for _ in range(steps):
        rest = [tau - shared for tau in taus]
        loss = weight * torch.linalg.vector_norm(shared)
        for i in range(tasks):
            for j in range(tasks):
                if i != j:
                    cosine = rest[i] @ rest[j] / (rest[i].norm() * rest[j].norm())
                    loss = loss + cosine.abs() / (tasks * (tasks - 1))
        (gradient,) = torch.autograd.grad(loss, shared)
        shared = (shared - rate * gradient).detach().requires_grad_()
    return taus - shared.detach()


def flat(deltas):
    return torch.cat([delta.flatten(1) for delta in deltas.values()], dim=1)


def alike(double, common):
    """Shorter task vectors with a part in common, so that there is something to take away."""
    deltas = {
        name: 0.1 * (delta + common * delta[:1].roll(1, -1))
        for name, delta in double.deltas.items()
    }
    return TaskVectors(double.tasks, double.pretrained, deltas)


@pytest.mark.parametrize(
    ("weight", "rate", "steps", "signs"),
    [(0.1, 0.01, 300, {1, -1}), (0.0, 0.05, 60, {1, -1}), (2.0, 0.003, 40, {1})],
)
def test_awd_is_gradient_descent_on_the_whole_shared_vector(double, weight, rate, steps, signs):
    """On the way cosines turn negative, or the penalty alone decides."""
    vectors = alike(double, 0.7)
    taus = flat(vectors.deltas)
    wanted = plain_awd(taus, weight, rate, steps)
    found = flat(disentangled(vectors, weight, rate, steps).deltas)
    assert (wanted - taus).norm() > 1e-3
    assert set((wanted @ wanted.T).sign().unique().tolist()) == signs
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def test_awd_is_task_arithmetic_on_what_is_left(double):
    vectors = alike(double, 0.7)
    rest = disentangled(vectors, 0.1, 0.01, 300)
    merged = awd(vectors, None, 0, coefficient=0.4).shared
    for name, start in double.pretrained.items():
        torch.testing.assert_close(merged[name], start + 0.4 * rest.deltas[name].sum(0))


def test_awd_makes_task_vectors_less_alike(double):
    vectors = alike(double, 0.7)
    cosines = []
    for these in (vectors, disentangled(vectors, 0.0, 0.01, 300)):
        unit = torch.nn.functional.normalize(flat(these.deltas))
        cosines.append((unit @ unit.T).triu(1).abs().sum())
    assert cosines[1] < 0.2 * cosines[0]


def test_awd_leaves_alone_what_is_orthogonal_or_single():
    apart = torch.eye(6, dtype=torch.float64)[:3].reshape(3, 2, 3)
    torch.testing.assert_close(disentangled(of({"w": apart}), 0.1, 0.01, 50).deltas["w"], apart)
    one = normal(1, 4, 5)
    torch.testing.assert_close(disentangled(of({"w": one}), 0.1, 0.01, 50).deltas["w"], one)


def test_awd_with_an_expert_that_is_the_pretrained_model():
    delta = torch.cat([normal(2, 4, 5), torch.zeros(1, 4, 5, dtype=torch.float64)])
    found = disentangled(of({"w": delta}), 0.1, 0.01, 300).deltas["w"]
    assert found.isfinite().all()
    # It has no cosines at first: the others part as they would without it, at a third of the rate.
    first = [
        disentangled(of({"w": part}), 0.1, rate, 1).deltas["w"]
        for part, rate in ((delta, 0.03), (delta[:2], 0.01))
    ]
    torch.testing.assert_close(first[0][:2], first[1])


def test_awd_does_not_depend_on_the_order_of_tasks(double):
    vectors = alike(double, 0.7)
    order = [2, 0, 1]
    other = {name: delta[order] for name, delta in vectors.deltas.items()}
    turned = disentangled(TaskVectors(double.tasks, double.pretrained, other), 0.1, 0.01, 300)
    straight = disentangled(vectors, 0.1, 0.01, 300)
    torch.testing.assert_close(flat(turned.deltas), flat(straight.deltas)[order])


def counted(vectors):
    """Task vectors that note which tensor was asked for."""
    reads = []
    lazy = Lazy(kinds_of(vectors.deltas), lambda name: reads.append(name) or vectors.deltas[name])
    return TaskVectors(vectors.tasks, vectors.pretrained, lazy), reads


def test_awd_reads_once_for_the_steps_and_once_for_the_result(vectors):
    lazy, reads = counted(vectors)
    merged = awd(lazy, None, 0).shared
    assert reads == list(vectors.deltas)
    for name in merged:
        assert merged[name].dtype == torch.float32
    assert reads == 2 * list(vectors.deltas)


def test_wudi_reads_when_asked_for_and_once(vectors):
    lazy, reads = counted(vectors)
    merged = wudi(lazy, None, 0, steps=2).shared
    assert not reads
    dict(merged)
    assert reads == list(vectors.deltas)


@pytest.mark.parametrize(
    "options",
    [{"weight": -1.0}, {"weight": float("inf")}, {"rate": 0.0}, {"steps": -1}],
)
def test_options_of_awd_that_are_refused(options, vectors):
    with pytest.raises(UserError, match="Give a weight"):
        awd(vectors, None, 0, **options)
    with pytest.raises(UserError, match="finite"):
        awd(vectors, None, 0, coefficient=float("nan"))
