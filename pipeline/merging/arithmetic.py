"""Sums and means of task vectors, and the two ends of the scale: no merging at all."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.errors import unknown
from pipeline.learning import FitData
from pipeline.merging import Merged
from pipeline.merging.limits import check_finite, check_share
from pipeline.trimming import elected
from pipeline.vectors import TaskVectors


def uniform(vectors: TaskVectors, coefficient: float) -> Merged:
    """pretrained + coefficient x the sum of task vectors."""
    values = torch.full((len(vectors.tasks),), coefficient, dtype=torch.float64)
    return Merged(vectors.merged(values))


def pretrained(vectors: TaskVectors, data: FitData | None, seed: int) -> Merged:
    """The pretrained model as it is."""
    return Merged(dict(vectors.pretrained))


def weight_average(vectors: TaskVectors, data: FitData | None, seed: int) -> Merged:
    """The mean of the experts (https://arxiv.org/abs/2203.05482)."""
    return uniform(vectors, 1 / len(vectors.tasks))


def task_arithmetic(
    vectors: TaskVectors, data: FitData | None, seed: int, coefficient: float
) -> Merged:
    """pretrained + coefficient x sum of task vectors (https://arxiv.org/abs/2212.04089)."""
    return uniform(vectors, coefficient)


def ties(
    vectors: TaskVectors,
    data: FitData | None,
    seed: int,
    coefficient: float,
    keep: float,
    reduce: str,
) -> Merged:
    """Task arithmetic on trimmed, sign-elected task vectors (https://arxiv.org/abs/2306.01708).

        pretrained + coefficient x `reduce` over tasks of the entries that agree

    `reduce`: "mean" as in the paper, or "sum" as in the published figures for CLIP and in what
    AdaMerging++ starts from. Raises `UserError`: an option out of range.
    """
    check_finite("coefficient", coefficient)
    check_share("keep", keep, zero=False)
    if reduce not in REDUCTIONS:
        raise unknown("reduce of ties", reduce, REDUCTIONS)
    agreeing, reduced = elected(vectors, keep), REDUCTIONS[reduce]
    return Merged(
        vectors.changed_entrywise(lambda block: reduced(agreeing(block)).mul_(coefficient))
    )


def _sum(agreeing: Tensor) -> Tensor:
    return agreeing.sum(dim=0)


def _mean(agreeing: Tensor) -> Tensor:
    """Of the entries that are not zero; [tasks, n] -> [n]."""
    return agreeing.sum(dim=0).div_(agreeing.count_nonzero(dim=0).clamp_(min=1))


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sum": _sum, "mean": _mean}


def experts(vectors: TaskVectors, data: FitData | None, seed: int) -> Merged:
    """Every task's own fine-tuned model: the upper bound that merging is measured against."""
    return Merged(extras={task: vectors.expert(task) for task in vectors.tasks})
