"""Task vectors: what fine-tuning changed (https://arxiv.org/abs/2212.04089)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.checkpoints.matching import check_same_tensors
from pipeline.checkpoints.writing import Kind, Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.files import replacing

PIECE = 2**15  # entries at a time: what is made of them stays in the cache


def as_tensors(arrays: Mapping[str, np.ndarray], device: torch.device) -> Mapping[str, Tensor]:
    """The same as tensors on `device`, each read when it is asked for."""
    return Lazy(kinds_of(arrays), lambda name: torch.from_numpy(arrays[name]).to(device))


class _Stacked(Lazy[Tensor]):
    """See `stacked`; also a part of a stack, without the rest."""

    def __init__(
        self,
        names: Iterable[str],
        parts: Sequence[Mapping[str, Tensor]],
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        of_one = kinds_of(parts[0])
        kinds = {
            name: Kind(of_one[name].dtype, (len(parts), *of_one[name].shape)) for name in names
        }
        super().__init__(kinds, self._whole)
        self._parts, self._start = parts, start

    def of(self, row: int) -> Mapping[str, Tensor]:
        """One task's tensors, each made when it is asked for."""
        part = self._parts[row]
        kinds = {name: Kind(dtype, shape[1:]) for name, (dtype, shape) in self.kinds.items()}
        return Lazy(kinds, lambda name: _less(part[name], self._subtracted(name)))

    def pieces(self, name: str, size: int) -> Iterator[tuple[int, slice, Tensor]]:
        """See `pieces`."""
        start = self._subtracted(name, flat=True)
        for row, part in enumerate(self._parts):
            flat = part[name].reshape(-1)
            for at in _slices(flat, size):
                yield row, at, _less(flat[at], start if start is None else start[at])

    def columns(self, name: str, size: int) -> Iterator[Tensor]:
        """See `columns`."""
        start = self._subtracted(name, flat=True)
        flats = [part[name].reshape(-1) for part in self._parts]
        for at in _slices(flats[0], size):
            block = torch.stack([flat[at] for flat in flats])
            yield block if start is None else block.sub_(start[at])

    def _whole(self, name: str) -> Tensor:
        start, made = self._subtracted(name), None
        for row, part in enumerate(self._parts):
            own = part[name]
            if made is None:
                made = own.new_empty((len(self._parts), *own.shape))
            if start is None:
                made[row].copy_(own)
            else:
                torch.sub(own, start, out=made[row])
        assert made is not None
        return made

    def _subtracted(self, name: str, flat: bool = False) -> Tensor | None:
        if self._start is None:
            return None
        return self._start[name].reshape(-1) if flat else self._start[name]


def stacked(
    names: Iterable[str],
    parts: Sequence[Mapping[str, Tensor]],
    start: Mapping[str, Tensor] | None = None,
) -> Mapping[str, Tensor]:
    """name -> the tasks' tensors of that name, stacked [tasks, *shape] each time it is asked for.

    `start`: what is subtracted from every task's. With tensors that are read lazily, one stack is
    in memory at a time.
    """
    return _Stacked(names, parts, start)


def pieces(
    stacks: Mapping[str, Tensor], name: str, size: int = PIECE
) -> Iterator[tuple[int, slice, Tensor]]:
    """All entries of a stack of tensors, one task after another: task, place and values [n].

    As many entries at a time as a cache holds; of what is `stacked`, one task's tensor is in memory
    at a time. Values may be those of the stack itself: not to be written to.
    """
    if isinstance(stacks, _Stacked):
        yield from stacks.pieces(name, size)
        return
    for row, own in enumerate(stacks[name]):
        flat = own.reshape(-1)
        for at in _slices(flat, size):
            yield row, at, flat[at]


def columns(stacks: Mapping[str, Tensor], name: str, size: int = PIECE) -> Iterator[Tensor]:
    """The same a few entries of all tasks at a time: values [tasks, n], from first to last.

    Of what is `stacked`, all tasks' tensors of that name are in memory, but no stack of them.
    """
    if isinstance(stacks, _Stacked):
        yield from stacks.columns(name, size)
        return
    stack = stacks[name]
    flat = stack.reshape(len(stack), -1)
    for at in _slices(flat[0], size):
        yield flat[:, at]


def _slices(flat: Tensor, size: int) -> list[slice]:
    """The places of `flat` [n], so many at once; all at once where there is no such cache."""
    step = size if flat.device.type == "cpu" else max(1, len(flat))
    return [slice(begin, begin + step) for begin in range(0, len(flat), step)]


def _less(own: Tensor, start: Tensor | None) -> Tensor:
    return own if start is None else torch.sub(own, start).to(own)


def _detached(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same values without their gradients' history; what is read lazily stays so."""
    if isinstance(tensors, Lazy):
        return Lazy(tensors.kinds, lambda name: tensors[name].detach())
    return {name: tensor.detach() for name, tensor in tensors.items()}


@dataclass(frozen=True)
class TaskVectors:
    """The pretrained weights and, per tensor, every task's difference from them.

    `pretrained`: name -> tensor; `deltas`: name -> [tasks, *shape], contiguous, so that merging is
    one matrix-vector product per tensor and so is the gradient of its coefficients. `in_file`: the
    deltas are read from a file as they are used.
    """

    tasks: tuple[str, ...]
    pretrained: Mapping[str, Tensor]
    deltas: Mapping[str, Tensor]
    in_file: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the tensors: a row of coefficients each, in this order."""
        return tuple(self.deltas)

    @classmethod
    def between(
        cls, pretrained: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]]
    ) -> "TaskVectors":
        """Expert - pretrained for every task, taken as it is asked for.

        Of parameters of a model the values alone are taken: merging has no gradient. Raises
        `CheckpointError` if tensors do not match.
        """
        for task, expert in experts.items():
            check_same_tensors(pretrained, expert, "the pretrained model", f"the {task} expert")
        start = _detached(pretrained)
        deltas = stacked(start, [_detached(expert) for expert in experts.values()], start)
        return cls(tuple(experts), start, deltas)

    def of(self, task: str) -> Mapping[str, Tensor]:
        """One task's vector, each tensor as it is asked for.

        Of what is `stacked` or `between` models, no other task's is read; trimmed task vectors,
        for example, are made for all tasks.
        """
        row, deltas = self.tasks.index(task), self.deltas
        if isinstance(deltas, _Stacked):
            return deltas.of(row)
        kinds = {name: Kind(dtype, shape[1:]) for name, (dtype, shape) in kinds_of(deltas).items()}
        return Lazy(kinds, lambda name: deltas[name][row])

    def expert(self, task: str) -> Mapping[str, Tensor]:
        """One task's model, pretrained + its vector, each tensor as it is asked for."""
        own = self.of(task)

        def make(name: str) -> Tensor:
            start = self.pretrained[name]
            return start + own[name].to(start)

        return Lazy(kinds_of(self.pretrained), make)

    def to(self, device: torch.device) -> "TaskVectors":
        """The same with every tensor made, in the memory of `device`."""
        return replace(
            self,
            pretrained={name: tensor.to(device) for name, tensor in self.pretrained.items()},
            deltas={name: delta.to(device) for name, delta in self.deltas.items()},
        )

    def half(self) -> "TaskVectors":
        """The same in half precision; gradients of coefficients then err by some 2e-4."""
        return replace(self, deltas={name: delta.half() for name, delta in self.deltas.items()})

    def write_deltas(self, path: Path) -> None:
        """Write the deltas to a file for `mapped`, tensor by tensor."""
        # Not through a mapping: on a full disk, that ends the process without a word.
        with replacing(path) as temporary, temporary.open("wb") as file:
            for name in self.pretrained:
                file.write(self.deltas[name].float().cpu().contiguous().numpy().data)

    def mapped(self, path: Path) -> "TaskVectors":
        """The same with the deltas that `write_deltas` put into `path`, read as they are used.

        The operating system keeps of the file what memory allows.
        """
        # Copy-on-write, as torch has no read-only tensors; nothing is ever written to it.
        flat = torch.from_numpy(np.memmap(path, np.float32, "c", shape=(self._entries(),)))
        shapes = {name: (len(self.tasks), *t.shape) for name, t in self.pretrained.items()}
        parts = flat.split([math.prod(shape) for shape in shapes.values()])
        deltas = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        return replace(self, deltas=deltas, in_file=True)

    def _entries(self) -> int:
        return len(self.tasks) * sum(tensor.numel() for tensor in self.pretrained.values())

    def merged(self, coefficients: Tensor) -> Mapping[str, Tensor]:
        """pretrained + sum over tasks of coefficient x task vector, each as it is asked for.

        `coefficients`: [tasks], [1, tasks] or [layers, tasks], used as they are.
        """
        rows = coefficients.reshape(-1, len(self.tasks))
        if rows.shape[0] not in (1, len(self.deltas)):
            raise UserError(
                f"{rows.shape[0]} rows of coefficients for {len(self.deltas)} tensors: "
                "give one row, or one for each tensor."
            )
        row_of = dict(zip(self.deltas, rows.expand(len(self.deltas), -1).tolist(), strict=True))

        def make(name: str) -> Tensor:
            start = self.pretrained[name]
            total = torch.zeros_like(start, memory_format=torch.contiguous_format)
            flat = total.view(-1)
            for row, at, values in pieces(self.deltas, name):
                flat[at].add_(values.to(start), alpha=row_of[name][row])
            return total.add_(start)

        return Lazy(kinds_of(self.pretrained), make)

    def changed(self, change: Callable[[str, Tensor], Tensor]) -> Mapping[str, Tensor]:
        """pretrained + `change`(name, task vectors [tasks, *shape]), each as it is asked for."""

        def make(name: str) -> Tensor:
            start = self.pretrained[name]
            return start + change(name, self.deltas[name].to(start))

        return Lazy(kinds_of(self.pretrained), make)

    def changed_entrywise(self, change: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor]:
        """pretrained + `change`(task vectors [tasks, n]) [n], for entries that are independent.

        As `changed`, but that a cache holds what is made of some entries at a time.
        """

        def make(name: str) -> Tensor:
            start = self.pretrained[name]
            made = torch.empty_like(start, memory_format=torch.contiguous_format)
            flat, begin = made.view(-1), 0
            for block in columns(self.deltas, name):
                end = begin + block.shape[1]
                flat[begin:end] = change(block.to(start))
                begin = end
            return made.add_(start)

        return Lazy(kinds_of(self.pretrained), make)
