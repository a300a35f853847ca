"""Quality against time: a fast schedule beside the published one.

    {"adamerging_layerwise": summary({0: {"paper": curve, "fast": other}, 1: ...})}

is the core of metrics/<profile>/schedules.json. The reference is the published schedule's end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.study.measuring import Measured
from pipeline.study.quality import (
    Difference,
    accuracy_gap,
    entropy_gap,
    first_good,
    mean_difference,
)
from pipeline.study.traces import Trace

REFERENCE, RIVAL = "paper", "fast"
STUDIED = ("adamerging_layerwise", "adamerging_taskwise")
# Of the published schedule's point over the fast one's; `good`: its first snapshot as good as the
# published schedule's end.
RATIOS = {"end_to_end": ("end", "end"), "end_to_good": ("end", "good"), "good": ("good", "good")}

Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """One run of learning: its snapshots, and what each is worth."""

    trace: Trace
    measured: Sequence[Measured]


def summary(seeds: Mapping[int, Mapping[str, Curve]]) -> Row:
    """One method's figures: seed -> schedule -> curve, in numbers, and means over seeds."""
    rows = {seed: _row(curves[REFERENCE], curves[RIVAL]) for seed, curves in seeds.items()}
    gaps = {
        "accuracy": [_ends(curves, accuracy_gap) for curves in seeds.values()],
        "entropy": [_ends(curves, entropy_gap) for curves in seeds.values()],
    }
    for place, row in enumerate(rows.values()):
        row["gap"] = {name: _gap(found[place]) for name, found in gaps.items()}
    mean = _mean(list(rows.values()))
    mean["gap"] = {name: _gap(mean_difference(found)) for name, found in gaps.items()}
    return {"seeds": {str(seed): row for seed, row in rows.items()}, "mean": mean}


def _row(reference: Curve, rival: Curve) -> Row:
    """One seed's figures."""
    runs = {name: _run(c, reference) for name, c in ((REFERENCE, reference), (RIVAL, rival))}
    return {**runs, "ratios": _ratios(runs[REFERENCE], runs[RIVAL])}


def _run(curve: Curve, reference: Curve) -> Row:
    good = first_good(curve.measured, reference.measured[-1])
    points = [_point(curve, place) for place in range(len(curve.measured))]
    return {
        "end": points[-1],
        "good": None if good is None else points[good],
        "stopped": curve.trace.facts["stopped"],
        "collapsed": sorted(curve.trace.facts["collapsed"]),
        "curve": {name: [point[name] for point in points] for name in points[0]},
    }


def _point(curve: Curve, place: int) -> dict[str, float]:
    measured = curve.measured[place]
    return {
        "steps": curve.trace.steps[place],
        "seconds": float(f"{curve.trace.seconds[place]:.4g}"),
        "accuracy": round(measured.accuracy, 2),
        "entropy": round(measured.entropy, 4),
    }


def _ratios(reference: Row, rival: Row) -> Row:
    """How many times fewer steps and seconds; None where a point was never reached."""
    return {
        name: {unit: _ratio(reference[ours], rival[theirs], unit) for unit in ("steps", "seconds")}
        for name, (ours, theirs) in RATIOS.items()
    }


def _ratio(above: Row | None, below: Row | None, unit: str) -> float | None:
    if above is None or below is None or not below[unit]:
        return None
    return round(above[unit] / below[unit], 2)


def _mean(rows: Sequence[Row]) -> Row:
    """Means over seeds; None where a seed has none, so that no failure is hidden."""
    found: Row = {
        name: {point: _mean_point([row[name][point] for row in rows]) for point in ("end", "good")}
        for name in (REFERENCE, RIVAL)
    }
    found[RIVAL]["reached"] = sum(row[RIVAL]["good"] is not None for row in rows)
    found["ratios"] = {
        name: {
            unit: _mean_of([row["ratios"][name][unit] for row in rows], 2)
            for unit in ("steps", "seconds")
        }
        for name in RATIOS
    }
    return found


def _mean_point(points: Sequence[Row | None]) -> Row | None:
    there = [point for point in points if point is not None]
    if len(there) < len(points):
        return None
    digits = {"steps": 1, "seconds": 3, "accuracy": 2, "entropy": 4}
    return {name: _mean_of([point[name] for point in there], n) for name, n in digits.items()}


def _mean_of(values: Sequence[float | None], digits: int) -> float | None:
    there = [value for value in values if value is not None]
    return round(sum(there) / len(there), digits) if len(there) == len(values) else None


def _ends(curves: Mapping[str, Curve], gap: Any) -> Difference:
    found: Difference = gap(curves[RIVAL].measured[-1], curves[REFERENCE].measured[-1])
    return found


def _gap(found: Difference) -> Row:
    """The rival's end less the reference's, with its 95 % interval over images."""
    low, high = found.interval
    return {"value": round(found.value, 4), "low": round(low, 4), "high": round(high, 4)}
