"""Merges whose coefficients are learned from images: AdaMerging, and the label-tuned baseline."""

from collections.abc import Sequence
from typing import Any

from pipeline.learning import FitData, LearningOptions, learn_coefficients, select_coefficient
from pipeline.merging import Merged
from pipeline.processing import processed
from pipeline.vectors import TaskVectors


def adamerging(
    vectors: TaskVectors, data: FitData, seed: int, processing: str, keep: float, **options: Any
) -> Merged:
    """Coefficients that minimise prediction entropy (https://arxiv.org/abs/2310.02575).

    `processing`, `keep`: what is made of the task vectors first, see `pipeline.processing`; "ties"
    is AdaMerging++. `options`: those of `LearningOptions`.
    """
    # Every step needs them all.
    device = next(data.encoder.parameters()).device
    held = processed(vectors, processing, keep).to(device)
    learned = learn_coefficients(held, data, LearningOptions(**options), seed=seed)
    return Merged(held.merged(learned.values))


def tuned(vectors: TaskVectors, data: FitData, seed: int, grid: Sequence[float]) -> Merged:
    """Task arithmetic with the coefficient of `grid` that `data`'s labels prefer."""
    return Merged(vectors.merged(select_coefficient(vectors, data, grid).values))
