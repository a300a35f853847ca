"""What more tasks cost: methods on 2, 3, ... of them, each set a part of the next."""

import zlib
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from pipeline.statistics import Images, resample
from pipeline.study.measuring import Measured
from pipeline.study.variants import Row, spread

FEWEST = 2
UNIFORM, TUNED = "task_arithmetic", "task_arithmetic_tuned"
LEARNED = ("adamerging_taskwise", "adamerging_layerwise")
STUDIED = (UNIFORM, TUNED, *LEARNED)
COEFFICIENT = 0.3  # of task arithmetic
# Each of LEARNED is compared with these.
BESIDE = (UNIFORM, TUNED)


def subsets(tasks: Sequence[str], seed: int) -> dict[int, tuple[str, ...]]:
    """How many -> which tasks, in their own order; drawn by the seed, each a part of the next."""
    rng = np.random.default_rng([seed, zlib.crc32(b"number of tasks")])
    drawn = [tasks[place] for place in rng.permutation(len(tasks))]
    return {
        count: tuple(task for task in tasks if task in drawn[:count])
        for count in range(FEWEST, len(tasks) + 1)
    }


def summary(
    found: Mapping[int, Mapping[int, Mapping[str, Measured]]],
    experts: Mapping[int, Mapping[str, float]],
    images: Mapping[int, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """The core of metrics/<profile>/tasks.json: how many tasks -> method -> figures.

    `found`: how many tasks -> seed -> method -> measured. `experts`: seed -> task -> accuracy of
    its expert in percent. `images`: seed -> task -> which images were tested on.
    """
    return {"counts": {str(n): _rows(seeds, experts, images) for n, seeds in found.items()}}


def _rows(
    seeds: Mapping[int, Mapping[str, Measured]],
    experts: Mapping[int, Mapping[str, float]],
    images: Mapping[int, Mapping[str, np.ndarray]],
) -> dict[str, Row]:
    """Method -> figures for one number of tasks."""
    # Seeds have different tasks, so that a task under a seed is resampled by itself.
    places: Images = {
        f"{seed}/{task}": [images[seed][task]]
        for seed, own in seeds.items()
        for task in own[UNIFORM].correct
    }
    correct: dict[str, dict[str, list[np.ndarray]]] = {method: {} for method in STUDIED}
    for seed, own in seeds.items():
        for method in STUDIED:
            for task, right in own[method].correct.items():
                correct[method][f"{seed}/{task}"] = [right]
    resampled = resample(correct, places)
    rows = {}
    for method in STUDIED:
        by_seed = [own[method].accuracy for own in seeds.values()]
        beside = BESIDE if method in LEARNED else ()
        rows[method] = {
            "avg": round(mean(by_seed), 2),
            "avg_sd": spread(by_seed),
            **_normalized({seed: own[method] for seed, own in seeds.items()}, experts),
            "beside": {other: resampled.compare(method, other).rounded() for other in beside},
        }
    return rows


def _normalized(
    measured: Mapping[int, Measured], experts: Mapping[int, Mapping[str, float]]
) -> Row:
    """Accuracy as a share of the expert's, mean over tasks, in percent; None if one has none."""
    shares = []
    for seed, one in measured.items():
        if not all(experts[seed][task] for task in one.correct):
            return {"normalized": None, "normalized_sd": None}
        shares.append(
            100 * mean(value / experts[seed][task] for task, value in one.accuracies.items())
        )
    return {"normalized": round(mean(shares), 2), "normalized_sd": spread(shares)}
