"""PCB-merging: entries that compete within a task and between tasks."""

import torch
from torch import Tensor

from pipeline.learning import FitData
from pipeline.merging import Merged
from pipeline.merging.limits import check_finite, check_share
from pipeline.trimming import COLUMNS, entries, order_statistics
from pipeline.vectors import TaskVectors

OUTER = 1e-4  # share of a task vector's magnitudes that are clamped, at either end


def pcb(
    vectors: TaskVectors, data: FitData | None, seed: int, coefficient: float, keep: float
) -> Merged:
    """pretrained + coefficient x mean of task vectors, weighted entry by entry (PCB-merging).

    https://arxiv.org/abs/2410.02396, as the authors' code has it. With n tasks and a the magnitudes
    of tau[t], clamped to their 0.01 % and 99.99 % quantiles,

        score[t]  = exp(n x minmax(a)^2) x tanh(tau[t] x sum over tasks of tau)
        weight[t] = minmax(score[t], clamped below so that the share `keep` of entries is above)
        merged    = sum over t of weight[t] x sign(tau[t]) x a / sum over t of weight[t]

    and zero where all weights are. Quantiles, minima and maxima are those of whole task vectors,
    exactly. The paper writes softmax where the code has exp and tanh. What is alike everywhere has
    no standing: its minmax is 0. The authors' search for coefficients on labels is left out.

    `keep`: 0 < keep <= 1; published with 0.05 and 0.1. `coefficient`: of the merged task vector.
    Raises `UserError`: one of them is out of range.
    """
    check_finite("coefficient", coefficient)
    check_share("keep", keep, zero=False)
    total = entries(vectors.deltas)
    last = total - 1
    outer = [int(total * OUTER), int(total * (1 - OUTER) - 1)]
    low, high = order_statistics(vectors.deltas, outer, torch.abs)

    def scores(delta: Tensor) -> Tensor:
        within = torch.exp(len(delta) * _unit(delta.abs(), low, high) ** 2)
        return within * torch.tanh(delta * delta.sum(0))

    least, most = order_statistics(
        vectors.deltas, [min(int(total * (1 - keep)), last), last], scores
    )

    def mean(delta: Tensor) -> Tensor:
        weights = _unit(scores(delta), least, most)
        clamped = delta.sign() * delta.abs().clamp(low[:, None].to(delta), high[:, None].to(delta))
        # As published, but that half precision has no number so small.
        floor = max(1e-12, torch.finfo(delta.dtype).tiny)
        return (weights * clamped).sum(0) / weights.sum(0).clamp(min=floor)

    def change(name: str, delta: Tensor) -> Tensor:
        parts = [mean(columns) for columns in delta.reshape(len(delta), -1).split(COLUMNS, dim=1)]
        return coefficient * torch.cat(parts).view(delta.shape[1:])

    return Merged(vectors.changed(change))


def _unit(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`values` [tasks, n] on a scale of 0 at `low` to 1 at `high` [tasks], and clamped to it."""
    low, width = low.to(values)[:, None], (high - low).to(values)[:, None]
    return torch.where(width > 0, (values - low) / width, 0.0).clamp(0, 1)
