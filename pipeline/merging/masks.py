"""Merges behind masks: entries that several tasks need, or one vector and a mask for every task."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.masked import Masked, packed
from pipeline.merging import Merged
from pipeline.vectors import TaskVectors, columns

BLOCK = 1 << 13  # entries of every task at a time; whole bytes of bits


def consensus_ta(
    vectors: TaskVectors,
    data: FitData | None,
    seed: int,
    coefficient: float,
    mask: float,
    least: int,
) -> Merged:
    """Task arithmetic on the entries that `least` tasks need (https://arxiv.org/abs/2405.07813).

        pretrained + coefficient x c * s,   s = sum of task vectors,
        c = [ at least `least` tasks t have |task vector t| > mask x |s - task vector t| ]

    As published, but that the paper chooses `coefficient` and, for every task, `mask` (of 0.2 to
    0.6) on labelled images: here they are given, one `mask` for all. Raises `UserError` for a
    negative `mask`, or where `least` is not from 1 to the number of tasks.
    """
    _check_mask(mask)
    if not 1 <= least <= len(vectors.tasks):
        raise UserError(
            f"consensus_ta: least is {least}, but there are {len(vectors.tasks)} tasks. "
            "Give the number of tasks that must need an entry."
        )

    def change(block: Tensor) -> Tensor:
        total = block.sum(dim=0)
        votes = _needed(block, total, mask).sum(dim=0)
        return coefficient * torch.where(votes >= least, total, 0.0)

    return Merged(vectors.changed_entrywise(change))


def tall_mask(vectors: TaskVectors, data: FitData | None, seed: int, mask: float) -> Merged:
    """For every task the sum of task vectors behind its mask (https://arxiv.org/abs/2405.07813).

        pretrained + m * s,   m = [ |task vector| > mask x |s - task vector| ]

    As published, but that the paper chooses `mask` (of 0.2 to 0.6) for every task on labelled
    images: here one is given for all. Raises `UserError` where it is negative.
    """
    return _merged(tall_masked(vectors, mask))


def emr(vectors: TaskVectors, data: FitData | None, seed: int) -> Merged:
    """Elect, mask and rescale (https://arxiv.org/abs/2405.17461); see `emr_masked`."""
    return _merged(emr_masked(vectors))


def _merged(masked: Masked) -> Merged:
    return Merged(extras={task: masked.weights(task) for task in masked.masks}, masked=masked)


def tall_masked(vectors: TaskVectors, mask: float) -> Masked:
    """What `tall_mask` applies, for one file: all scales are 1."""
    _check_mask(mask)

    def split(delta: Tensor) -> tuple[Tensor, Tensor]:
        total = delta.sum(dim=0)
        return total, _needed(delta, total, mask)

    unified, masks, _ = _divided(vectors, split)
    one = next(iter(unified.values())).new_ones(())
    return Masked(vectors.pretrained, unified, masks, dict.fromkeys(vectors.tasks, one))


def emr_masked(vectors: TaskVectors) -> Masked:
    """What `emr` applies, for one file; the tasks' scales come from a pass over all tensors.

        unified = sign of the sum x largest magnitude among the task vectors of that sign
        mask    = [ task vector has that sign ]
        scale   = sum over tensors of mean |task vector|
                  / sum over tensors of mean |mask * unified|

    Signs as the authors' code has them: that of a sum of zero is negative. So are the scales: means
    of every tensor are added up, so that an entry of a small tensor counts for more, where the
    paper adds up all entries. A task that keeps nothing has the scale 1.
    """

    def split(delta: Tensor) -> tuple[Tensor, Tensor]:
        total = delta.sum(dim=0)
        sign = torch.where(total > 0, 1.0, -1.0).to(total)
        along = delta * sign
        return along.amax(dim=0) * sign, along > 0

    unified, masks, (own, kept) = _divided(vectors, split)
    ratios = torch.where(kept > 0, own / kept, 1.0).to(next(iter(unified.values())))
    scales = dict(zip(vectors.tasks, ratios.unbind(), strict=True))
    return Masked(vectors.pretrained, unified, masks, scales)


def _divided(
    vectors: TaskVectors, split: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], Tensor]:
    """The unified vector, the masks by task and name, and their sizes [2, tasks].

    `split`: task vectors [tasks, n] -> unified [n] and booleans [tasks, n]; entries are independent
    of each other. Sizes: sums over tensors of mean |task vector| and of mean |mask * unified|.
    """
    unified: dict[str, Tensor] = {}
    masks: dict[str, dict[str, Tensor]] = {task: {} for task in vectors.tasks}
    sizes = torch.zeros(2, len(vectors.tasks), dtype=torch.float64)
    for name in vectors.layers:
        unified[name], bits, found = _divided_one(vectors, name, split)
        for task, mask in zip(vectors.tasks, bits, strict=True):
            masks[task][name] = mask
        sizes += found
    return unified, masks, sizes


def _divided_one(
    vectors: TaskVectors, name: str, split: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of one tensor; masks [tasks, bytes]."""
    start, begin = vectors.pretrained[name], 0
    unified = torch.empty_like(start, memory_format=torch.contiguous_format)
    bits = start.new_empty((len(vectors.tasks), -(-start.numel() // 8)), dtype=torch.uint8)
    sizes = torch.zeros(2, len(vectors.tasks), dtype=torch.float64)
    for block in columns(vectors.deltas, name, BLOCK):
        end = begin + block.shape[1]
        one, kept = split(block.to(start))
        unified.view(-1)[begin:end] = one
        bits[:, begin // 8 : -(-end // 8)] = packed(kept)
        # Numbers of one byte become floating-point ones faster than booleans do.
        remains = kept.view(torch.uint8).to(one) @ one.abs()
        sizes += torch.stack([block.abs().sum(dim=1).to(one), remains]).cpu()
        begin = end
    return unified, bits, sizes / start.numel()


def _needed(own: Tensor, total: Tensor, mask: float) -> Tensor:
    """Where a task's vector outweighs `mask` times what the other tasks add to it."""
    return own.abs() > mask * (total - own).abs()


def _check_mask(mask: float) -> None:
    if not 0 <= mask < math.inf:
        raise UserError(f"mask is {mask}: give a threshold of at least 0; the paper's are 0.2-0.6.")
