"""How good a model seems without labels: what could choose a step or a variant.

Probabilities are a task's [N, classes]. Each validator is computed for every task by itself, and
the mean over tasks decides.
"""

from collections.abc import Mapping
from statistics import mean

import numpy as np

TEMPERATURE = 0.05  # of SND, as published
_ROWS = 512  # of similarities in memory at a time

Scores = dict[str, float]


def entropy(probabilities: np.ndarray) -> float:
    """Mean entropy of the predictions in nats: lower seems better."""
    return float(_entropies(probabilities).mean())


def information(probabilities: np.ndarray) -> float:
    """InfoMax: entropy of the mean prediction less the mean entropy, in nats; higher seems better.

    Mutual information of image and class; as a validator: https://arxiv.org/abs/2208.07360.
    """
    return float(_entropies(probabilities.mean(axis=0))) - entropy(probabilities)


def neighborhood_density(probabilities: np.ndarray, temperature: float = TEMPERATURE) -> float:
    """SND (https://arxiv.org/abs/2108.10860), in nats: higher seems better.

    The mean entropy of every image's similarities to the others, a softmax of cosines between
    predictions. 0 of a single image.
    """
    if len(probabilities) < 2:
        return 0.0
    unit = probabilities / np.linalg.norm(probabilities, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, len(unit), _ROWS):
        similar = unit[start : start + _ROWS] @ unit.T / temperature
        rows = np.arange(len(similar))
        similar[rows, start + rows] = -np.inf  # itself
        odds = np.exp(similar - similar.max(axis=1, keepdims=True))
        total += float(_entropies(odds / odds.sum(axis=1, keepdims=True)).sum())
    return total / len(unit)


def scores_of(probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> Scores:
    """Means over tasks of every validator, and the accuracy in percent, which needs labels."""
    tasks = {task: shares.astype(np.float64) for task, shares in probabilities.items()}
    return {
        "entropy": mean(entropy(shares) for shares in tasks.values()),
        "infomax": mean(information(shares) for shares in tasks.values()),
        "snd": mean(neighborhood_density(shares) for shares in tasks.values()),
        "accuracy": 100
        * mean(
            float((shares.argmax(axis=1) == labels[task]).mean()) for task, shares in tasks.items()
        ),
    }


def _entropies(shares: np.ndarray) -> np.ndarray:
    """Entropy in nats along the last axis."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    result: np.ndarray = -(shares * logs).sum(axis=-1)
    return result
