"""Seen against unseen tasks: what a merge wins on its own tasks, and what it costs on others."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content
from pipeline.report.drawn import drawn, left_out
from pipeline.report.style import LOOKS, MUTED, PAGE_WIDTH, ROW_GAP, Plot, legend, new_figure
from pipeline.report.tables import printed
from pipeline.report.unseen import with_pretrained

BESIDE = 2  # panels in a row
HEIGHT = 3.5  # inches of a panel


def generalization(content: Content) -> Plot | None:
    """A marker per method, seen tasks to the right, unseen tasks upwards; a panel per split."""
    splits = [
        s for s in content.config.profile.generalization.splits if s in content.generalization
    ]
    if not splits:
        return None
    tested = {split: with_pretrained(content, split) for split in splits}
    figures = {
        split: {method: by[method] for method in drawn(content, by)} for split, by in tested.items()
    }
    rows, columns = -(-len(splits) // BESIDE), min(BESIDE, len(splits))
    figure = new_figure(PAGE_WIDTH, HEIGHT * rows + 1, h_pad=ROW_GAP)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in list(grid.flat)[len(splits) :]:
        axes.remove()
    for split, axes in zip(splits, grid.flat, strict=False):
        _markers(axes, figures[split])
        unseen = content.config.profile.generalization.splits[split].unseen
        axes.set_title("Unseen: " + ", ".join(content.task_titles[task] for task in unseen))
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel("accuracy on seen tasks, %")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy on unseen tasks, %")
    every = max(tested.values(), key=len)
    methods = drawn(content, every)
    legend(figure, methods, 3, lines=False)
    said = "; ".join(
        f"without {split}: "
        + ", ".join(
            f"{METHODS[m].title} {printed(row['seen'])} and {printed(row['unseen'])}"
            for m, row in by.items()
        )
        for split, by in figures.items()
    )
    return Plot(
        "generalization",
        figure,
        "Accuracy, in percent, of models merged from the seen tasks alone: to the right on those "
        "tasks, upwards on tasks whose experts and images took no part. Dotted: the pretrained "
        "model; what lies below the line has lost on unseen tasks. Bars: 95 % interval of the gap "
        "to it over the images." + left_out(methods, every, "tables have"),
        f"Scatter of the average accuracy in percent on seen and on unseen tasks; {said}",
        {"unit": "percent", "splits": figures},
    )


def _markers(axes: Axes, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """A method's marker, with the interval of its gap to the pretrained model."""
    base = figures.get("pretrained", {}).get("unseen")
    for method, row in figures.items():
        if base is not None and method != "pretrained" and "gap_interval" in row:
            ends = [base + end for end in row["gap_interval"]]
            axes.plot([row["seen"]] * 2, ends, color=LOOKS[method].colour, linewidth=1.4)
        line = LOOKS[method].line(linestyle="none", markersize=8)
        axes.plot(row["seen"], row["unseen"], **line)
    if base is not None:
        axes.axhline(base, color=MUTED, linestyle=":", linewidth=1.2, zorder=0)
    axes.margins(0.08)
