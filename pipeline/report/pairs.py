"""Figure of leave-two-out: what merging gains or loses on each task that took no part in it."""

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content
from pipeline.report.drawn import drawn, left_out
from pipeline.report.style import INK, LOOKS, MUTED, PAGE_WIDTH, Plot, legend, new_figure
from pipeline.report.tables import signed
from pipeline.report.unseen import over_pairs

PITCH = 0.34  # inches of a task's row


def gaps(content: Content) -> Plot | None:
    """A row for the mean and for every task, a marker for every method."""
    figures = {m: row for m, row in over_pairs(content).items() if m != "pretrained"}
    if not figures:
        return None
    methods = drawn(content, figures)
    figure = new_figure(PAGE_WIDTH, 1.5 + PITCH * (1 + len(content.tasks)))
    axes = figure.add_subplot()
    rows = ["mean", *content.tasks]
    for place, method in enumerate(methods):
        row = figures[method]
        values = [row["gap"], *(row["tasks"][task]["gap"] for task in content.tasks)]
        # Next to each other within a row, so that like values stay apart.
        shift = 0.5 * ((place + 0.5) / len(methods) - 0.5)
        line = LOOKS[method].line(linestyle="none", markersize=7)
        axes.plot(values, [number + shift for number in range(len(rows))], **line)
        low, high = row["gap_interval"]
        axes.plot([low, high], [shift, shift], color=LOOKS[method].colour, linewidth=1.6)
    axes.axvline(0, color=MUTED, linestyle=":", linewidth=1.2)
    axes.axhline(0.5, color=MUTED, linewidth=0.6)
    axes.set_yticks(range(len(rows)), ["mean of all", *content.task_titles.values()])
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("points above the pretrained model")
    legend(figure, methods, 3, lines=False)
    count = next(iter(figures.values()))["pairs"]
    return Plot(
        "leave_two_out",
        figure,
        f"Each task when it and another one took no part in the merge, mean over its pairs of "
        f"{count} in all: points above (right) or below (left) the pretrained model. Bars: 95 % "
        "interval of the mean over the tested images." + left_out(methods, figures),
        "Markers of the gap to the pretrained model: "
        + ", ".join(f"{METHODS[m].title} {signed(figures[m]['gap'])}" for m in methods),
        {"unit": "points", "methods": {method: figures[method] for method in methods}},
    )
