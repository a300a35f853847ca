"""Figures of entropy, cost and selection. Call them in `drawing`."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pipeline.merging.methods import METHODS
from pipeline.report.style import (
    BLUE,
    BROWN,
    GREEN,
    MUTED,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    SKY,
    VERMILLION,
    new_figure,
)
from pipeline.study.pages_methods import choice_title
from pipeline.study.selection import CRITERIA, NOTHING, ORACLE

Row = Mapping[str, Any]
# Tasks are told apart by colour and marker.
_COLOURS = (SKY, BLUE, GREEN, ORANGE, VERMILLION, PURPLE, BROWN)
_MARKERS = "vs^oD<>Ph"
_LABELS = {
    **{name: one.title.replace("`", "") for name, one in CRITERIA.items()},
    NOTHING: "no choice",
}


def entropy_loss(figures: Row) -> Figure:
    """Mean loss against mean entropy of every group of images, a panel per method."""
    methods = figures["methods"]
    figure = new_figure(PAGE_WIDTH, 4.0)
    panels = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    handles = []
    for axes, (method, row) in zip(panels, methods.items(), strict=True):
        handles = [
            axes.plot(one["entropy"], one["loss"], label=task, **_look(place))[0]
            for place, (task, one) in enumerate(row["tasks"].items())
        ]
        axes.axline((0, 0), slope=1, color=MUTED, linestyle=":", linewidth=1)
        axes.set(title=METHODS[method].title, xlabel="mean entropy of a group, nats")
        axes.xaxis.set_tick_params(labelbottom=True)
    panels[0].set_ylabel("mean loss of a group, nats")
    figure.legend(handles=handles, ncols=min(8, len(handles)), loc="outside lower center")
    return figure


def _look(place: int) -> dict[str, Any]:
    """How the task at a place is drawn."""
    colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.2}


def cost(figures: Row) -> Figure:
    """Seconds and memory of every method, a row each."""
    rows = figures["rows"]
    figure = new_figure(PAGE_WIDTH, 0.24 * len(rows) + 1.2)
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    colours = [ORANGE if row["learns"] else BLUE for row in rows.values()]
    left.hlines(places, 0.01, [row["seconds"] for row in rows.values()], colors=colours)
    left.scatter([row["seconds"] for row in rows.values()], places, c=colours, s=22)
    left.set_xscale("log")
    left.set_xlim(left=0.8 * min(row["seconds"] for row in rows.values()))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.barh(places, [row["above_gb"] for row in rows.values()], color=colours, height=0.6)
    left.set_yticks(places, [METHODS[method].title for method in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel("seconds")
    right.set_xlabel("memory on top of torch and the model, GB")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=colour, marker="o", label=label)
        for colour, label in ((BLUE, "merges at once"), (ORANGE, "learns coefficients"))
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center")
    return figure


def selection(figures: Row) -> Figure:
    """Points below the oracle, with intervals, a panel per choice."""
    choices = figures["choices"]
    figure = new_figure(PAGE_WIDTH, 3.2)
    panels = figure.subplots(1, len(choices), sharey=True, squeeze=False)[0]
    names = [NOTHING, *(name for name in CRITERIA if name != ORACLE)]
    for axes, (choice, found) in zip(panels, choices.items(), strict=True):
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, name in enumerate(names):
            gap = found["rows"][name]["beside"][ORACLE]
            labels = name != NOTHING and bool(CRITERIA[name].labels)
            colour = ORANGE if labels else GREEN
            axes.plot(gap["interval"], [place, place], color=colour, linewidth=2)
            axes.plot([gap["difference"]], [place], "o", color=colour, markersize=6)
        axes.set(title=choice_title(choice), xlabel="points above the oracle")
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(names)), [_LABELS[name] for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=2, label=label)
        for colour, label in ((GREEN, "no labels, 95 % interval"), (ORANGE, "reads labels"))
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center")
    return figure


DRAWN: dict[str, Callable[[Row], Figure]] = {
    "entropy_loss": entropy_loss,
    "cost": cost,
    "selection": selection,
}
