"""The plot: seconds per step against the number of tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.estimates import Estimate, Table, step_seconds
from benchmarks.settings import METHODS
from pipeline.files import replacing
from pipeline.report.style import (
    BLUE,
    DPI,
    GREEN,
    INK,
    ORANGE,
    PAGE_WIDTH,
    SKY,
    VERMILLION,
    drawing,
    new_figure,
)

# Okabe and Ito's colours, which colour-blind readers can tell apart; markers differ as well.
LOOKS = {
    "ours": (GREEN, "o"),
    "ours_float16": (SKY, "v"),
    "ours_bfloat16": (GREEN, "P"),
    "fusion_bench": (BLUE, "s"),
    "fusion_bench_onednn": (BLUE, ">"),
    "fusion_bench_bfloat16": (BLUE, "X"),
    "authors_one": (ORANGE, "^"),
    "authors": (VERMILLION, "D"),
    "floor": (INK, "_"),
}
PANELS = {
    "vit": "ViT-B-32, 16 images per task",
    "two_blocks": "Two blocks, 1 image per task: the merge dominates",
}
TITLES = {name: method.title for name, method in METHODS.items()} | {"floor": "Floor (float32)"}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Write the plot of both trunks as PNG."""
    with drawing(), replacing(path) as temporary:
        figure = new_figure(PAGE_WIDTH, 4.6)
        tables = {trunk: step_seconds(figures, trunk) for trunk in PANELS}
        for row in tables["two_blocks"].values():
            del row["floor"]  # there it counts much that is left out
        for axes, (trunk, table) in zip(figure.subplots(1, 2), tables.items(), strict=True):
            _panel(axes, PANELS[trunk], table)
        drawn = {name for table in tables.values() for row in table.values() for name in row}
        handles = [Line2D([], [], label=TITLES[n], **_look(n)) for n in LOOKS if n in drawn]
        hollow = {"marker": "o", "linestyle": "--", "color": INK, "markerfacecolor": "none"}
        handles.append(Line2D([], [], label="Hollow and dashed: extrapolated", **hollow))
        figure.legend(handles=handles, ncols=3, loc="outside lower center")
        figure.savefig(temporary, dpi=DPI, facecolor="white", metadata={"Software": None})


def _panel(axes: Axes, title: str, table: Table) -> None:
    for name in LOOKS:
        points = [(tasks, row[name]) for tasks, row in table.items() if name in row]
        measured = [point for point in points if not point[1].extrapolated]
        guessed = [point for point in points if point[1].extrapolated]
        _line(axes, measured, _look(name))
        # The dashed line goes on from the last point that was measured.
        joined = measured[-1:] + guessed if guessed else []
        _line(axes, joined, _look(name) | {"linestyle": "--", "marker": ""})
        _line(axes, guessed, _look(name) | {"linestyle": "", "markerfacecolor": "none"})
    axes.set(title=title, xlabel="Tasks", ylabel="CPU time per step (s)", yscale="log")
    axes.set_xticks(list(table))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, points: list[tuple[int, Estimate]], look: Mapping[str, Any]) -> None:
    axes.plot([x for x, _ in points], [estimate.value for _, estimate in points], **look)


def _look(name: str) -> dict[str, Any]:
    colour, marker = LOOKS[name]
    return {"color": colour, "marker": marker, "linewidth": 1.4, "markersize": 5}
