"""The task vectors at work: merged into the encoder's parameters, multiplied with gradients."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.clip import ImageEncoder
from pipeline.errors import CheckpointError, UserError
from pipeline.vectors import TaskVectors

# Entries of a tensor that are converted at a time where task vectors are kept in another precision
# or place than they are used in: what fits a core's cache, and what keeps a GPU busy.
BLOCK = {"cpu": 1 << 16, "cuda": 1 << 22}


class DeltaStore:
    """Per trainable parameter of the encoder: its pretrained value [n] and task vectors [T, n].

    `names`: one name per parameter; tied tensors count once. `unit_of`: tensor name -> place in
    `names`; tensors that are frozen have none. Task vectors are used in the encoder's precision and
    on its device, whatever they are kept in and where. Raises `CheckpointError` where tied tensors
    have different task vectors, `UserError` where nothing is trainable.
    """

    def __init__(self, encoder: ImageEncoder, vectors: TaskVectors) -> None:
        self.every_name = vectors.layers
        self.names: list[str] = []
        self.unit_of: dict[str, int] = {}
        self._weights: list[nn.Parameter] = []
        parameters = dict(encoder.named_parameters(remove_duplicate=False))
        units: dict[int, int] = {}
        for name in vectors.layers:
            weight = parameters.get(name)
            if weight is None or not weight.requires_grad:
                continue
            unit = units.setdefault(id(weight), len(self.names))
            if unit == len(self.names):
                self.names.append(name)
                self._weights.append(weight)
            elif not torch.equal(vectors.deltas[name], vectors.deltas[self.names[unit]]):
                raise CheckpointError(
                    f"'{name}' and '{self.names[unit]}' are one tensor in the model, but the "
                    "experts changed them differently. Use experts that keep them tied."
                )
            self.unit_of[name] = unit
        if not self.names:
            raise UserError("No tensor of the task vectors is a trainable parameter of the model.")
        held = encoder.state_dict()
        for name in set(self.every_name) - self.unit_of.keys():
            held[name].copy_(vectors.pretrained[name])
        self._starts = [vectors.pretrained[name].flatten() for name in self.names]
        self._deltas = [vectors.deltas[name].flatten(1) for name in self.names]

    @property
    def frozen(self) -> bool:
        """Whether some tensors are not merged."""
        return len(self.unit_of) < len(self.every_name)

    @torch.no_grad()
    def merge(self, coefficients: Tensor) -> None:
        """Write pretrained + coefficients [parameters, tasks] x task vectors into the encoder."""
        for weight, start, delta, row in zip(
            self._weights, self._starts, self._deltas, coefficients, strict=True
        ):
            target = weight.data.view(-1)
            for part, values in _usable(delta, weight):
                torch.addmv(start[part], values.T, row, out=target[part])

    def on_gradient(self, sums: Tensor) -> list[RemovableHandle]:
        """Hooks that add <task vectors, gradient> to `sums` [parameters, tasks].

        Each runs when its parameter's gradient is complete, and frees it.
        """
        return [
            weight.register_post_accumulate_grad_hook(_inner_products(delta, sums[unit]))
            for unit, (weight, delta) in enumerate(zip(self._weights, self._deltas, strict=True))
        ]


def _inner_products(delta: Tensor, sums: Tensor) -> Callable[[Tensor], None]:
    def take(weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.flatten()
        weight.grad = None
        for part, values in _usable(delta, weight):
            sums.addmv_(values, gradient[part])

    return take


def _usable(delta: Tensor, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Parts of `delta` [T, n] in the precision and on the device of `like`, with their place."""
    if delta.dtype == like.dtype and delta.device == like.device:
        yield slice(None), delta
        return
    size = BLOCK[like.device.type]
    for first in range(0, delta.shape[1], size):
        part = slice(first, first + size)
        yield part, delta[:, part].to(like.device, like.dtype, non_blocking=True)
