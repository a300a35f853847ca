"""The studies' figures, drawn from their metrics for docs/images/."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report.style import (
    BLUE,
    GREEN,
    MUTED,
    PAGE_WIDTH,
    VERMILLION,
    drawing,
    new_figure,
    save_png,
    settle,
)
from pipeline.study import figures_learning, figures_methods
from pipeline.study.objectives import PLAIN
from pipeline.study.pages import case_title
from pipeline.study.schedules import REFERENCE, RIVAL
from pipeline.study.words import COMMAND

# Colours that colour-blind readers tell apart; lines and markers differ as well.
LOOKS = {REFERENCE: (BLUE, "--", "s"), RIVAL: (VERMILLION, "-", "o")}
QUANTITIES = {"accuracy": "accuracy, %", "entropy": "entropy, nats"}

Row = Mapping[str, Any]


def draw_studies(layout: Layout, folder: Path) -> int:
    """Write the figure of every study that has run as PNG; return how many."""
    drawers: dict[str, Callable[[Row], Figure]] = {
        "learning_schedules": schedules,
        "learning_objectives": objectives,
        **{
            f"study_{name}": draw
            for name, draw in (figures_learning.DRAWN | figures_methods.DRAWN).items()
        },
    }
    drawn = 0
    with drawing():
        for name, draw in drawers.items():
            path = layout.metric(name.partition("_")[2])
            if path.exists():
                figure = draw(read_json(path, COMMAND))
                settle(figure)
                save_png(figure, folder / f"{name}.png")
                drawn += 1
    return drawn


# ---- Schedules


def schedules(figures: Row) -> Figure:
    """Accuracy and entropy against seconds, a row of panels per method. Call it in `drawing`."""
    methods = figures["methods"]
    figure = new_figure(PAGE_WIDTH, 3.1 * len(methods) + 0.7)
    grid = figure.subplots(len(methods), len(QUANTITIES), sharex=True, squeeze=False)
    for (method, row), panels in zip(methods.items(), grid, strict=True):
        for (quantity, label), axes in zip(QUANTITIES.items(), panels, strict=True):
            _curves(axes, list(row["seeds"].values()), quantity)
            axes.set(title=METHODS[method].title, ylabel=label)
            axes.xaxis.set_tick_params(labelbottom=True)
    for axes in grid[-1]:
        axes.set_xlabel("seconds of learning")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(handles=_legend(), ncols=3, loc="outside lower center")
    return figure


def _curves(axes: Axes, seeds: Sequence[Row], quantity: str) -> None:
    """Thin lines for the seeds, with a marker where each is as good; a thick one for the mean."""
    for schedule, (colour, line, marker) in LOOKS.items():
        runs = [seed[schedule] for seed in seeds]
        for run in runs:
            times, values = _drawn(run["curve"], quantity)
            axes.plot(times, values, line, color=colour, linewidth=0.7, alpha=0.6)
            if run["good"] is not None:
                point = [run["good"]["seconds"]], [run["good"][quantity]]
                axes.plot(*point, marker, color=colour, markersize=6, markerfacecolor="white")
        axes.plot(*_mean_curve([run["curve"] for run in runs], quantity), line, color=colour)
    start = mean(seed[REFERENCE]["curve"][quantity][0] for seed in seeds)
    axes.axhline(start, color=MUTED, linestyle=":", linewidth=1)


def _drawn(curve: Row, quantity: str) -> tuple[list[float], list[float]]:
    """A curve without what lies at no time at all, which a logarithmic axis cannot show."""
    kept = [place for place, seconds in enumerate(curve["seconds"]) if seconds > 0]
    return [curve["seconds"][k] for k in kept], [curve[quantity][k] for k in kept]


def _mean_curve(curves: Sequence[Row], quantity: str) -> tuple[list[float], list[float]]:
    """Means over seeds, at the steps that all of them have."""
    common = set.intersection(*(set(curve["steps"]) for curve in curves))
    rows: dict[str, list[float]] = {"seconds": [], quantity: []}
    for step in sorted(common):
        for name, values in rows.items():
            values.append(mean(curve[name][curve["steps"].index(step)] for curve in curves))
    return _drawn(rows, quantity)


def _legend() -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=f"{schedule}, mean over seeds")
        for schedule, (colour, line, _) in LOOKS.items()
    ]
    handles.append(Line2D([], [], color=MUTED, linestyle=":", label="before learning"))
    handles += [
        Line2D(
            [],
            [],
            color=colour,
            linestyle=line,
            linewidth=0.7,
            marker=marker,
            markerfacecolor="white",
            label=f"{schedule}, one seed; as good from the marker on",
        )
        for schedule, (colour, line, marker) in LOOKS.items()
    ]
    return handles


# ---- Objectives


def objectives(figures: Row) -> Figure:
    """Differences from the paper's objective, with intervals. Call it in `drawing`."""
    rows = [row for row in figures["rows"].values() if row["difference"] is not None]
    figure = new_figure(0.7 * PAGE_WIDTH, 0.42 * len(rows) + 1.3)
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=1)
    for place, row in enumerate(rows):
        gap = row["difference"]
        axes.plot([gap["low"], gap["high"]], [place, place], color=GREEN, linewidth=2)
        axes.plot([gap["value"]], [place], "o", color=GREEN, markersize=7)
        seeds = list(gap["seeds"].values())
        axes.plot(seeds, [place + 0.25] * len(seeds), "|", color=MUTED, markersize=6)
    axes.set_yticks(range(len(rows)), [case_title(row, mark="") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"accuracy above that of {PLAIN}, points")
    handles = [
        Line2D([], [], color=GREEN, marker="o", linewidth=2, label="mean, 95 % interval"),
        Line2D([], [], color=MUTED, marker="|", linestyle="", markersize=6, label="one seed"),
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center")
    return figure
