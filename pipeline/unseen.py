"""Tasks left out of a merge: which, and what merging gains or loses on them.

Merging can lose on unseen tasks, so every figure of a method stands beside the pretrained model's:
the gap is the method's average over unseen tasks less the pretrained model's, in points.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pipeline.errors import UserError
from pipeline.files import need, replacing
from pipeline.statistics import Correct, Images, Interval, resample

REFERENCE = "pretrained"


def pairs(tasks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name -> two tasks, for every pair: `cars+mnist`, both in the order of `tasks`."""
    return {"+".join(pair): pair for pair in combinations(tasks, 2)}


def save_correct(path: Path, correct: Mapping[str, np.ndarray]) -> None:
    """Write task -> bool [N], whether each image is classified correctly, to an .npz file."""
    values = list(correct.values())
    with replacing(path) as temporary:
        np.savez(
            temporary,
            tasks=np.array(list(correct)),
            images=[len(one) for one in values],
            correct=np.concatenate(values),
        )


def load_correct(path: Path, made_by: str) -> dict[str, np.ndarray]:
    """Read what `save_correct` wrote; raises `UserError`, naming the stage `made_by`."""
    try:
        with need(path, made_by).open("rb") as file, np.load(file) as arrays:
            ends = np.cumsum(arrays["images"])[:-1]
            parts = np.split(arrays["correct"], ends)
            return dict(zip(arrays["tasks"].tolist(), parts, strict=True))
    except (KeyError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and run '{made_by}'.") from error


def split_rows(
    correct: Mapping[str, Correct],
    reference: Correct,
    seen: Sequence[str],
    unseen: Sequence[str],
    images: Images,
) -> dict[str, dict[str, Any]]:
    """method -> its entry for one split: means over seeds, in percent and points.

    `correct`: method -> task -> for every seed bool [N], whether the images are classified
    correctly; `reference`: the same of the pretrained model; `images`: as in `resample`.
    """
    intervals = _intervals(correct, reference, unseen, images)
    return {
        method: {
            **_averages(
                {
                    "seen": _by_seed(own, seen),
                    "unseen": _by_seed(own, unseen),
                    "gap": _gaps(own, reference, unseen),
                }
            ),
            "gap_interval": intervals[method].rounded(),
            "tasks": {task: _rounded(_by_seed(own, [task])) for task in (*seen, *unseen)},
        }
        for method, own in correct.items()
    }


def leave_two_out_rows(
    correct: Mapping[str, Mapping[str, Correct]],
    reference: Correct,
    tasks: Sequence[str],
    images: Images,
) -> dict[str, dict[str, Any]]:
    """method -> its entry over all pairs of `tasks`: as `split_rows`, and every pair's figures.

    `correct`: method -> name in `pairs(tasks)` -> as in `split_rows`, merged without that pair.
    """
    found = pairs(tasks)
    # Each task is left out as often as every other: the mean over pairs is the mean over tasks of
    # the share of its pairs without which an image is classified correctly.
    shares = {
        method: {task: _mean_over_pairs(own, found, task) for task in tasks}
        for method, own in correct.items()
    }
    intervals = _intervals(shares, reference, tasks, images)
    return {
        method: _row_over_pairs(own, reference, tasks, shares[method], intervals[method])
        for method, own in correct.items()
    }


def _row_over_pairs(
    by_pair: Mapping[str, Correct],
    reference: Correct,
    tasks: Sequence[str],
    shares: Correct,
    interval: Interval,
) -> dict[str, Any]:
    seen, rows = [], dict[str, dict[str, Any]]()
    for name, unseen in pairs(tasks).items():
        own = by_pair[name]
        seen.append(_by_seed(own, [task for task in tasks if task not in unseen]))
        rows[name] = {
            "seen": _rounded(seen[-1]),
            "unseen": _rounded(_by_seed(own, unseen)),
            "gap": _rounded(_gaps(own, reference, unseen)),
            "tasks": {task: _rounded(_gaps(own, reference, [task])) for task in unseen},
        }
    return {
        **_averages(
            {
                "seen": np.mean(seen, axis=0),
                "unseen": _by_seed(shares, tasks),
                "gap": _gaps(shares, reference, tasks),
            }
        ),
        "gap_interval": interval.rounded(),
        "pairs": len(rows),
        # As the rows say it: what rounds to zero is not above it.
        "pairs_above_zero": sum(row["gap"] > 0 for row in rows.values()),
        "tasks": {
            task: {
                "unseen": _rounded(_by_seed(shares, [task])),
                "gap": _rounded(_gaps(shares, reference, [task])),
            }
            for task in tasks
        },
        "by_pair": rows,
    }


def _mean_over_pairs(
    by_pair: Mapping[str, Correct], found: Mapping[str, Sequence[str]], task: str
) -> list[np.ndarray]:
    """For every seed float [N]: the share of the task's pairs in which an image is right."""
    without = [by_pair[name][task] for name, pair in found.items() if task in pair]
    return [np.mean(seed, axis=0) for seed in zip(*without, strict=True)]


def _intervals(
    correct: Mapping[str, Correct], reference: Correct, unseen: Sequence[str], images: Images
) -> dict[str, Interval]:
    """method -> interval of its gap, paired over the images of the unseen tasks."""
    sampled = resample({**correct, REFERENCE: reference}, {task: images[task] for task in unseen})
    return {method: sampled.compare(method, REFERENCE).interval for method in correct}


def _by_seed(own: Correct, tasks: Sequence[str]) -> np.ndarray:
    """Accuracy in percent of every seed, mean over `tasks`."""
    return 100 * np.mean([[right.mean() for right in own[task]] for task in tasks], axis=0)


def _gaps(own: Correct, reference: Correct, tasks: Sequence[str]) -> np.ndarray:
    return _by_seed(own, tasks) - _by_seed(reference, tasks)


def _averages(by_seed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Each with its standard deviation over seeds."""
    row = {}
    for name, values in by_seed.items():
        row[name] = _rounded(values)
        row[f"{name}_sd"] = round(stdev(values.tolist()), 2) if len(values) > 1 else 0.0
    return row


def _rounded(values: np.ndarray) -> float:
    return round(mean(values.tolist()), 2) + 0.0  # no minus zero
