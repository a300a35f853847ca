"""FusionBench's layer-wise AdaMerging: its merge class, and its loop re-created around it.

The class is the package's own (https://github.com/tanganke/fusion_bench). The loop does what its
method does in a step, with the values of its configuration for CLIP: for each task a forward pass
with the weights merged before, the entropy, and a backward pass that keeps the merge's graph for
the next task; then Adam, and the next merge. Data loading and logging are left out, and the tower
is open_clip's, not the one of transformers.
"""

from copy import deepcopy

import torch
from fusion_bench.models.wrappers.layer_wise_fusion import (
    LayerWiseMergedModel,
    get_layer_wise_weights,
)

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


class FusionBenchLoop:
    """Merges once per step; one backward pass per task through the graph of that merge."""

    def __init__(self, problem: Problem) -> None:
        pretrained = tower(problem)
        experts = [deepcopy(pretrained) for _ in range(problem.tasks)]
        with torch.no_grad():
            for name, delta in deltas(problem, pretrained):
                for expert, change in zip(experts, delta, strict=True):
                    expert.get_parameter(name).add_(change)
            layers = len(list(pretrained.parameters()))
            self._model = LayerWiseMergedModel(
                get_layer_wise_weights(problem.tasks, layers, INITIAL),
                pretrained,
                experts,
                clamp_weights=False,
                tie_weights=True,
                strict=False,
            )
        self._model.to(problem.device).train()
        self._weights = self._model.merge_weight
        self._optimizer = torch.optim.Adam([self._weights], lr=LEARNING_RATE)
        self._device = problem.device
        self._data = list(zip(pixels(problem), heads(problem), strict=True))
        self._gradient = torch.empty_like(self._weights)
        self._model.merge_weights()

    def step(self, precision: str = "float32") -> float:
        """One step; returns the sum of the tasks' mean entropies in nats.

        `precision`: of the forward passes, float32 or bfloat16 as Lightning's mixed precision is.
        """
        low = precision == "bfloat16"
        total = 0.0
        for batch, head in self._data:
            with torch.autocast(self._device, torch.bfloat16, enabled=low):
                features = self._model(batch)
            loss = mean_entropy(features, head)
            loss.backward(retain_graph=True)
            total += loss.item()
        self._gradient.copy_(self._weights.grad)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._model.merge_weights()
        return total

    def gradient(self) -> list[list[float]]:
        """The last step's gradient [parameters, tasks]."""
        return self._gradient.T.tolist()
