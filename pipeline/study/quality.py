"""When two merged models are alike: differences between them on the same images, and their noise.

Both models see the same images, so that the variance is that of the paired differences, which is
far below that of the two accuracies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.study.measuring import Measured

NOISE = 2.0  # standard errors within which two models count as alike
Z_95 = 1.959964  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class Difference:
    """A difference between two models, and its standard error over images."""

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval."""
        return self.value - Z_95 * self.error, self.value + Z_95 * self.error


def paired(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> Difference:
    """Sum over tasks of the mean of ours - theirs, image by image; per task arrays [images]."""
    gaps = [ours[task].astype(float) - theirs[task] for task in ours]
    error = math.sqrt(sum(float(gap.var()) / len(gap) for gap in gaps))
    return Difference(sum(float(gap.mean()) for gap in gaps), error)


def entropy_gap(ours: Measured, theirs: Measured) -> Difference:
    """Of the entropies summed over tasks, in nats."""
    return paired(ours.entropies, theirs.entropies)


def accuracy_gap(ours: Measured, theirs: Measured) -> Difference:
    """Of the mean accuracies, in points."""
    found = paired(ours.correct, theirs.correct)
    share = 100 / len(ours.correct)
    return Difference(share * found.value, share * found.error)


def mean_difference(seeds: Sequence[Difference]) -> Difference:
    """Mean over seeds, whose images have nothing to do with each other."""
    error = math.sqrt(sum(one.error**2 for one in seeds)) / len(seeds)
    return Difference(sum(one.value for one in seeds) / len(seeds), error)


def as_good(ours: Measured, reference: Measured) -> bool:
    """Whether, but for noise, our entropy is no higher and our accuracy no lower."""
    entropy, accuracy = entropy_gap(ours, reference), accuracy_gap(ours, reference)
    return entropy.value <= NOISE * entropy.error and accuracy.value >= -NOISE * accuracy.error


def first_good(snapshots: Sequence[Measured], reference: Measured) -> int | None:
    """Place of the first snapshot that is as good as the reference, like all that follow it."""
    place = len(snapshots)
    while place and as_good(snapshots[place - 1], reference):
        place -= 1
    return place if place < len(snapshots) else None
