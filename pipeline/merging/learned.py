"""Merges whose coefficients are learned from images: AdaMerging, and the label-tuned baseline."""

from collections.abc import Sequence
from typing import Any

from pipeline.learning import (
    Coefficients,
    FitData,
    LearningOptions,
    learn_coefficients,
    select_coefficient,
)
from pipeline.merging import Merged
from pipeline.vectors import TaskVectors


def with_coefficients(vectors: TaskVectors, learned: Coefficients, keep: float = 1.0) -> Merged:
    """Apply learned coefficients; `keep` < 1 says that they belong to TIES-processed vectors."""
    return Merged((vectors.ties(keep) if keep < 1 else vectors).merged(learned.values))


def adamerging(
    vectors: TaskVectors, data: FitData, seed: int, keep: float, **options: Any
) -> Merged:
    """Coefficients that minimise prediction entropy (https://arxiv.org/abs/2310.02575).

    `options`: those of `LearningOptions`. `keep` < 1: the ++ variant, on TIES-processed vectors.
    """
    processed = vectors.ties(keep) if keep < 1 else vectors
    learned = learn_coefficients(processed, data, LearningOptions(**options), seed=seed)
    return Merged(processed.merged(learned.values))


def tuned(vectors: TaskVectors, data: FitData, seed: int, grid: Sequence[float]) -> Merged:
    """Task arithmetic with the coefficient of `grid` that `data`'s labels prefer."""
    return with_coefficients(vectors, select_coefficient(vectors, data, grid))
