"""Merge experts into one model.

    from pipeline.merging import METHODS, merge
    merged = merge("ties", pretrained, {"cars": expert, "mnist": other}, keep=0.2)
    merged.weights()

`METHODS` is the table of what there is; importing this package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError, unknown
from pipeline.merging.methods import METHODS, Method
from pipeline.merging.options import check_count, check_options

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.learning import FitData
    from pipeline.masked import Masked
    from pipeline.vectors import TaskVectors

__all__ = ["METHODS", "Merged", "Method", "merge", "merge_vectors"]

Weights = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Merged:
    """A merge's result: one model's weights, or weights that depend on the task."""

    shared: Weights = field(default_factory=dict)  # name -> tensor, for every task alike
    extras: Mapping[str, Weights] = field(default_factory=dict)  # task -> its own tensors
    masked: Masked | None = None  # what `extras` are made of where a mask per task is stored

    def weights(self, task: str | None = None) -> dict[str, Tensor]:
        """name -> tensor. `task` is required where the method needs the task's identity."""
        if not self.extras:
            return dict(self.shared)
        if task is None or task not in self.extras:
            raise UserError(
                f"This method has one model per task: name one of {', '.join(self.extras)}."
            )
        return {**self.shared, **self.extras[task]}


def merge(
    method: str,
    pretrained: Weights,
    experts: Mapping[str, Weights],
    *,
    data: FitData | None = None,
    seed: int = 0,
    **options: Any,
) -> Merged:
    """Merge `experts` (task -> weights) that were fine-tuned from `pretrained`.

    `data`: images and heads, for methods that need them. `options`: those in the method's
    defaults. Raises `UserError`: unknown method or option, missing data, tensors that do not match.
    """
    _check(method, len(experts), data, options)

    from pipeline.vectors import TaskVectors

    return merge_vectors(
        method, TaskVectors.between(pretrained, experts), data=data, seed=seed, **options
    )


def merge_vectors(
    method: str,
    vectors: TaskVectors,
    *,
    data: FitData | None = None,
    seed: int = 0,
    **options: Any,
) -> Merged:
    """`merge` for task vectors that are at hand already."""
    _check(method, len(vectors.tasks), data, options)
    module, name = METHODS[method].function.split(":")
    function = getattr(importlib.import_module(f"pipeline.merging.{module}"), name)
    return function(vectors, data=data, seed=seed, **{**METHODS[method].defaults, **options})


def _check(method: str, experts: int, data: FitData | None, options: Mapping[str, Any]) -> None:
    row = METHODS.get(method)
    if row is None:
        raise unknown("method", method, METHODS)
    check_options(method, options)
    if row.reads("images") and data is None:
        raise UserError(f"{method} needs images and heads: pass them as data.")
    if not experts:
        raise UserError("There is no expert to merge.")
    check_count(method, experts, options)
