"""Figures of what learning depends on: budget, initial, granularity, tasks. Call in `drawing`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.report.style import GREEN, LOOKS, MUTED, PAGE_WIDTH, legend, new_figure
from pipeline.study.budget import ALL, METHOD
from pipeline.study.granularity import METHODS as OF
from pipeline.study.tasks import STUDIED
from pipeline.study.variants import BEFORE

Row = Mapping[str, Any]


def budget(figures: Row) -> Figure:
    """Accuracy against the number of images, on a logarithmic axis."""
    rows = {name: row for name, row in figures["rows"].items() if name != BEFORE}
    sizes = [figures["all"] if name == ALL else int(name) for name in rows]
    figure = new_figure(0.6 * PAGE_WIDTH, 3.6)
    axes = figure.subplots()
    start = figures["rows"][BEFORE]["avg"]
    axes.axhline(start, color=MUTED, linestyle=":", label="before learning")
    averages, spreads = _spread(list(rows.values()))
    look = LOOKS[METHOD].line(label="mean, standard deviation over seeds")
    axes.errorbar(sizes, averages, spreads, capsize=3, **look)
    axes.set_xscale("log")
    labels = [
        f"all {size}" if name == ALL else name for name, size in zip(rows, sizes, strict=True)
    ]
    axes.set_xticks(sizes, labels)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="unlabeled images of each task", ylabel="accuracy, %")
    figure.legend(ncols=2, loc="outside lower center")
    return figure


def initial(figures: Row) -> Figure:
    """Accuracy before and after learning against the first value."""
    rows = figures["rows"]
    values = [float(name) for name in rows]
    figure = new_figure(0.6 * PAGE_WIDTH, 3.6)
    axes = figure.subplots()
    for name, found in (
        ("task_arithmetic", [row["start"] for row in rows.values()]),
        (METHOD, list(rows.values())),
    ):
        averages, spreads = _spread(found)
        axes.errorbar(values, averages, spreads, capsize=3, **LOOKS[name].line())
    axes.set(xlabel="first value of the coefficients", ylabel="accuracy, %")
    axes.xaxis.set_major_locator(FixedLocator(values))
    legend(figure, ["task_arithmetic", METHOD], 2)
    return figure


def granularity(figures: Row) -> Figure:
    """Accuracy of every granularity, with the seeds."""
    rows = figures["rows"]
    names = [BEFORE, *OF]
    titles = ["before learning", "per task", "per block", "per tensor"]
    figure = new_figure(0.6 * PAGE_WIDTH, 3.4)
    axes = figure.subplots()
    for seed in figures["seeds"]:
        values = [rows[name]["seeds"][str(seed)] for name in names]
        axes.plot(titles, values, "-", color=MUTED, linewidth=0.8, marker=".")
    averages = [rows[name]["avg"] for name in names]
    axes.plot(titles, averages, "-", color=GREEN, marker="o", label="mean")
    axes.plot([], [], "-", color=MUTED, linewidth=0.8, marker=".", label="one seed")
    axes.set(ylabel="accuracy, %")
    figure.legend(ncols=2, loc="outside lower center")
    return figure


def tasks(figures: Row) -> Figure:
    """Accuracy as a share of the experts' against the number of tasks."""
    counts = figures["counts"]
    numbers = [int(count) for count in counts]
    figure = new_figure(0.7 * PAGE_WIDTH, 3.9)
    axes = figure.subplots()
    for place, method in enumerate(STUDIED):
        averages, spreads = _spread([rows[method] for rows in counts.values()], "normalized")
        beside = [number + 0.06 * (place - 1.5) for number in numbers]  # bars beside each other
        axes.errorbar(beside, averages, spreads, capsize=2, **LOOKS[method].line())
    axes.xaxis.set_major_locator(FixedLocator(numbers))
    axes.set(xlabel="tasks merged", ylabel="share of the experts' accuracy, %")
    legend(figure, STUDIED, 2)
    return figure


def _spread(rows: Sequence[Row], name: str = "avg") -> tuple[list[float], list[float]]:
    """Means and standard deviations; nan where there is none."""
    nothing = float("nan")
    means = [nothing if row[name] is None else row[name] for row in rows]
    return means, [nothing if row[name] is None else row[f"{name}_sd"] for row in rows]


DRAWN: dict[str, Callable[[Row], Figure]] = {
    "budget": budget,
    "initial": initial,
    "granularity": granularity,
    "tasks": tasks,
}
