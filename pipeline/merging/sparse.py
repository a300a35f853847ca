"""Task arithmetic on sparse task vectors: DARE, Breadcrumbs, MagMax."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.merging import Merged
from pipeline.merging.limits import check_finite, check_share
from pipeline.trimming import elected, ranked
from pipeline.vectors import TaskVectors, pieces

DRAWS = 2**16  # numbers that an entry draws from, to be dropped or not


def dare(
    vectors: TaskVectors, data: FitData | None, seed: int, coefficient: float, drop: float
) -> Merged:
    """pretrained + coefficient x sum of `dropped` task vectors (https://arxiv.org/abs/2311.03099).

    As published: every entry is dropped with probability `drop` (0 <= drop < 1), and what stays is
    divided by 1 - drop, so that sums keep their expected value. The paper leaves open what merges
    them; here that is task arithmetic. `drop` counts to 1/65536. Raises `UserError`: an option out
    of range.
    """
    check_finite("coefficient", coefficient)
    check_share("drop", drop, one=False)

    def make(name: str) -> Tensor:
        start = vectors.pretrained[name]
        total = torch.zeros_like(start, memory_format=torch.contiguous_format)
        flat, drawn_for, kept = total.view(-1), -1, total
        for row, at, values in pieces(vectors.deltas, name):
            if row != drawn_for:
                drawn_for, task = row, vectors.tasks[row]
                kept = staying(seed, task, name, start.shape, drop).view(-1).to(start.device)
            # Numbers of one byte become floating-point ones faster than booleans do.
            flat[at].addcmul_(values.to(start), kept[at].view(torch.uint8).to(start))
        return total.mul_(coefficient / (1 - _rate(drop))).add_(start)

    return Merged(Lazy(kinds_of(vectors.pretrained), make))


def dare_ties(
    vectors: TaskVectors,
    data: FitData | None,
    seed: int,
    coefficient: float,
    drop: float,
    keep: float,
) -> Merged:
    """TIES on `dropped` task vectors (https://arxiv.org/abs/2311.03099).

    As `dare`, but what was not dropped is trimmed to the share `keep` (0 < keep <= 1, of all
    entries) with the largest magnitude, and signs are elected. The entries that agree are summed,
    as in `ties`. Raises `UserError`: an option out of range.
    """
    check_finite("coefficient", coefficient)
    check_share("drop", drop, one=False)
    check_share("keep", keep, zero=False)
    agreeing = elected(dropped(vectors, drop, seed), keep)
    return Merged(
        dropped(vectors, drop, seed).changed_entrywise(
            lambda block: coefficient * agreeing(block).sum(dim=0)
        )
    )


def dropped(vectors: TaskVectors, drop: float, seed: int) -> TaskVectors:
    """DARE's task vectors, each made when it is asked for: the same one every time.

    Which entries of a tensor are dropped depends on the seed and the names of task and tensor
    only: not on the device, the precision, the other tasks or the order of reading.
    """

    def make(name: str) -> Tensor:
        enlarged = vectors.deltas[name] / (1 - _rate(drop))
        for task, row in zip(vectors.tasks, enlarged, strict=True):
            row *= staying(seed, task, name, row.shape, drop).to(row.device)
        return enlarged

    return replace(vectors, deltas=Lazy(kinds_of(vectors.deltas), make))


def staying(seed: int, task: str, name: str, shape: torch.Size, drop: float) -> Tensor:
    """Which entries of a task's tensor are not dropped, bool [*shape], on the CPU.

    Every entry draws a number of two bytes, the second of which is drawn where it matters only.
    """
    digest = hashlib.sha256(f"{seed}\n{task}\n{name}".encode()).digest()
    # Of numpy's generators the fastest; a release never changes what they draw.
    generator = np.random.SFC64(np.random.SeedSequence(int.from_bytes(digest, "little")))
    first, second = divmod(int(drop * DRAWS), 256)
    drawn = _bytes(generator, math.prod(shape))
    kept = drawn >= first
    if second:
        drew = np.flatnonzero(drawn == first)
        kept[drew] = _bytes(generator, len(drew)) >= second
    return torch.from_numpy(kept).view(shape)


def _bytes(generator: np.random.SFC64, count: int) -> np.ndarray:
    """Random numbers of one byte [count]."""
    return generator.random_raw(-(-count // 8)).astype("<u8", copy=False).view(np.uint8)[:count]


def _rate(drop: float) -> float:
    """`drop` as it is drawn: the multiple of 1 / DRAWS at or below it."""
    return int(drop * DRAWS) / DRAWS


def breadcrumbs(
    vectors: TaskVectors,
    data: FitData | None,
    seed: int,
    coefficient: float,
    largest: float,
    smallest: float,
) -> Merged:
    """pretrained + coefficient x sum of masked task vectors (https://arxiv.org/abs/2312.06795).

    As the paper describes: of every tensor and task, the shares `largest` (outliers) and `smallest`
    of entries by magnitude become zero; both are numbers of entries, rounded down. The authors'
    code takes the shares of every row along a tensor's last axis instead. Raises `UserError`: an
    option out of range, or shares that leave nothing.
    """
    check_finite("coefficient", coefficient)
    check_share("largest", largest)
    check_share("smallest", smallest)
    if largest + smallest >= 1:
        raise UserError(
            f"largest is {largest} and smallest {smallest}: nothing is left. "
            "Give shares that add up to less than 1."
        )

    def make(name: str) -> Tensor:
        return torch.stack([_middle(row, largest, smallest) for row in vectors.deltas[name]])

    masked = Lazy(kinds_of(vectors.deltas), make)
    return Merged(_added(replace(vectors, deltas=masked), coefficient))


def _middle(values: Tensor, largest: float, smallest: float) -> Tensor:
    """`values` with zeros in place of the largest and the smallest by magnitude."""
    sizes = values.abs().flatten()
    begin, end = int(smallest * len(sizes)), len(sizes) - int(largest * len(sizes))
    low, high = ranked(sizes, [begin, end - 1])
    kept = (sizes >= low) & (sizes <= high)
    # Of equal sizes, those that come first count as the smaller.
    too_many = begin - int((sizes < low).count_nonzero())
    kept[(sizes == low).nonzero().flatten()[:too_many]] = False
    enough = end - int((sizes < high).count_nonzero())
    kept[(sizes == high).nonzero().flatten()[enough:]] = False
    return values * kept.view_as(values)


def magmax(vectors: TaskVectors, data: FitData | None, seed: int, coefficient: float) -> Merged:
    """pretrained + coefficient x the task vectors' largest entries by magnitude, with their signs.

    https://arxiv.org/abs/2407.06322. The paper's experts learn one task after another, each from
    the one before; here any are taken. As in the authors' code, the last of equally large entries
    counts. Raises `UserError`: the coefficient is not finite.
    """
    check_finite("coefficient", coefficient)

    def change(block: Tensor) -> Tensor:
        largest = block[0]
        for other in block[1:]:
            largest = torch.where(other.abs() >= largest.abs(), other, largest)
        return coefficient * largest

    return Merged(vectors.changed_entrywise(change))


def _added(vectors: TaskVectors, coefficient: float) -> Mapping[str, Tensor]:
    """pretrained + coefficient x sum of task vectors, each tensor as it is asked for."""
    return vectors.changed(lambda name, delta: coefficient * delta.sum(0))
