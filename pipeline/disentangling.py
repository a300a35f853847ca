"""AWD: task vectors less a shared part, so that they are more orthogonal.

https://arxiv.org/abs/2411.18729. Minimised by gradient steps that need products of task vectors
with each other only, which are taken once.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.vectors import TaskVectors

CHUNK = 2**20  # entries of a tensor that are in double precision at a time, for every task


def disentangled(
    vectors: TaskVectors, weight: float = 0.1, rate: float = 0.01, steps: int = 300
) -> TaskVectors:
    """tau_i - d, with a shared vector d that makes them more orthogonal: AWD.

    https://arxiv.org/abs/2411.18729. `steps` gradient steps of size `rate` from d = 0 on the mean
    of |cos(tau_i - d, tau_j - d)| over pairs of tasks + `weight` x |d|. Cosines and norms are those
    of whole task vectors. Each is made when it is asked for; the call reads the task vectors once.
    `weight` goes by length: where task vectors are longer than some 2 / (weight x sqrt(tasks)), the
    norm outweighs the cosines and d stays about zero.
    Raises `UserError`: an option out of range.
    """
    if steps < 0 or not (0 <= weight < math.inf and 0 < rate < math.inf):
        raise UserError(
            f"awd: weight {weight}, rate {rate}, {steps} steps. Give a weight of at least 0, a "
            "rate above 0 and a number of steps."
        )
    shares = _redundant(_inner_products(vectors), weight, rate, steps)

    def make(name: str) -> Tensor:
        delta = vectors.deltas[name]
        return delta - torch.tensordot(shares.to(delta), delta, dims=1)

    return replace(vectors, deltas=Lazy(kinds_of(vectors.deltas), make))


def _inner_products(vectors: TaskVectors) -> Tensor:
    """Of whole task vectors with each other [tasks, tasks], in double precision on the CPU."""
    tasks = len(vectors.tasks)
    found = torch.zeros(tasks, tasks, dtype=torch.float64)
    for delta in vectors.deltas.values():
        for part in delta.flatten(1).split(CHUNK, dim=1):
            part = part.double()
            found += (part @ part.T).cpu()
    return found


def _redundant(products: Tensor, weight: float, rate: float, steps: int) -> Tensor:
    """AWD's d as shares of the task vectors [tasks], from their inner products alone.

    With v_i = tau_i - d, the gradient of |cos(v_i, v_j)| is a sum of multiples of v_i and v_j, and
    that of |d| a multiple of d. From 0, d thus stays a combination of the task vectors: the steps
    are taken on its shares, and all norms and cosines follow from the inner products.
    """
    tasks = len(products)
    shares = products.new_zeros(tasks)
    for _ in range(steps):
        rest = torch.eye(tasks).to(products) - shares  # row i: v_i as a combination of task vectors
        inner = rest @ products @ rest.T
        one_over = torch.where(inner.diagonal() > 0, inner.diagonal().clamp_min(0).rsqrt(), 0.0)
        cosines = (inner * one_over * one_over[:, None]).fill_diagonal_(0)
        # d(sum of pairs)/d(d) = -2 sum_i multiple_i v_i
        multiple = (cosines.sign() @ one_over - cosines.abs().sum(1) * one_over) * one_over
        gradient = -2 / max(tasks * (tasks - 1), 1) * (multiple @ rest)
        size = (shares @ products @ shares).clamp_min(0).sqrt()
        if size > 0:  # at 0, where it has no gradient, a step by zero
            gradient = gradient + weight / size * shares
        shares = shares - rate * gradient
    return shares
