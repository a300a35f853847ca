"""Heat map of what the best method takes for what, on the task where it is worst."""

import numpy as np

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content
from pipeline.report.heatmaps import CELLS, label_below, write_numbers
from pipeline.report.predicted import Confusion
from pipeline.report.style import PAGE_WIDTH, Plot, new_figure
from pipeline.report.words import listed

MOST = 16  # classes that a page has room for, with numbers
NAMED = 3  # confusions that the caption names
LISTED = 50  # confusions that the data file names
LONG = 30  # letters of a class's name that a map has room for
REST = "any other"


def confusion(content: Content) -> Plot | None:
    """Shares of each class's images, in percent: rows are what they are, columns what was said."""
    found = content.confusion
    if found is None:
        return None
    places = shown(found)
    percent = shares(found, places)
    rows = [_short(found.classes[place]) for place in places]
    columns = rows + [REST] * (percent.shape[1] > len(places))
    figure = new_figure(PAGE_WIDTH, 1.9 + 0.34 * len(rows))
    axes = figure.add_subplot()
    image = axes.imshow(percent, vmin=0, vmax=100, cmap="Blues", **CELLS)
    seen = np.ma.masked_less(percent, 0.5)
    write_numbers(axes, seen, strong=percent > 60, digits=0)
    label_below(axes, columns)
    axes.set_yticks(range(len(rows)), rows)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a dollar in a name is one
    axes.set_xlabel("taken for")
    axes.set_ylabel("what it is")
    figure.colorbar(image, ax=axes, label="images of the class, %", pad=0.02, shrink=0.8)
    title, task = METHODS[found.method].title, content.task_titles[found.task]
    some = (
        f" Shown are the {len(places)} of {len(found.classes)} classes with the most frequent "
        "confusions."
        if len(places) < len(found.classes)
        else ""
    )
    return Plot(
        "confusion",
        figure,
        f"What {title} takes for what on its worst task, {task}: percent of the images of the "
        f"class on the left.{some} {said(found)}",
        f"Heat map of the confusions of {title} on {task}. {said(found)}",
        {
            "unit": "percent of a class's images",
            "method": found.method,
            "task": found.task,
            "rows": [found.classes[place] for place in places],
            "columns": [found.classes[place] for place in places] + columns[len(rows) :],
            "percent": percent.round(2).tolist(),
            "most_frequent": [
                {
                    "is": found.classes[true],
                    "taken_for": found.classes[answer],
                    "images": int(found.counts[true, answer]),
                    "of": int(found.counts[true].sum()),
                }
                for true, answer in found.pairs()[:LISTED]
            ],
        },
    )


def shown(found: Confusion) -> list[int]:
    """Places of all classes, if they are few; else of those in the most frequent confusions."""
    if len(found.classes) <= MOST:
        return list(range(len(found.classes)))
    kept: set[int] = set()
    for pair in found.pairs():
        if len(kept | {*pair}) > MOST:
            break
        kept |= {*pair}
    return sorted(kept)


def shares(found: Confusion, places: list[int]) -> np.ndarray:
    """Percent of each class's images [classes, answers]; of all other answers in a last column."""
    rows = found.counts[places]
    percent = 100 * rows / np.maximum(rows.sum(1, keepdims=True), 1)
    chosen = percent[:, places]
    if len(places) == len(found.classes):
        return chosen
    return np.column_stack([chosen, percent.sum(1) - chosen.sum(1)])


def said(found: Confusion) -> str:
    """The most frequent confusions in words."""
    pairs = found.pairs()[:NAMED]
    if not pairs:
        return "It makes no error there."
    words = [
        f"'{found.classes[true]}' for '{found.classes[answer]}' "
        f"({found.counts[true, answer]} of {found.counts[true].sum()} images)"
        for true, answer in pairs
    ]
    return f"It most often takes {listed(words)}."


def _short(name: str) -> str:
    return name if len(name) <= LONG else f"{name[: LONG - 1]}\N{HORIZONTAL ELLIPSIS}"
