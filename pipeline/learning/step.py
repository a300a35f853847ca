"""One step of coefficient learning at the cost of one ordinary forward and backward pass.

    theta[l](c) = theta0[l] + sum over t of c[l, t] * tau[l, t]
    dL/dc[l, t] = <tau[l, t], dL/dtheta[l]>

The merge happens without a graph, into the encoder's own parameters; a hook turns each weight
gradient into T inner products the moment it is complete, and frees it. dL/dtheta is linear in the
tasks' losses, so one concatenated batch and one backward pass serve all tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.clip import ImageEncoder
from pipeline.predictions import entropy
from pipeline.vectors import TaskVectors

Granularity = Literal["task", "layer"]


class CoefficientStep:
    """Entropy of the merged model and its gradient with respect to the coefficients.

    `raw`: the learnable values, [1, tasks] (task-wise) or [layers, tasks] (layer-wise); the model
    uses `used()`, their clamp to [0, 1]. `encoder`'s parameters are overwritten at every step; it
    must hold the tensors of `vectors`, on the same device and in the same precision. Use it as a
    context manager: leaving it takes the hooks off the encoder.
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
    ) -> None:
        parameters = dict(encoder.named_parameters())
        self._encoder = encoder
        self._heads = [heads[task] for task in vectors.tasks]
        self._logit_scale = logit_scale
        self._weights = [parameters[name] for name in vectors.layers]
        self._starts = [vectors.pretrained[name].flatten() for name in vectors.layers]
        self._deltas = [vectors.deltas[name].flatten(1) for name in vectors.layers]
        rows = len(self._weights) if granularity == "layer" else 1
        like = self._deltas[0]
        self.raw = torch.full((rows, len(vectors.tasks)), initial).to(like).requires_grad_()
        self._gradient = like.new_zeros(len(self._weights), len(vectors.tasks))
        self._hooks = [
            weight.register_post_accumulate_grad_hook(self._hook(row))
            for row, weight in enumerate(self._weights)
        ]

    def __enter__(self) -> "CoefficientStep":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def used(self) -> Tensor:
        """The coefficients that the model uses: `raw` clamped to [0, 1]."""
        return self.raw.clamp(0, 1)

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Set `raw.grad` to the gradient of the summed entropies; return them [tasks], in nats.

        `images`: per task, uint8 [batch, 3, height, width]; batches may differ in length.
        """
        self._merge()
        self._gradient.zero_()
        features = self._encoder(torch.cat(list(images))).split([len(batch) for batch in images])
        entropies = torch.stack(
            [
                entropy(self._logit_scale * feature @ head.T).mean()
                for feature, head in zip(features, self._heads, strict=True)
            ]
        )
        entropies.sum().backward()
        # The clamp's own derivative, whatever this version of torch takes it to be at the bounds.
        used = self.used()
        (self.raw.grad,) = torch.autograd.grad(
            used.expand_as(self._gradient), self.raw, self._gradient
        )
        return entropies.detach()

    @torch.no_grad()
    def _merge(self) -> None:
        coefficients = self.used().expand_as(self._gradient)
        for weight, start, delta, row in zip(
            self._weights, self._starts, self._deltas, coefficients, strict=True
        ):
            torch.addmv(start, delta.T, row, out=weight.data.view(-1))

    def _hook(self, row: int) -> Callable[[nn.Parameter], None]:
        def take(weight: nn.Parameter) -> None:
            assert weight.grad is not None
            self._gradient[row] += self._deltas[row] @ weight.grad.flatten()
            weight.grad = None

        return take
