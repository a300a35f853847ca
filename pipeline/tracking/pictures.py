"""Figures of one row, for MLflow's pages: what was learned, and how it moved.

The report has finer ones, of all methods together. These are drawn for each method and seed, so
that they must cost little: their parts have fixed places.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pipeline.files import replacing
from pipeline.report.heatmaps import CHANGE, blocks
from pipeline.tracking.learned import Learned, thinned_steps

DPI = 110
NUMBERED = 12  # columns of a heat map that have room for numbers
LINES = ("-", "--", ":", "-.")  # so that tasks differ without colour as well
# Okabe and Ito's colours, https://jfly.uni-koeln.de/color/
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c939a", "#000000")


def draw(learned: Learned, title: str, tasks: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the pictures below `folder`; return their paths. `tasks`: name -> title."""
    names = [tasks.get(task, task) for task in learned.tasks]
    figures = {}
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        if len(learned.layers) > 1:
            figures["coefficients.png"] = _heatmap(learned, title, names)
        if len(learned.entropy):
            figures["curves.png"] = _curves(learned, title, names)
        for name, figure in figures.items():
            with replacing(folder / name) as temporary:
                figure.savefig(temporary, dpi=DPI, facecolor="white", metadata={"Software": None})
    return [folder / name for name in figures]


def _heatmap(learned: Learned, title: str, tasks: list[str]) -> Figure:
    """Mean coefficient of every block and task."""
    groups = blocks(learned.layers)
    values = np.stack([learned.values[list(group.rows)].mean(axis=0) for group in groups])
    initial = float(learned.facts.get("initial", values.mean()))
    reach = float(abs(values - initial).max()) or 0.1
    width, height = 3.2 + 0.55 * len(tasks), 1.9 + 0.32 * len(groups)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((1.0 / width, 1.2 / height, 1 - 2.1 / width, 1 - 1.6 / height))
    image = axes.imshow(
        values, cmap=CHANGE, aspect="auto", vmin=initial - reach, vmax=initial + reach
    )
    axes.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(groups)), [group.title for group in groups])
    axes.tick_params(length=0)
    axes.set_title(f"{title}: mean coefficient of each block", loc="left", fontsize=9.5)
    if len(tasks) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            ink = "#ffffff" if abs(value - initial) > 0.7 * reach else "#111111"
            axes.text(column, row, f"{value:.2f}", color=ink, ha="center", va="center", fontsize=8)
    bar = figure.add_axes((1 - 0.95 / width, 1.2 / height, 0.18 / width, 1 - 1.6 / height))
    figure.colorbar(image, cax=bar)
    return figure


def _curves(learned: Learned, title: str, tasks: list[str]) -> Figure:
    """Entropy and mean coefficient of every task by step."""
    columns = -(-len(tasks) // 12)
    width, height = 9.6 + 1.5 * (columns - 1), 3.6
    figure = Figure(figsize=(width, height))
    places = ((0.7, "entropy, nats", learned.entropy), (4.8, "coefficient", learned.coefficients))
    steps = thinned_steps(len(learned.entropy))
    for left, label, series in places:
        axes = figure.add_axes((left / width, 0.5 / height, 3.3 / width, 2.6 / height))
        for column, task in enumerate(tasks):
            colour = COLOURS[column % len(COLOURS)]
            line = LINES[column // len(COLOURS) % len(LINES)]
            axes.plot(steps, series[steps, column], line, color=colour, linewidth=1.3, label=task)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(color="#d8dde2", linewidth=0.7)
        axes.spines[["right", "top"]].set_visible(False)
    figure.text(0.7 / width, 1 - 0.3 / height, f"{title}, by step", fontsize=9.5)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    anchor = (8.2 / width, 0.5)
    figure.legend(
        handles, labels, loc="center left", bbox_to_anchor=anchor, frameon=False, ncols=columns
    )
    return figure
