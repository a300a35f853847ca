"""How accurate an exported model is, from what `evaluate` measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation import Predictions
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.statistics import Interval

EVALUATE = "python -m stages.evaluate"
Z = 1.959963984540054  # of the normal distribution: 95 % lie within as many standard deviations
TOLERANCE = 0.01  # percent: metrics are rounded; beyond it predictions are of another run


@dataclass(frozen=True)
class Figure:
    """An accuracy in percent with its 95 % interval."""

    value: float
    interval: Interval | None = None  # None: it was not measured, or is of several models
    images: int | None = None


@dataclass(frozen=True)
class Accuracy:
    """A model's accuracies on the tasks' `eval` images."""

    average: Figure
    tasks: Mapping[str, Figure]
    seeds: tuple[int, ...]  # of more than one: means over models made in the same way


def accuracy_of(config: Config, layout: Layout, method: str, seed: int) -> Accuracy | None:
    """What metrics/<profile>/clean.json and the model's predictions say; None if nothing does.

    Without predictions, or with those of another run, the metrics alone: means over their seeds.
    Raises `UserError` for a damaged file.
    """
    path = layout.metric("clean")
    row = read_json(path, EVALUATE).get(method, {}) if path.exists() else {}
    tasks, seeds = config.profile.tasks, config.profile.seeds
    try:
        if not set(tasks) <= set(row.get("tasks", ())):
            return None
        ends = row.get("avg_interval")
        average = Figure(row["avg"], Interval(*ends) if ends else None)
        means = Accuracy(average, {task: Figure(row["tasks"][task]) for task in tasks}, seeds)
        average_of_seed = row["seeds"][str(seed)]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Run '{EVALUATE}' again.") from None
    right = _right(config, layout, method, seed)
    own = Accuracy(_average(right), _figures(right), (seed,)) if right else means
    if abs(own.average.value - average_of_seed) > TOLERANCE:
        return means
    return own if len(seeds) > 1 else Accuracy(average, own.tasks, seeds)


def _right(config: Config, layout: Layout, method: str, seed: int) -> dict[str, np.ndarray]:
    """task -> bool [images], whether this very model is right; empty unless all of it is there."""
    paths = {task: layout.predictions(seed, method, task) for task in config.profile.tasks}
    if not all(path.exists() for path in paths.values()):
        return {}
    return {task: Predictions.load(path, EVALUATE).correct for task, path in paths.items()}


def _figures(right: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    return {
        task: Figure(100 * float(one.mean()), wilson(int(one.sum()), len(one)), len(one))
        for task, one in right.items()
    }


def _average(right: Mapping[str, np.ndarray]) -> Figure:
    """Mean over tasks; each task's images are a sample of their own, so its variance adds.

    Tables of several seeds show the bootstrap's interval of their mean; this is of one model.
    """
    value = 100 * float(np.mean([one.mean() for one in right.values()]))
    variance = sum(float(one.mean() * (1 - one.mean())) / len(one) for one in right.values())
    half = 100 * Z * sqrt(variance) / len(right)
    return Figure(value, Interval(value - half, value + half))


def wilson(right: int, images: int) -> Interval:
    """Of a share of independent images, in percent: Wilson 1927.

    https://doi.org/10.1080/01621459.1927.10502953
    """
    share, part = right / images, Z * Z / images
    centre = (share + part / 2) / (1 + part)
    half = Z * sqrt(share * (1 - share) / images + part / (4 * images)) / (1 + part)
    return Interval(100 * (centre - half), 100 * (centre + half))
