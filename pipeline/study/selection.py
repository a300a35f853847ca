"""Choices without labels against the best there was: which step to stop at, which variant to take.

Validators judge held-out `select` images without their labels; what they choose is held against the
oracle, which knows the accuracies on `eval` and so is out of anyone's reach.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.statistics import Images, resample
from pipeline.study.measuring import Measured
from pipeline.study.validators import Scores
from pipeline.study.variants import Row, figures


@dataclass(frozen=True)
class Candidate:
    """Something to choose under one seed."""

    scores: Scores  # on `select`
    measured: Measured  # on `eval`


@dataclass(frozen=True)
class Criterion:
    """What chooses: the candidate with the highest value."""

    title: str
    value: Callable[[Candidate], float]
    labels: str = ""  # of the split whose labels it reads


CRITERIA = {
    "entropy": Criterion("lowest mean entropy", lambda one: -one.scores["entropy"]),
    "infomax": Criterion("highest InfoMax", lambda one: one.scores["infomax"]),
    "snd": Criterion("highest SND", lambda one: one.scores["snd"]),
    "labels": Criterion("accuracy on `select`", lambda one: one.scores["accuracy"], "select"),
    "oracle": Criterion("accuracy on `eval`", lambda one: one.measured.accuracy, "eval"),
}
ORACLE = "oracle"
NOTHING = "none"  # the row where nothing is chosen: the last candidate is taken


def summary(
    choices: Mapping[str, Mapping[str, Mapping[int, Candidate]]], images: Images
) -> dict[str, Any]:
    """The core of metrics/<profile>/selection.json: choice -> criterion -> figures.

    `choices`: choice -> candidate -> seed -> candidate. The last candidate is what one would have
    without choosing. Steps differ between seeds, and a seed lacks those it did not get to.
    """
    return {"choices": {name: _choice(found, images) for name, found in choices.items()}}


def choose(candidates: Mapping[str, Candidate], criterion: str) -> str:
    """The name of the candidate that a criterion prefers, the first of equals."""
    value = CRITERIA[criterion].value
    return max(candidates, key=lambda name: value(candidates[name]))


def _choice(found: Mapping[str, Mapping[int, Candidate]], images: Images) -> Row:
    seeds = list(dict.fromkeys(seed for by_seed in found.values() for seed in by_seed))
    there = {s: {n: by_seed[s] for n, by_seed in found.items() if s in by_seed} for s in seeds}
    chosen = {c: {s: choose(own, c) for s, own in there.items()} for c in CRITERIA}
    chosen[NOTHING] = {s: list(own)[-1] for s, own in there.items()}
    picked = {
        name: [there[s][candidate].measured for s, candidate in by_seed.items()]
        for name, by_seed in chosen.items()
    }
    resampled = resample(
        {n: {t: [one.correct[t] for one in own] for t in images} for n, own in picked.items()},
        images,
    )
    rows = {
        name: {
            **{key: figures(own, seeds)[key] for key in ("avg", "avg_sd", "seeds")},
            "chosen": {str(seed): candidate for seed, candidate in chosen[name].items()},
            "beside": {
                other: resampled.compare(name, other).rounded()
                for other in (ORACLE, NOTHING)
                if other != name
            },
        }
        for name, own in picked.items()
    }
    return {"candidates": len(found), "rows": rows}
