"""Whether entropy stands for the loss that labels would give, which AdaMerging rests on.

Spearman's correlation between the entropy of a prediction and its cross-entropy, over the images of
a task and over groups of images with like entropy (https://arxiv.org/abs/2310.02575, its figure of
entropy against loss groups them as well). Nothing is learned: predictions are those of `evaluate`.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import rankdata

from pipeline.evaluation import Predictions
from pipeline.statistics import TAIL

METHODS = ("task_arithmetic", "adamerging_layerwise")
GROUPS = 10  # of equally many images
PUBLISHED = 0.87  # over groups, mean over eight tasks: https://arxiv.org/abs/2310.02575
DRAWS = 500  # resamplings: each ranks all images anew

Seeds = Mapping[str, Sequence[Predictions]]  # task -> of every seed


def spearman(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties sharing their mean rank; 0 where all are tied."""
    ranks = [rankdata(values, axis=-1) for values in (ours, theirs)]
    first, second = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    shared = (first * second).sum(axis=-1)
    return np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 0)


def losses(predictions: Predictions) -> np.ndarray:
    """Cross-entropy of every image in nats [N]."""
    tiny = np.finfo(np.float32).tiny
    return -np.log(np.maximum(predictions.p_label.astype(np.float64), tiny))


def grouped(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Mean entropy and mean loss of groups of images, from the lowest entropy to the highest."""
    order = np.argsort(predictions.entropy, kind="stable")
    count = min(GROUPS, len(order))
    parts = np.array_split(order, count)
    loss = losses(predictions)
    means = [(predictions.entropy[part].mean(), loss[part].mean()) for part in parts]
    entropies, found = np.array(means, dtype=np.float64).T
    return entropies, found


def summary(found: Mapping[str, Seeds]) -> dict[str, Any]:
    """The core of metrics/<profile>/entropy_loss.json, from method -> task -> predictions."""
    return {"published": PUBLISHED, "methods": {m: _method(own) for m, own in found.items()}}


def _method(tasks: Seeds) -> dict[str, Any]:
    rows = {task: _task(seeds) for task, seeds in tasks.items()}
    low, high = _interval(tasks)
    return {
        "images": round(mean(row["images"] for row in rows.values()), 3),
        "images_interval": [round(low, 3), round(high, 3)],
        "groups": round(mean(row["groups"] for row in rows.values()), 3),
        "tasks": rows,
    }


def _task(seeds: Sequence[Predictions]) -> dict[str, Any]:
    """Means over seeds: both correlations, and the groups themselves."""
    parts = [grouped(one) for one in seeds]
    fewest = min(len(entropies) for entropies, _ in parts)
    entropies, found = (np.mean([part[k][:fewest] for part in parts], axis=0) for k in (0, 1))
    return {
        "images": round(mean(float(spearman(one.entropy, losses(one))) for one in seeds), 3),
        "groups": round(mean(float(spearman(*part)) for part in parts), 3),
        "entropy": [round(float(value), 4) for value in entropies],
        "loss": [round(float(value), 4) for value in found],
    }


def _interval(tasks: Seeds) -> tuple[float, float]:
    """Of the mean over tasks and seeds of the correlation over images, by bootstrap over images."""
    generator = np.random.default_rng(0)
    total = np.zeros(DRAWS)
    for seeds in tasks.values():
        for one in seeds:
            rows = generator.integers(0, len(one.label), (DRAWS, len(one.label)))
            total += spearman(one.entropy[rows], losses(one)[rows]) / len(seeds)
    low, high = np.quantile(total / len(tasks), [TAIL, 1 - TAIL])
    return float(low), float(high)
