"""What the coefficients minimise, and two details of the paper, one changed at a time.

`rows` makes the core of metrics/<profile>/objectives.json. Every row is held against `entropy`.
"""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from pipeline.learning.objectives import OBJECTIVES
from pipeline.study.measuring import Measured
from pipeline.study.quality import accuracy_gap, mean_difference
from pipeline.study.traces import Trace

METHOD, SCHEDULE, PLAIN = "adamerging_layerwise", "fast", "entropy"
# Row -> the options that are not as in the row `entropy`.
CASES: dict[str, dict[str, Any]] = {
    **{name: {"objective": name} for name in OBJECTIVES},
    "two_batches": {"objective": PLAIN, "batches_per_task": 2},
    "no_clamp": {"objective": PLAIN, "clamp": False},
}

Run = tuple[Trace, Measured]  # of learning; its end, measured
Row = dict[str, Any]


def rows(runs: Mapping[str, Mapping[int, Run]]) -> dict[str, Row]:
    """Case -> figures, from case -> seed -> run. Accuracies in percent, means over seeds."""
    plain = runs[PLAIN]
    return {case: _row(case, by_seed, plain) for case, by_seed in runs.items()}


def _row(case: str, runs: Mapping[int, Run], plain: Mapping[int, Run]) -> Row:
    ours, theirs = _accuracies(runs), _accuracies(plain)
    by_seed = [end.accuracy for _, end in runs.values()]
    worst = min(ours, key=lambda task: ours[task])
    return {
        "options": CASES[case],
        "needs": "experts" if OBJECTIVES[CASES[case]["objective"]].needs == "experts" else "",
        "avg": round(mean(by_seed), 2),
        "avg_sd": round(stdev(by_seed), 2) if len(by_seed) > 1 else 0.0,
        "worst": round(ours[worst], 2),
        "worst_task": worst,
        "entropy": round(mean(end.entropy for _, end in runs.values()), 4),
        "collapsed": sorted({task for trace, _ in runs.values() for task in _collapsed(trace)}),
        "steps": round(mean(trace.steps[-1] for trace, _ in runs.values()), 1),
        "seconds": round(mean(trace.facts["seconds_in_all"] for trace, _ in runs.values()), 2),
        "difference": None if case == PLAIN else _difference(runs, plain),
        "wins": sum(ours[task] > theirs[task] for task in ours),
        "losses": sum(ours[task] < theirs[task] for task in ours),
        "seeds": {str(seed): round(end.accuracy, 2) for seed, (_, end) in runs.items()},
        "tasks": {task: round(value, 2) for task, value in ours.items()},
    }


def _difference(runs: Mapping[int, Run], plain: Mapping[int, Run]) -> Row:
    """Points of accuracy above `entropy`, with the 95 % interval over images."""
    gaps = {seed: accuracy_gap(end, plain[seed][1]) for seed, (_, end) in runs.items()}
    found = mean_difference(list(gaps.values()))
    low, high = found.interval
    return {
        "value": round(found.value, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "seeds": {str(seed): round(gap.value, 3) for seed, gap in gaps.items()},
    }


def _accuracies(runs: Mapping[int, Run]) -> dict[str, float]:
    """Task -> accuracy, mean over seeds."""
    ends: Sequence[Mapping[str, float]] = [end.accuracies for _, end in runs.values()]
    return {task: mean(end[task] for end in ends) for task in ends[0]}


def _collapsed(trace: Trace) -> Sequence[str]:
    return list(trace.facts["collapsed"])
