"""Heat maps: coefficients over tensors and tasks, and how alike the task vectors are."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content
from pipeline.report.learned import Learned
from pipeline.report.style import INK, MUTED, PAGE_WIDTH, ROW_GAP, Plot, bare, new_figure
from pipeline.report.words import listed

CHANGE = "RdBu_r"  # white in the middle; red and blue differ for all kinds of colour vision
WEAK_COSINE = 0.2  # the colour scale reaches this far at least, lest noise look like structure
NUMBERED = 24  # columns on a page that have room for numbers, and for slanted titles
CROWDED = 12  # columns from which a map beside something else has smaller numbers
MOST_ROWS = 3  # of panels below each other, lest a figure outgrow a sheet of paper
TENSOR = 0.155  # inches of a tensor's row
CELLS: dict[str, Any] = {"aspect": "auto", "interpolation": "none"}
_BLOCK = re.compile(r"resblocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Block:
    """Tensors that belong together: a transformer block, or what lies before or behind them."""

    title: str
    rows: tuple[int, ...]  # places in the list of tensors
    labels: tuple[str, ...]  # tensor names without what the block's title says


def blocks(layers: tuple[str, ...]) -> list[Block]:
    """Tensor names -> stem, block 0, block 1, ..., out; in the order of a forward pass."""
    groups: dict[float, list[tuple[int, str]]] = {}
    for row, name in enumerate(layers):
        inside = _BLOCK.search(name)
        label = inside[2] if inside else name.removeprefix("visual.")
        behind = label.startswith(("ln_post", "proj"))
        place = int(inside[1]) if inside else np.inf if behind else -1
        groups.setdefault(place, []).append((row, label))
    titles = {-1: "stem", np.inf: "out"}
    return [
        Block(titles.get(place, f"block {place}"), *zip(*groups[place], strict=True))
        for place in sorted(groups)
    ]


def _layerwise(content: Content) -> dict[str, Learned]:
    """The methods that learned a coefficient for every tensor."""
    return {method: one for method, one in content.learned.items() if len(one.layers) > 1}


def block_coefficients(content: Content) -> Plot | None:
    """Mean coefficient of every block and task, with numbers; a panel per method."""
    learned = _layerwise(content)
    if not learned:
        return None
    means = {
        method: np.stack([one.values[list(block.rows)].mean(0) for block in blocks(one.layers)])
        for method, one in learned.items()
    }
    titles = [block.title for block in blocks(next(iter(learned.values())).layers)]
    scale = _scale(content, means.values())
    rows, columns = _arranged(len(means), len(content.tasks))
    numbered = columns * len(content.tasks) <= NUMBERED
    figure = new_figure(PAGE_WIDTH, 0.3 + rows * (1.2 + 0.36 * len(titles)), h_pad=ROW_GAP)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[len(means) :]:
        axes.remove()
    for axes, (method, values) in zip(panels, means.items(), strict=False):
        image = axes.imshow(values, norm=scale, cmap=CHANGE, **CELLS)
        if numbered:
            write_numbers(axes, values, strong=abs(scale(values) - 0.5) > 0.35)
        label_below(axes, [content.task_titles[task] for task in learned[method].tasks], columns)
        axes.set_yticks(range(len(titles)), titles)
        axes.set_title(METHODS[method].title, pad=8)
    # Where panels are below each other, the bar is as tall as the first of them.
    where = {"shrink": 0.8} if rows == 1 else {"shrink": 0.8 / rows, "anchor": (0, 1)}
    _colour_bar(image, panels[: len(means)], "mean coefficient", **where)
    return Plot(
        "coefficients",
        figure,
        "Learned coefficients, averaged over the tensors of each block of the image encoder (stem: "
        "patch and position embedding; out: last norm and projection). White is where all began, "
        f"{content.config.profile.learn.initial:g}; red has grown, blue has shrunk.",
        "Heat map of mean coefficients, blocks by tasks, for "
        + listed([METHODS[method].title for method in means]),
        {
            "unit": "mean coefficient",
            "blocks": titles,
            "methods": {m: _by_task(learned[m], values) for m, values in means.items()},
        },
    )


def _arranged(panels: int, tasks: int) -> tuple[int, int]:
    """(Rows, columns) of panels: so few side by side that numbers fit, if rows are not too many."""
    beside = max(1, NUMBERED // tasks)
    rows = -(-panels // beside)
    if rows > MOST_ROWS:
        return 1, panels
    return rows, -(-panels // rows)


def tensor_coefficients(content: Content) -> Plot | None:
    """Every coefficient: tensors, grouped by block, x tasks; a panel per method."""
    learned = _layerwise(content)
    if not learned:
        return None
    groups = blocks(next(iter(learned.values())).layers)
    starts = [0, *accumulate(1 + len(block.rows) for block in groups)]  # a heading and its tensors
    scale = _scale(content, [one.values for one in learned.values()])
    figure = new_figure(PAGE_WIDTH, 1.4 + TENSOR * starts[-1])
    panels = figure.subplots(1, len(learned), sharey=True, squeeze=False)[0]
    for axes, (method, one) in zip(panels, learned.items(), strict=True):
        for block, start in zip(groups, starts, strict=False):
            values = one.values[list(block.rows)]
            sides = (-0.5, len(one.tasks) - 0.5, start + len(values) + 0.5, start + 0.5)
            image = axes.imshow(values, norm=scale, cmap=CHANGE, extent=sides, **CELLS)
        axes.set_ylim(starts[-1] - 0.5, -0.5)
        label_below(axes, [content.task_titles[task] for task in one.tasks], len(learned))
        axes.set_title(METHODS[method].title, pad=8)
    rows = [label for block in groups for label in (block.title, *block.labels)]
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].tick_params(axis="y", labelsize=7)
    for start, label in enumerate(panels[0].get_yticklabels()):
        if start in starts:
            label.set(color=INK, weight="bold", size=8)
    _colour_bar(image, panels, "coefficient", shrink=0.25, anchor=(0, 1))
    return Plot(
        "coefficients_tensors",
        figure,
        "The same for every tensor: a row is a tensor of the image encoder, below the name of its "
        "block, from input (top) to output; a column is a task vector.",
        f"Heat map of {len(rows) - len(groups)} tensors by {len(content.tasks)} tasks by "
        "coefficient",
        {
            "unit": "coefficient",
            "layers": next(iter(learned.values())).layers,
            "methods": {m: _by_task(one, one.values) for m, one in learned.items()},
        },
    )


def cosines(content: Content) -> Plot | None:
    """Cosines between task vectors, and their length beside the pretrained weights'."""
    found = content.similarity
    if found is None:
        return None
    titles = [content.task_titles[task] for task in found.tasks]
    apart = np.ma.masked_where(np.eye(len(titles), dtype=bool), found.cosines)
    top = max(float(np.abs(apart.filled(0)).max()), WEAK_COSINE)
    figure = new_figure(PAGE_WIDTH, 1.7 + 0.4 * len(titles))
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    image = heat.imshow(apart, norm=Normalize(-top, top), cmap=CHANGE, **CELLS)
    size = 6.5 if len(titles) > CROWDED else 8
    write_numbers(heat, apart, strong=abs(found.cosines) > 0.7 * top, size=size)
    label_below(heat, titles)
    heat.set_yticks(range(len(titles)), titles)
    heat.set_title("cosine", pad=8)
    figure.colorbar(image, ax=heat, location="left", shrink=0.8, pad=0.02)
    norms = [100 * found.relative_norms[task] for task in found.tasks]
    bars.barh(range(len(norms)), norms, height=0.6, color=MUTED)
    bars.set_title("relative length, %", pad=8)
    bars.tick_params(axis="y", length=0, labelleft=False)
    bars.grid(axis="y", visible=False)
    return Plot(
        "task_vectors",
        figure,
        "Cosine between task vectors, expert minus pretrained (0: orthogonal), and the length of "
        "each, in percent of the pretrained weights' length.",
        f"Heat map of the cosines between {len(titles)} task vectors, with bars of their lengths",
        {
            "tasks": found.tasks,
            "cosines": found.cosines.round(5).tolist(),
            "relative_norms": dict(found.relative_norms),
        },
    )


def write_numbers(
    axes: Axes, values: np.ndarray, strong: np.ndarray, size: float = 8, digits: int = 2
) -> None:
    """Each value in its cell, if it is not masked: white where the colour is `strong`."""
    for place in np.argwhere(~np.ma.getmaskarray(values)):
        row, column = place
        ink = "#ffffff" if strong[row, column] else "#111111"
        text = f"{values[row, column]:.{digits}f}"
        axes.text(column, row, text, color=ink, ha="center", va="center", fontsize=size)


def label_below(axes: Axes, titles: list[str], panels: int = 1) -> None:
    """Titles below one of a row of heat maps: slanted, or upright where that is too tight."""
    bare(axes)
    slanted = panels * len(titles) <= NUMBERED
    turn = {"rotation": 40} if slanted else {"rotation": 90, "va": "center", "fontsize": 7.5}
    axes.set_xticks(range(len(titles)), titles, ha="right", rotation_mode="anchor", **turn)


def _scale(content: Content, values: Iterable[np.ndarray]) -> Normalize:
    """Colours around the value that every coefficient began with."""
    initial = content.config.profile.learn.initial
    reach = max(float(abs(one - initial).max()) for one in values) or 0.1
    return Normalize(initial - reach, initial + reach)


def _colour_bar(image: Any, panels: Sequence[Axes], label: str, **where: Any) -> None:
    """A bar for all panels; it ends at zero, since no coefficient is negative."""
    bar = image.figure.colorbar(image, ax=panels, label=label, pad=0.02, **where)
    bar.ax.set_ylim(bottom=max(0.0, image.norm.vmin))


def _by_task(learned: Learned, values: np.ndarray) -> dict[str, list[float]]:
    """Task -> its column."""
    columns = values.T.round(5).tolist()
    return dict(zip(learned.tasks, columns, strict=True))
