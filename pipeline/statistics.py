"""How sure figures are: bootstrap intervals over images, and methods compared on the same images.

Every method is tested on the same images, so all of them share one resampling: an interval of a
difference is paired. Intervals say how much an average depends on which images happened to be
tested, for the models at hand; how much it depends on the seed is the standard deviation over
seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

DRAWS = 4000  # resamplings: the ends of an interval move by 2 % of its width between seeds
TAIL = 0.025  # of the draws, on either side of an interval of 95 %
_ENTRIES = 1 << 22  # of one block of draws x images, held in memory at a time

Correct = Mapping[str, Sequence[np.ndarray]]  # task -> for every seed bool [N], or shares
Images = Mapping[str, Sequence[np.ndarray]]  # task -> for every seed which images, integers [N]


@dataclass(frozen=True)
class Interval:
    """A confidence interval of 95 %."""

    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether a difference with this interval has a sign: zero lies outside."""
        return self.low > 0 or self.high < 0

    def rounded(self) -> list[float]:
        """[low, high] as the metrics files hold it: what rounds to zero is not clear there."""
        return [_rounded(self.low), _rounded(self.high)]


@dataclass(frozen=True)
class Comparison:
    """One method beside another on the same images."""

    difference: float  # of the average accuracies, in points
    interval: Interval  # of the difference, in points
    wins: int  # tasks on which the first is the more accurate
    tasks: int  # of them there are so many

    def rounded(self) -> dict[str, Any]:
        """As the metrics files hold it."""
        short = {"difference": _rounded(self.difference), "interval": self.interval.rounded()}
        return vars(self) | short


@dataclass(frozen=True)
class Resampled:
    """Average accuracies in percent, as tested and on resampled images."""

    tasks: Mapping[str, Mapping[str, float]]  # method -> task -> accuracy, mean over seeds
    draws: Mapping[str, np.ndarray]  # method -> [draws], mean over tasks

    def average(self, method: str) -> float:
        """Mean over tasks and seeds, as tested."""
        return float(np.mean(list(self.tasks[method].values())))

    def interval(self, method: str) -> Interval:
        """Of a method's average. It has no width where every image, or none, is right."""
        return _percentiles(self.draws[method])

    def compare(self, method: str, other: str) -> Comparison:
        """`method` less `other`."""
        ours, theirs = self.tasks[method], self.tasks[other]
        return Comparison(
            difference=self.average(method) - self.average(other),
            interval=_percentiles(self.draws[method] - self.draws[other]),
            wins=sum(ours[task] > theirs[task] for task in ours),
            tasks=len(ours),
        )


def resample(
    correct: Mapping[str, Correct], images: Images, draws: int = DRAWS, seed: int = 0
) -> Resampled:
    """Bootstrap the average accuracy of every method, over the images of each task.

    `correct`: method -> task -> for every seed bool [N], whether the images are classified
    correctly; in the order of `images`, whose numbers say which of them are the same image.

    Percentile intervals of Efron and Tibshirani 1993 (https://doi.org/10.1201/9780429246593),
    chapter 13. Each task's images are drawn with replacement, as many as there are, and the
    average is the mean over tasks of the mean over seeds. An image that several seeds are tested
    on is drawn for all of them together: three seeds on the same images are not three times as
    many images. With one seed, or with the same images for all, the draws are the textbook's;
    otherwise an image counts by how much it lifts its seed's accuracy as tested, and that a seed
    may get more or fewer of the drawn images is left out. A task's draws depend on its name and
    `seed` alone.
    """
    methods = list(correct)
    total = np.zeros((draws, len(methods)))
    for task, places in images.items():
        values = [np.stack([correct[m][task][s] for m in methods]) for s in range(len(places))]
        lifts = _lifts(values, places)
        centre = np.mean([one.mean(axis=1) for one in values], axis=0)
        generator = np.random.default_rng([crc32(task.encode()), seed])
        total += centre + _sums(lifts, draws, generator)
    # Products of matrices round; beyond these digits equal methods could seem to differ.
    percent = np.round(100 * total / len(images), 9)
    return Resampled(
        tasks={
            method: {
                task: 100 * float(np.mean([right.mean() for right in correct[method][task]]))
                for task in images
            }
            for method in methods
        },
        draws=dict(zip(methods, percent.T, strict=True)),
    )


def level_with(best: str, rows: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """`best` and the methods that the images cannot tell from it, in the order of `rows`.

    `rows`: method -> its entry of metrics/<profile>/clean.json, compared with `best` there. A
    table may call none of them better than another; each is compared with `best` alone, at 95 %
    each, with no correction for how many there are.
    """
    return tuple(
        method
        for method, row in rows.items()
        if method == best or not Interval(*row["beside"][best]["interval"]).clear
    )


def _lifts(values: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """How much each image of a task lifts the mean over seeds, [images, methods]; sums are zero.

    `values`: for every seed bool [methods, N]; `places`: for every seed which images.
    """
    numbers, inverse = np.unique(np.concatenate(places), return_inverse=True)
    lifts = np.zeros((len(numbers), len(values[0])))
    parts = np.split(inverse, np.cumsum([len(place) for place in places])[:-1])
    for right, rows in zip(values, parts, strict=True):
        own = (right - right.mean(axis=1, keepdims=True)) / (right.shape[1] * len(values))
        np.add.at(lifts, rows, own.T)
    return lifts


def _sums(lifts: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Sums over images that are drawn with replacement, as many as there are: [draws, methods]."""
    count = len(lifts)
    block = max(1, _ENTRIES // count)
    parts = []
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = generator.integers(0, count, (rows, count), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * np.int32(count)
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        parts.append(times.astype(np.float64) @ lifts)
    return np.concatenate(parts)


def _rounded(points: float) -> float:
    return round(points, 2) + 0.0  # no -0.0


def _percentiles(draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [TAIL, 1 - TAIL])
    return Interval(float(low), float(high))
