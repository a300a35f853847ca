"""Figures that compare methods: averages, radar, robustness."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.projections.polar import PolarAxes

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content, competes
from pipeline.report.corrupted import corruption_title
from pipeline.report.drawn import MOST, drawn, left_out
from pipeline.report.style import (
    INK,
    LOOKS,
    PAGE_WIDTH,
    Plot,
    legend,
    new_figure,
    panel_grid,
)
from pipeline.report.tables import printed

# Between a label and its number; SVG would make one space of several ordinary ones.
GAP = 3 * "\N{NO-BREAK SPACE}"

RADAR = 5  # outlines that can be followed around


def averages(content: Content) -> Plot:
    """Average accuracy of every method, with its tasks as faint dots behind."""
    methods = content.methods
    pitch = 0.36 if len(methods) <= MOST else 0.28
    figure = new_figure(PAGE_WIDTH, 0.8 + pitch * len(methods))
    axes = figure.add_subplot()
    for place, method in enumerate(methods):
        row, look = content.clean[method], LOOKS[method]
        tasks = [row["tasks"][task] for task in content.tasks]
        axes.plot(tasks, [place] * len(tasks), "o", color=look.colour, alpha=0.3, markersize=4)
        line = look.line(markersize=9, zorder=3, elinewidth=1.6, capsize=3)
        axes.errorbar(row["avg"], place, xerr=row.get("avg_sd") or None, **line)
    labels = [f"{METHODS[m].title}{GAP}{printed(content.clean[m]['avg'])}" for m in methods]
    axes.set_yticks(range(len(methods)), labels)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy, %")
    spread = (
        " Bars: standard deviation over seeds." if len(content.config.profile.seeds) > 1 else ""
    )
    return Plot(
        "accuracy",
        figure,
        f"Accuracy on clean evaluation images, in percent. Number and large marker: the average "
        f"over {len(content.tasks)} tasks. Small dots: the tasks.{spread}",
        "Average accuracy: "
        + ", ".join(f"{METHODS[m].title} {printed(content.clean[m]['avg'])} %" for m in methods),
        {"unit": "percent", "methods": {method: content.clean[method] for method in methods}},
    )


def radar(content: Content) -> Plot | None:
    """Per-task accuracy of some single models inside that of the experts."""
    rivals = [method for method in content.methods if competes(method) or method == "experts"]
    methods = drawn(content, rivals, RADAR)
    if len(content.tasks) < 3 or len(methods) < 2:
        return None
    figure = new_figure(7.2, 6.4)
    axes = cast(PolarAxes, figure.add_subplot(projection="polar"))
    angles = np.linspace(0, 2 * np.pi, len(content.tasks), endpoint=False)
    for method in methods:
        values = [content.clean[method]["tasks"][task] for task in content.tasks]
        around = [*values, values[0]]
        axes.plot([*angles, angles[0]], around, **LOOKS[method].line())
        if method not in ("pretrained", "experts"):
            axes.fill([*angles, angles[0]], around, color=LOOKS[method].colour, alpha=0.06)
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_xticks(angles, content.task_titles.values())
    axes.tick_params(axis="x", labelcolor=INK, pad=5)
    for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
        side = round(np.sin(angle), 6)  # away from the circle, but centred at top and bottom
        label.set_horizontalalignment("left" if side > 0 else "right" if side < 0 else "center")
    axes.set_ylim(0, 100)
    axes.set_yticks([20, 40, 60, 80, 100], ["20", "40", "60", "80", "100 %"])
    axes.set_rlabel_position(180 / len(content.tasks))
    axes.spines["polar"].set_visible(False)
    legend(figure, methods, 2)
    tasks = {m: {task: content.clean[m]["tasks"][task] for task in content.tasks} for m in methods}
    return Plot(
        "radar",
        figure,
        "Accuracy per task, in percent from the centre outwards. What is missing to the outer "
        "outline is what merging costs against one expert per task."
        + left_out(methods, rivals, kind="single models without labels, and experts"),
        f"Radar chart of the accuracy on {len(content.tasks)} tasks for "
        + ", ".join(METHODS[m].title for m in methods),
        {"unit": "percent", "methods": tasks},
    )


def robustness(content: Content) -> Plot | None:
    """Accuracy against severity, a panel per corruption; learned on corrupted images as rings."""
    figures = content.robustness.get("clean")
    if not figures:
        return None
    settings = content.config.profile.robustness
    tested = [method for method in content.methods if method in figures]
    methods = drawn(content, tested)
    adapted = {m: row for m, row in content.robustness.get("adapted", {}).items() if m in METHODS}
    figure, panels = panel_grid(len(settings.corruptions), 2.2, 1.3, ("severity", "accuracy, %"))
    for name, axes in zip(settings.corruptions, panels, strict=True):
        for method in methods:
            points = {0: figures[method]["clean"], **_by_severity(figures[method], name)}
            axes.plot(list(points), list(points.values()), **LOOKS[method].line(markersize=4))
        for method, row in adapted.items():
            points = _by_severity(row, name)
            axes.plot(list(points), list(points.values()), **_adapted_marker(method))
        axes.set_title(corruption_title(name))
        axes.set_xticks([0, *settings.severities], ["none", *map(str, settings.severities)])
    rings = [
        Line2D([], [], label=f"{METHODS[m].title}, learned on corrupted", **_adapted_marker(m))
        for m in adapted
    ]
    legend(figure, methods, 3, extra=rings)
    tasks = ", ".join(content.task_titles[task] for task in settings.tasks)
    note = " Rings: coefficients learned on the corrupted images themselves." if adapted else ""
    return Plot(
        "robustness",
        figure,
        f"Accuracy on corrupted images, in percent, mean over {tasks} "
        f"({settings.images} images each); none: without corruption.{note}"
        + left_out(methods, tested),
        "Curves of the accuracy against the severity of "
        + ", ".join(corruption_title(name).lower() for name in settings.corruptions),
        {"unit": "percent", "clean": {m: figures[m] for m in methods}, "adapted": adapted},
    )


def _by_severity(row: Mapping[str, Any], corruption: str) -> dict[int, float]:
    """Severity -> accuracy, by rising severity."""
    found = row["corruptions"].get(corruption, {})
    return {int(severity): found[severity] for severity in sorted(found, key=int)}


def _adapted_marker(method: str) -> dict[str, Any]:
    """Keywords of a ring around where the method's own marker may stand."""
    return {
        "color": LOOKS[method].colour,
        "marker": "o",
        "markerfacecolor": "none",
        "markeredgewidth": 1.8,
        "linestyle": "none",
        "markersize": 10,
    }
