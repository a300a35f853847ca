"""Runs of learning that differ in one thing, beside each other on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from pipeline.statistics import Images, resample
from pipeline.study.measuring import Measured
from pipeline.study.traces import Trace

Row = dict[str, Any]
BEFORE = "before"  # the row of what learning starts from: task arithmetic


@dataclass(frozen=True)
class Result:
    """One merge: what it makes of the images, and the run of learning that ended there."""

    measured: Measured
    trace: Trace | None = None  # None: nothing was learned


def rows(
    results: Mapping[str, Mapping[int, Result]], images: Images, beside: Sequence[str]
) -> dict[str, Row]:
    """Variant -> figures, from variant -> seed -> result. Percent, points, means over seeds.

    `images`: task -> for every seed which images were tested on. `beside`: the variants that every
    other one is compared with on these images.
    """
    correct = {
        name: {task: [one.measured.correct[task] for one in found.values()] for task in images}
        for name, found in results.items()
    }
    resampled = resample(correct, images)
    return {
        name: {
            **figures([one.measured for one in found.values()], list(found)),
            "avg_interval": resampled.interval(name).rounded(),
            "beside": {
                other: resampled.compare(name, other).rounded() for other in beside if other != name
            },
            **_learning([one.trace for one in found.values() if one.trace is not None]),
        }
        for name, found in results.items()
    }


def figures(measured: Sequence[Measured], seeds: Sequence[int]) -> Row:
    """Accuracy in percent and entropy in nats of one variant, over seeds."""
    by_seed = [one.accuracy for one in measured]
    tasks = {task: mean(one.accuracies[task] for one in measured) for task in measured[0].correct}
    worst = min(tasks, key=lambda task: tasks[task])
    return {
        "avg": round(mean(by_seed), 2),
        "avg_sd": spread(by_seed),
        "worst": round(tasks[worst], 2),
        "worst_task": worst,
        "entropy": round(mean(one.entropy for one in measured), 4),
        "seeds": {str(seed): round(value, 2) for seed, value in zip(seeds, by_seed, strict=True)},
        "tasks": {task: round(value, 2) for task, value in tasks.items()},
    }


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 of a single one."""
    return round(stdev(values), 2) if len(values) > 1 else 0.0


def _learning(traces: Sequence[Trace]) -> Row:
    """Steps, seconds and collapsed tasks; nothing where nothing was learned."""
    if not traces:
        return {}
    return {
        "steps": round(mean(trace.steps[-1] for trace in traces), 1),
        "seconds": round(mean(trace.facts["seconds_in_all"] for trace in traces), 2),
        "collapsed": sorted({task for trace in traces for task in trace.facts["collapsed"]}),
    }
