"""TIES: task vectors trimmed to the largest entries of one sign (https://arxiv.org/abs/2306.01708).

Everything is done a tensor at a time, so that task vectors may lie in files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, positive

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.vectors import TaskVectors, columns

SAMPLE = 2**18  # entries that the threshold is guessed from
SPREAD = 5  # standard deviations of a rank in the sample, to either side of the guess
COLUMNS = 2**16  # entries of each row at once: what is made of them stays in the cache


def trimmed(vectors: TaskVectors, keep: float) -> TaskVectors:
    """Trimmed, sign-elected, disjoint task vectors, each made when it is asked for.

    Per task the share `keep` of entries with the largest magnitude stays, over the whole vector
    (more where magnitudes are equal); of those, the ones whose sign is that of their sum over
    tasks. Where the sum is zero, the sign that most of the entries' sums have decides.
    """
    kept, kinds = elected(vectors, keep), kinds_of(vectors.deltas)

    def make(name: str) -> Tensor:
        made, begin = None, 0
        for block in columns(vectors.deltas, name, COLUMNS):
            if made is None:  # not before: now dtype and device are known
                made = block.new_empty(kinds[name].shape)
            end = begin + block.shape[1]
            _columns(made)[:, begin:end] = kept(block)
            begin = end
        return vectors.deltas[name] if made is None else made  # as it is where it has no entries

    return replace(vectors, deltas=Lazy(kinds, make))


def elected(vectors: TaskVectors, keep: float) -> Callable[[Tensor], Tensor]:
    """Of some columns of the task vectors [tasks, n], what `trimmed` leaves of them [tasks, n].

    The call reads the task vectors three times, to find the thresholds and the majority.
    """
    least = smallest_kept(vectors.deltas, keep)
    majority = sum(_balance(vectors.deltas, name, least) for name in vectors.deltas)
    if_none = torch.tensor(majority).sign()

    def agreeing(block: Tensor) -> Tensor:
        large = _large(block, least)
        sign = large.sum(0).sign()
        sign[sign == 0] = if_none.to(sign)
        return large * (large.sign() == sign)

    return agreeing


def _balance(deltas: Mapping[str, Tensor], name: str, least: Tensor) -> int:
    """How many more of the sums over tasks are positive than negative, after trimming."""
    blocks = columns(deltas, name, COLUMNS)
    # Half precision cannot count so far.
    signs = (_large(block, least).sum(0).sign() for block in blocks)
    return sum(int(sign.sum(dtype=torch.float32)) for sign in signs)


def _large(block: Tensor, least: Tensor) -> Tensor:
    """`block` [tasks, n] with zeros for entries below each task's `least` magnitude."""
    return block * (block.abs() >= least.to(block)[:, None])


def smallest_kept(deltas: Mapping[str, Tensor], keep: float) -> Tensor:
    """Per task the smallest magnitude among the share `keep` of its largest entries [tasks]."""
    total = entries(deltas)
    count = max(1, int(total * keep))
    return order_statistics(deltas, [total - count], torch.abs)[0]


def entries(rows: Mapping[str, Tensor]) -> int:
    """The number of entries of one row, over all tensors [rows, *shape]."""
    return sum(math.prod(kind.shape[1:]) for kind in kinds_of(rows).values())


def order_statistics(
    rows: Mapping[str, Tensor], places: Sequence[int], key: Callable[[Tensor], Tensor] = positive
) -> Tensor:
    """Each row's keys at `places` of their order, 0 being the smallest [places, rows].

    `rows`: name -> [rows, *shape], read twice, one tensor at a time. `key`: of some columns of it
    [rows, n], their keys [rows, n]. Exact: a sample tells between which keys the wanted one must
    lie, and those few are sorted.
    """
    total = entries(rows)
    sample = _sample(rows, max(1, total // SAMPLE), key).sort(dim=1).values
    brackets = [_Bracket(*_bounds(sample, place / total)) for place in places]
    for name in rows:
        _fill(brackets, rows, name, key)
    found = []
    for place, bracket in zip(places, brackets, strict=True):
        those = bracket.at(place)
        if those is None:  # the sample was no fair one: sort all
            bracket = _Bracket(*_bounds(sample[:, :0], 0.0))
            for name in rows:
                _fill([bracket], rows, name, key)
            those = bracket.at(place)
        assert those is not None
        found.append(those)
    return torch.stack(found)


def _sample(rows: Mapping[str, Tensor], stride: int, key: Callable[[Tensor], Tensor]) -> Tensor:
    """Each row's keys at random places, one in `stride` [rows, size].

    Not at regular ones: every 64th entry of a matrix lies in few of its columns, which may differ.
    """
    generator = torch.Generator().manual_seed(0)
    most = sum(-(-math.prod(kind.shape[1:]) // stride) for kind in kinds_of(rows).values())
    most += entries(rows) // COLUMNS  # what is rounded up for every block
    sample, end = None, 0

    def some(block: Tensor) -> Tensor:
        width = block.shape[1]
        places = torch.randint(width, (-(-width // stride),), generator=generator)
        return key(block[:, places.to(block.device)])

    for name in rows:
        for keys in map(some, columns(rows, name, COLUMNS)):
            # One piece of memory: small ones between large tensors would keep it in shreds.
            sample = keys.new_empty((len(keys), most)) if sample is None else sample
            begin, end = end, end + keys.shape[1]
            sample[:, begin:end] = keys
    assert sample is not None
    return sample[:, :end]


def ranked(values: Tensor, places: Sequence[int]) -> Tensor:
    """The entries of `values` [n] at `places` of their order, 0 being the smallest [places]."""
    if values.device.type != "cpu":
        return values.sort().values[list(places)]
    # Some times faster than torch.kthvalue. numpy has no bfloat16, and float32 holds all of it.
    known = values.float() if values.dtype == torch.bfloat16 else values
    return torch.from_numpy(np.partition(known.numpy(), places)[list(places)]).to(values)


def _columns(part: Tensor) -> Tensor:
    """[rows, *shape] as [rows, n]."""
    return part.reshape(len(part), -1)


def _bounds(sample: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Between which keys the one lies that `share` of a row are below [rows], [rows].

    `sample`: some of each row's keys, sorted [rows, size].
    """
    rows, size = sample.shape
    place = size * share
    spread = SPREAD * (1 + (place * (1 - share)) ** 0.5)
    low, high = sample.new_full((rows,), -torch.inf), sample.new_full((rows,), torch.inf)
    if place - spread > 0:
        low = sample[:, int(place - spread)]
    if place + spread < size - 1:
        high = sample[:, math.ceil(place + spread)]
    return low, high


def _fill(
    brackets: list["_Bracket"],
    rows: Mapping[str, Tensor],
    name: str,
    key: Callable[[Tensor], Tensor],
) -> None:
    for block in columns(rows, name, COLUMNS):
        for row, keys in enumerate(key(block)):
            for bracket in brackets:
                bracket.take(row, keys)


class _Bracket:
    """Of each row the keys from `low` to `high` [rows], and the number of those below.

    Keys equal to a bound are counted only: a row may hold one value, such as 0, very often.
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.low, self.high = low, high
        self.below, self.at_low, self.at_high = ([0] * len(low) for _ in range(3))
        # As bytes: a tensor for each find would lie between large ones and keep memory in shreds.
        self.between = [bytearray() for _ in low]

    def take(self, row: int, keys: Tensor) -> None:
        low, high = self.low[row], self.high[row]
        self.below[row] += int((keys < low).count_nonzero())
        near = keys[(keys >= low) & (keys <= high)]
        between = near[(near > low) & (near < high)]
        at_low = int((near == low).count_nonzero())
        self.at_low[row] += at_low
        self.at_high[row] += len(near) - len(between) - at_low
        # Its bytes, whatever its type: numpy has no bfloat16.
        self.between[row] += between.cpu().view(torch.uint8).numpy().tobytes()

    def at(self, place: int) -> Tensor | None:
        """Each row's key at `place`; None if one does not lie within the bounds."""
        found = []
        for row, stored in enumerate(self.between):
            those = self.low.new_empty(0)
            if stored:
                those = torch.frombuffer(stored, dtype=self.low.dtype).to(self.low.device)
            left = place - self.below[row] - self.at_low[row]
            if not -self.at_low[row] <= left < len(those) + self.at_high[row]:
                return None
            if left < 0:
                found.append(self.low[row])
            elif left < len(those):
                found.append(ranked(those, [left])[0])
            else:
                found.append(self.high[row])
        return torch.stack(found)
