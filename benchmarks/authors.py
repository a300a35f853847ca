"""A re-creation, from a description, of the step of AdaMerging's authors.

Not their code (https://github.com/EnnengYang/AdaMerging): a re-creation of what it computes and
keeps. The pretrained weights and the task vectors stay on the CPU and are themselves leaves of the
graph. Each forward pass merges anew; the graphs of all forward passes live until one backward pass
at the end. That also fills the `.grad` of every weight and task vector, which nothing ever clears.

Left out: data sets and loaders are made anew for every task and step there, and their checkpoints
carry what is left of the text tower. Both would make it slower or larger.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.problem import (
    INITIAL,
    LEARNING_RATE,
    deltas,
    heads,
    mean_entropy,
    pixels,
    tower,
)
from benchmarks.settings import Problem


class RecreatedAuthorsStep:
    """Merges on the CPU for each forward pass, `batches` times per task; one backward pass."""

    def __init__(self, problem: Problem) -> None:
        visual = tower(problem)
        self._device = problem.device
        # Per parameter, the pretrained tensor and then every task's difference from it.
        self._terms: dict[str, list[Tensor]] = {}
        for (name, weight), (_, delta) in zip(
            visual.named_parameters(), deltas(problem, visual), strict=True
        ):
            terms = [weight.detach().clone(), *(change.clone() for change in delta)]
            self._terms[name] = [term.requires_grad_() for term in terms]
        self._visual = visual.to("meta")  # its own weights are never used
        shape = len(self._terms), problem.tasks
        self._raw = torch.full(shape, INITIAL, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._raw], lr=LEARNING_RATE)
        self._pixels = [pixels(problem, draw) for draw in range(2)]
        self._heads = heads(problem)

    def step(self, batches: int = 2) -> float:
        """One step; returns the sum over tasks and batches of mean entropies in nats."""
        losses = []
        for task, head in enumerate(self._heads):
            for batch in self._pixels[:batches]:
                features = functional_call(self._visual, self._merged(), (batch[task],))
                losses.append(mean_entropy(features, head))
        loss = torch.stack(losses).sum()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()

    def gradient(self) -> list[list[float]]:
        """The last step's gradient [parameters, tasks]."""
        return self._raw.grad.tolist()

    def _merged(self) -> dict[str, Tensor]:
        """Merged weights with a graph of their own, moved to the device afterwards."""
        ones = torch.ones(len(self._terms), 1)
        factors = torch.cat([ones, self._raw.clamp(0, 1)], dim=1)
        return {
            name: sum(term * factor for term, factor in zip(terms, row, strict=True)).to(
                self._device
            )
            for (name, terms), row in zip(self._terms.items(), factors, strict=True)
        }
