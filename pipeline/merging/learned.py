"""Merges whose coefficients are learned from images: AdaMerging, and the label-tuned baseline."""

from collections.abc import Sequence

from pipeline.learning import (
    Coefficients,
    FitData,
    LearningOptions,
    learn_coefficients,
    select_coefficient,
)
from pipeline.learning.step import Granularity
from pipeline.merging import Merged
from pipeline.vectors import TaskVectors


def with_coefficients(vectors: TaskVectors, learned: Coefficients, keep: float = 1.0) -> Merged:
    """Apply learned coefficients; `keep` < 1 says that they belong to TIES-processed vectors."""
    return Merged((vectors.ties(keep) if keep < 1 else vectors).merged(learned.values))


def adamerging(
    vectors: TaskVectors,
    data: FitData,
    seed: int,
    granularity: Granularity,
    keep: float,
    steps: int,
    batch: int,
    lr: float,
    initial: float,
) -> Merged:
    """Coefficients that minimise prediction entropy (https://arxiv.org/abs/2310.02575).

    `keep` < 1: the ++ variant, on TIES-processed task vectors.
    """
    processed = vectors.ties(keep) if keep < 1 else vectors
    options = LearningOptions(granularity, steps, batch, lr, initial)
    learned = learn_coefficients(processed, data, options, seed=seed)
    return Merged(processed.merged(learned.values))


def tuned(vectors: TaskVectors, data: FitData, seed: int, grid: Sequence[float]) -> Merged:
    """Task arithmetic with the coefficient of `grid` that `data`'s labels prefer."""
    return with_coefficients(vectors, select_coefficient(vectors, data, grid))
