"""Merging against interference: WUDI-merging, and task arithmetic on disentangled task vectors.

WUDI minimises by gradient steps. Here the steps need products of task vectors with each other
only, which are taken once.
"""

import math

import torch
from torch import Tensor

from pipeline.disentangling import disentangled
from pipeline.errors import UserError, unknown
from pipeline.learning import FitData
from pipeline.merging import Merged
from pipeline.merging.arithmetic import uniform
from pipeline.merging.limits import check_finite
from pipeline.vectors import TaskVectors

LINEAR = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
SOLVES = ("adam", "closed")


def wudi(
    vectors: TaskVectors,
    data: FitData | None,
    seed: int,
    solve: str = "adam",
    steps: int = 300,
    lr: float = 1e-5,
) -> Merged:
    """pretrained + the X that minimises sum_i |(X - tau_i) tau_i^T|^2 / |tau_i|^2, per tensor.

    https://arxiv.org/abs/2503.08099. Of linear layers of transformer blocks only; all other tensors
    stay pretrained, as in the authors' code. `solve`: "adam", `steps` steps at rate `lr` from the
    sum of task vectors, as published; or "closed", the minimum itself (of all, the one with the
    smallest norm), for which `steps` and `lr` mean nothing. Entries that Adam has brought to their
    minimum swing about it by some `lr`, differently with every rounding. Task vectors that are zero
    in a tensor take no part in it. Raises `UserError`: an option out of range, or no linear layer.
    """
    if solve not in SOLVES:
        raise unknown("solve", solve, SOLVES)
    if steps < 0 or not 0 < lr < math.inf:
        raise UserError(
            f"wudi: {steps} steps at lr {lr}. Give a number of steps and a rate above 0."
        )
    if not any(name.endswith(LINEAR) for name in vectors.pretrained):
        raise UserError(
            f"wudi merges the linear layers of transformer blocks ({', '.join(LINEAR)}) and this "
            "model has none. Choose another method."
        )

    def change(name: str, delta: Tensor) -> Tensor:
        if not name.endswith(LINEAR):
            return torch.zeros_like(delta[0])
        return _by_adam(delta, steps, lr) if solve == "adam" else _closed(delta).to(delta)

    return Merged(vectors.changed(change))


def _gradient(delta: Tensor) -> tuple[Tensor, Tensor]:
    """G [n, n] and R [m, n]: half of the gradient of WUDI's loss at (sum of tau) + Y is Y G + R.

    G = sum_i tau_i^T tau_i / |tau_i|^2, R = sum_i (sum_j tau_j - tau_i) tau_i^T tau_i / |tau_i|^2.
    R is exactly zero where there is nothing to gain: Adam would make large steps of small errors.
    """
    rows, columns = delta.shape[1:]
    total = delta.sum(0)
    gram = delta.new_zeros(columns, columns)
    start = torch.zeros_like(total)
    for matrix in delta:
        square = float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
        if not square:
            continue
        own, others = matrix.T @ matrix / square, total - matrix
        gram += own
        # The cheaper order of the three factors.
        start += others @ own if columns <= rows else (others @ matrix.T / square) @ matrix
    return gram, start


def _by_adam(delta: Tensor, steps: int, lr: float) -> Tensor:
    """WUDI's change [m, n] after Adam's steps; each costs one product [m, n] x [n, n]."""
    gram, start = _gradient(delta)
    moved = torch.zeros_like(start)
    moved.grad = torch.empty_like(start)
    optimizer = torch.optim.Adam([moved], lr=lr, fused=True)
    for _ in range(steps):
        torch.addmm(start, moved, gram, beta=2, alpha=2, out=moved.grad)
        optimizer.step()
    return delta.sum(0) + moved


def _closed(delta: Tensor) -> Tensor:
    """WUDI's minimum (sum of tau) - R G^+ [m, n], in double precision."""
    delta = delta.double()
    gram, start = _gradient(delta)
    values, vectors = torch.linalg.eigh(gram)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    basis = vectors[:, kept]
    return delta.sum(0) - start @ basis / values[kept] @ basis.T


def awd(
    vectors: TaskVectors,
    data: FitData | None,
    seed: int,
    coefficient: float = 0.3,
    weight: float = 0.1,
    rate: float = 0.01,
    steps: int = 300,
) -> Merged:
    """Task arithmetic on task vectors that are less alike (https://arxiv.org/abs/2411.18729).

    `coefficient`: of every task vector; the others: see `disentangled`. Raises `UserError` as that.
    """
    check_finite("coefficient", coefficient)
    return uniform(disentangled(vectors, weight, rate, steps), coefficient)
