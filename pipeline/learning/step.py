"""One step of coefficient learning at the cost of one ordinary forward and backward pass.

    theta[l](c) = theta0[l] + sum over t of c[l, t] * tau[l, t]
    dL/dc[l, t] = <tau[l, t], dL/dtheta[l]>

The merge happens without a graph, into the encoder's own parameters; a hook turns each weight
gradient into T inner products the moment it is complete, and frees it. dL/dtheta is linear in the
images' losses, so one backward pass serves all tasks, and any division of the images among chunks
of memory and among processes gives the same sum.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.learning.granularity import ALL, Granularity, rows_of
from pipeline.learning.memory import Piece, chunks_of, within_memory
from pipeline.learning.objectives import OBJECTIVES, Objective
from pipeline.learning.store import DeltaStore
from pipeline.parallel import ALONE, Group
from pipeline.predictions import entropy
from pipeline.vectors import TaskVectors


class Measured(NamedTuple):
    """What a step saw of its images, before the update: one value per task, each [tasks]."""

    entropies: Tensor  # mean softmax entropy in nats
    losses: Tensor  # of the objective
    shares: Tensor  # of the images whose predicted class is the most frequent one


class CoefficientStep:
    """The objective of the merged model and its gradient with respect to the coefficients.

    `raw`: the learnable values [rows, tasks]: one row task-wise, one per block, or one per tensor;
    tied tensors share one. The model uses `used()`: their clamp to [0, 1], or themselves with
    `clamp` off. The encoder's parameters are overwritten at every step; it must hold the tensors of
    `vectors`. Tensors of `vectors` that are no trainable parameters (buffers, frozen ones) keep
    their pretrained values. `chunk`: the most images in one forward pass (None: all of them).
    `group`: the processes that share a step's images. Use it as a context manager: leaving it takes
    the hooks off the encoder.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        vectors: TaskVectors,
        heads: Mapping[str, Tensor],
        logit_scale: float,
        *,
        granularity: Granularity = "layer",
        initial: float = 0.3,
        clamp: bool = True,
        objective: Objective = OBJECTIVES["entropy"],
        batches: int = 1,
        chunk: int | None = None,
        group: Group = ALONE,
    ) -> None:
        self.chunk = chunk
        self._encoder, self._logit_scale, self._clamp = encoder, logit_scale, clamp
        self._objective, self._batches, self._group = objective, batches, group
        self._heads = [heads[task] for task in vectors.tasks]
        self._store = DeltaStore(encoder, vectors)
        labels = rows_of(self._store.names, granularity)
        rows = list(dict.fromkeys(labels))
        like = self._heads[0]
        self._rows = torch.tensor([rows.index(label) for label in labels], device=like.device)
        shape = len(rows), len(vectors.tasks)
        self.raw = torch.full(shape, initial, dtype=like.dtype, device=like.device)
        self.raw.requires_grad_()
        self._sums = _Sums(len(labels), [len(head) for head in self._heads], like)
        self._hooks = self._store.on_gradient(self._sums.gradient)

    def __enter__(self) -> "CoefficientStep":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def used(self) -> Tensor:
        """The coefficients that the model uses [rows, tasks]."""
        return self.raw.clamp(0, 1) if self._clamp else self.raw

    def values(self) -> tuple[tuple[str, ...], Tensor]:
        """`used()` with the names of its rows: the tensors' own, or `*` for one row for all.

        Tensors that are not merged have zeros.
        """
        used, names = self.used().detach(), self._store.every_name
        if len(used) == 1 and not self._store.frozen:
            return (ALL,), used
        rows = [self._store.unit_of.get(name) for name in names]
        zero = torch.zeros_like(used[0])
        values = [zero if row is None else used[self._rows[row]] for row in rows]
        return names, torch.stack(values)

    def __call__(
        self,
        images: Sequence[Tensor],
        *,
        totals: Sequence[int] | None = None,
        experts: Sequence[Tensor] | None = None,
    ) -> Measured:
        """Set `raw.grad` to the gradient of the summed losses.

        `images`: per task, uint8 [batch, 3, height, width]; batches may differ in length. With
        several processes these are this one's, none of some tasks, and `totals` are all processes'.
        `experts`: per task the expert's predictions for the images [batch, classes].
        """
        totals = totals or [len(batch) for batch in images]
        self._store.merge(self.used().detach()[self._rows])
        self._accumulate(images, totals, experts)
        self._group.sum_(self._sums.all)
        # The clamp's own derivative, whatever this version of torch takes it to be at the bounds.
        used = self.used()[self._rows]
        (self.raw.grad,) = torch.autograd.grad(used, self.raw, self._sums.gradient)
        return self._sums.measured(totals)

    def _accumulate(
        self, images: Sequence[Tensor], totals: Sequence[int], experts: Sequence[Tensor] | None
    ) -> None:
        """Add the gradients and losses of this process's images to the sums."""
        counts = [len(batch) for batch in images]
        means = self._shared_means(images, totals)

        def run(most: int | None) -> None:
            self._sums.all.zero_()
            chunks = chunks_of(counts, most)
            known = means or self._means_if_divided(images, chunks, totals)
            for chunk in chunks:
                losses = []
                for (task, rows), logits in self._logits(images, chunk):
                    reference = known.get(task)
                    if self._objective.needs == "experts":
                        assert experts is not None
                        reference = experts[task][rows]
                    losses.append(self._loss(task, logits, totals[task], reference))
                torch.stack(losses).sum().backward()

        self.chunk = within_memory(run, self.chunk, sum(counts))

    def _logits(
        self, images: Sequence[Tensor], chunk: Sequence[Piece]
    ) -> list[tuple[Piece, Tensor]]:
        """One forward pass over a chunk, then each piece with its own task's head."""
        pieces = [images[task][rows] for task, rows in chunk]
        features = self._encoder(torch.cat(pieces)).split([len(piece) for piece in pieces])
        return [
            (piece, self._logit_scale * feature @ self._heads[piece.task].T)
            for piece, feature in zip(chunk, features, strict=True)
        ]

    def _loss(self, task: int, logits: Tensor, total: int, reference: Tensor | None) -> Tensor:
        """The piece's part of the loss; its value is noted in the sums."""
        if self._objective.needs == "mean" and reference is None:
            reference = logits.detach().softmax(dim=1).mean(dim=0)
        loss = self._objective.losses(logits, reference).sum() * (self._batches / total)
        self._sums.note(task, logits.detach(), loss.detach())
        return loss

    def _shared_means(self, images: Sequence[Tensor], totals: Sequence[int]) -> dict[int, Tensor]:
        """task -> mean prediction [classes] over all processes' images; one forward pass more.

        Apart from the pass that learns: a process that repeats that one must not reduce again.
        """
        if self._objective.needs != "mean" or self._group.size == 1:
            return {}
        counts, found = [len(batch) for batch in images], {}

        def run(most: int | None) -> None:
            found.update(self._means(images, chunks_of(counts, most), totals))

        self.chunk = within_memory(run, self.chunk, sum(counts))
        together = self._group.sum_(torch.cat(list(found.values())))
        return dict(enumerate(together.split([len(mean) for mean in found.values()])))

    def _means_if_divided(
        self, images: Sequence[Tensor], chunks: Sequence[Sequence[Piece]], totals: Sequence[int]
    ) -> dict[int, Tensor]:
        """The same for one process; none if every task's images go through together."""
        pieces = [piece for chunk in chunks for piece in chunk]
        if self._objective.needs != "mean" or len(pieces) == len(images):
            return {}
        return self._means(images, chunks, totals)

    @torch.no_grad()
    def _means(
        self, images: Sequence[Tensor], chunks: Sequence[Sequence[Piece]], totals: Sequence[int]
    ) -> dict[int, Tensor]:
        means = {task: torch.zeros_like(head[:, 0]) for task, head in enumerate(self._heads)}
        for chunk in chunks:
            for (task, _), logits in self._logits(images, chunk):
                means[task] += logits.softmax(dim=1).sum(dim=0) / totals[task]
        return means


class _Sums:
    """What is added up over chunks and processes, in one tensor, so that one reduction does."""

    def __init__(self, units: int, classes: Sequence[int], like: Tensor) -> None:
        tasks = len(classes)
        sizes = [units * tasks, tasks, tasks, sum(classes)]
        self.all = like.new_zeros(sum(sizes))
        gradient, self._losses, self._entropies, counts = self.all.split(sizes)
        self.gradient = gradient.view(units, tasks)
        self._counts = counts.split(list(classes))

    def note(self, task: int, logits: Tensor, loss: Tensor) -> None:
        """Count a piece's loss, entropies and predicted classes."""
        self._losses[task] += loss
        self._entropies[task] += entropy(logits).sum()
        ones = torch.ones_like(logits[:, 0])
        self._counts[task].index_add_(0, logits.argmax(dim=1), ones)

    def measured(self, totals: Sequence[int]) -> Measured:
        """The sums as means over images."""
        images = self.all.new_tensor(totals)
        most = torch.stack([counts.max() for counts in self._counts])
        return Measured(self._entropies / images, self._losses.clone(), most / images)
