"""From samples to seconds and bytes per step: medians, the floor, and what is extrapolated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.floor import floor_seconds
from benchmarks.settings import AUTHORS, TRUNKS, Problem


@dataclass(frozen=True)
class Estimate:
    """A median with its least and greatest sample, or a value that was extrapolated."""

    value: float
    low: float
    high: float
    extrapolated: bool = False


Table = dict[int, dict[str, Estimate]]  # tasks -> method -> seconds or bytes per step
Basis = Callable[[int], tuple[float, float]]  # what a cost is a sum of multiples of


def passes_and_merges(tasks: int) -> tuple[float, float]:
    """What the authors' step takes: T forward and backward passes, T merges of T + 1 tensors."""
    return tasks, tasks * (tasks + 1)


def fixed_and_merged(tasks: int) -> tuple[float, float]:
    """What it holds: something fixed, and for every task its vectors and merged weights."""
    return 1, tasks


def step_seconds(figures: Mapping[str, Any], trunk: str) -> Table:
    """Seconds per step of every method, and of the "floor", on a trunk."""
    clock, table = figures["clock"], {}
    for setting in figures["settings"]:
        if setting["trunk"] == trunk:
            row = {
                method: _measured([sample[clock] for sample in found["samples"]])
                for method, found in setting["methods"].items()
            }
            table[setting["tasks"]] = row | {"floor": _floor(setting)}
    return _extrapolated(table, passes_and_merges)


def step_memory(figures: Mapping[str, Any]) -> Table:
    """Bytes that every method holds beyond its libraries."""
    table: Table = {}
    for entry in figures["memory"]:
        held = entry["peak_bytes"] - entry["baseline_bytes"]
        table.setdefault(entry["tasks"], {})[entry["method"]] = _measured([held])
    return _extrapolated(table, fixed_and_merged)


def fit(points: Mapping[int, float], basis: Basis) -> Callable[[int], float] | None:
    """The cost, for any number of tasks, that misses the points by the least relative squares.

    None with fewer than two points, or where they contradict the model: a negative multiple.
    """
    if len(points) < 2:
        return None
    # Normal equations of two unknowns for rows (x, y) / cost = 1.
    rows = [(x / cost, y / cost) for tasks, cost in points.items() for x, y in [basis(tasks)]]
    xx, xy, yy = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    x1, y1 = (sum(row[i] for row in rows) for i in (0, 1))
    determinant = xx * yy - xy * xy
    a, b = (x1 * yy - y1 * xy) / determinant, (y1 * xx - x1 * xy) / determinant
    if min(a, b) < 0:
        return None
    return lambda tasks: a * basis(tasks)[0] + b * basis(tasks)[1]


def held_out_error(table: Table, method: str) -> float | None:
    """By how much extrapolation misses the largest number of tasks that was measured.

    Relative to the measured value, from the smaller numbers; None with fewer than three of them.
    """
    points = _points(table, method)
    last = max(points, default=0)
    measured = points.pop(last, 0.0)
    cost = fit(points, passes_and_merges)
    return cost(last) / measured - 1 if cost else None


def _extrapolated(table: Table, basis: Basis) -> Table:
    """The table with the authors' missing values."""
    for method in AUTHORS:
        cost = fit(_points(table, method), basis)
        if cost is None:
            continue
        for tasks, row in table.items():
            row.setdefault(method, Estimate(*[cost(tasks)] * 3, extrapolated=True))
    return dict(sorted(table.items()))


def _points(table: Table, method: str) -> dict[int, float]:
    """Tasks -> what was measured."""
    found = {tasks: row[method] for tasks, row in table.items() if method in row}
    return {t: estimate.value for t, estimate in found.items() if not estimate.extrapolated}


def _measured(samples: list[float]) -> Estimate:
    return Estimate(median(samples), min(samples), max(samples))


def _floor(setting: Mapping[str, Any]) -> Estimate:
    """From the best rates that the machine showed between the rounds of this setting."""
    problem = Problem(TRUNKS[setting["trunk"]], setting["tasks"], setting["batch"])
    rates = setting["rates"]
    names = ("float32_flops_per_s", "onednn_flops_per_s")  # equally precise
    flops = max(rate[name] for rate in rates for name in names if name in rate)
    read = max(rate["bytes_per_s"] for rate in rates)
    return _measured([floor_seconds(problem, flops, read)])
