"""Studies of entropy, cost and selection, told."""

from collections.abc import Callable
from statistics import median
from typing import Any

from pipeline.merging.methods import METHODS
from pipeline.study.selection import CRITERIA, NOTHING, ORACLE
from pipeline.study.words import (
    Row,
    beside,
    block,
    clear,
    difference,
    image,
    origin,
    seeds,
    spread,
    table,
)

# ---- Entropy against loss


def entropy_loss_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    said = []
    for method, row in figures["methods"].items():
        low, high = row["images_interval"]
        least = min(row["tasks"], key=lambda task: row["tasks"][task]["images"])
        said.append(
            f"{METHODS[method].title}: Spearman's correlation of entropy and loss is "
            f"{row['images']:.2f} over single images (95 % interval {low:.2f} to {high:.2f}) and "
            f"{row['groups']:.2f} over ten groups, means over tasks; it is lowest on {least}, with "
            f"{row['tasks'][least]['images']:.2f} over images. The paper has "
            f"{figures['published']:.2f} over groups, on its own tasks."
        )
    return said


def entropy_loss(figures: Row) -> str:
    """Figure, sentences, table."""
    methods = figures["methods"]
    columns = ["Task"]
    columns += [f"{METHODS[m].title}, {over}" for m in methods for over in ("images", "groups")]
    tasks = next(iter(methods.values()))["tasks"]
    cells = [[t, *_correlations(m["tasks"][t] for m in methods.values())] for t in tasks]
    cells.append(["**mean**", *_correlations(methods.values())])
    alt = "Mean loss against mean entropy of ten groups of images, a line for each task"
    note = (
        "Rank correlation of a prediction's entropy and its cross-entropy on "
        f"{figures['eval_images']} `eval` images of each task, {seeds(figures)}, means over "
        "seeds; groups: ten of equally many images, by entropy. Labels are read here, by no "
        f"method. {origin(figures)}"
    )
    return block(
        [image("study_entropy_loss", alt), table(columns, cells, 1), note],
        entropy_loss_sentences(figures),
    )


def _correlations(rows: Any) -> list[str]:
    return [f"{row[over]:.2f}" for row in rows for over in ("images", "groups")]


# ---- Cost


def cost_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    rows: Row = figures["rows"]
    said = []
    for learns, kind in ((False, "that merge at once"), (True, "that learn coefficients")):
        own = {method: row for method, row in rows.items() if row["learns"] is learns}
        if not own:
            continue
        times = [row["seconds"] for row in own.values()]
        slowest = max(own, key=lambda method: own[method]["seconds"])
        largest = max(own, key=lambda method: own[method]["above_gb"])
        said.append(
            f"The {len(own)} methods {kind} take {min(times):.1f} to {max(times):.1f} s, half of "
            f"them at most {median(times):.1f} s; the longest is {METHODS[slowest].title}, the "
            f"one with the most memory {METHODS[largest].title} with "
            f"{own[largest]['above_gb']:.2f} GB."
        )
    return said


def cost(figures: Row) -> str:
    """Figure, sentences, table."""
    cells = (
        [
            METHODS[method].title,
            f"{row['seconds']:.2f} s",
            f"{row['above_gb']:.2f} GB",
            f"{row['peak_gb']:.2f} GB",
            f"{row['steps']}" if row["steps"] else "",
        ]
        for method, row in figures["rows"].items()
    )
    alt = "Seconds and memory of every method"
    note = (
        f"One run of each method in a process of its own, seed {figures['cost_seed']}, from the "
        "task vectors on disk to the merged weights in a file, what is learned included; the "
        "profile's schedule. The clock starts when torch and the model are loaded. Memory: the "
        "most the process held (VmHWM), with mapped files, and how much of it came after the "
        f"clock had started. One run says nothing of how much times vary. {origin(figures)}"
    )
    columns = ["Method", "Time", "Memory on top", "Peak memory", "Steps"]
    return block(
        [image("study_cost", alt), table(columns, cells, 1), note], cost_sentences(figures)
    )


# ---- Selection


def choice_title(name: str) -> str:
    """What is chosen, in words."""
    kind, _, method = name.partition("/")
    return f"{METHODS[method].title}, step" if kind == "step" else "Variant and objective"


def selection_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    said = []
    for name, choice in figures["choices"].items():
        rows = choice["rows"]
        free = [c for c, criterion in CRITERIA.items() if not criterion.labels]
        told = (
            f"{CRITERIA[c].title} is {beside(rows[c]['beside'][NOTHING], 'no choice')}"
            for c in free
        )
        gap = rows[NOTHING]["beside"][ORACLE]
        lost = f"{-gap['difference']:.2f} points" if clear(gap) else "nothing that can be seen"
        said.append(
            f"{choice_title(name)}, {choice['candidates']} candidates: no choice loses {lost} to "
            f"the oracle; {'; '.join(told)}."
        )
    return said


def selection(figures: Row) -> str:
    """Figure, sentences, table."""
    cells = [
        [
            choice_title(name),
            _criterion(criterion),
            spread(row),
            difference(row["beside"].get(ORACLE)),
            difference(row["beside"].get(NOTHING)),
            ", ".join(row["chosen"].values()),
        ]
        for name, choice in figures["choices"].items()
        for criterion, row in choice["rows"].items()
    ]
    columns = ["What is chosen", "By", "Accuracy", "Above the oracle", "Above no choice"]
    alt = "Points below the oracle of every criterion, for steps and for variants"
    note = (
        "Validators see the images of `select` without labels; accuracies are those on `eval`. "
        "† reads labels. The oracle chooses by the accuracies that it is judged by, so it is "
        "out of reach, and its own figure a little too good. No choice: the last step, or the "
        "paper's objective. Steps: those of schedule `paper` at which a snapshot was taken. "
        f"Chosen: by seed. {seeds(figures).capitalize()}; ± standard deviation over seeds; "
        f"differences in points, with a 95 % interval over images. {origin(figures)}"
    )
    return block(
        [image("study_selection", alt), table([*columns, "Chosen"], cells, 2), note],
        selection_sentences(figures),
    )


def _criterion(name: str) -> str:
    if name == NOTHING:
        return "no choice"
    one = CRITERIA[name]
    title = f"oracle: {one.title}" if name == ORACLE else one.title
    return f"{title} †" if one.labels else title


SENTENCES: dict[str, Callable[[Row], list[str]]] = {
    "entropy_loss": entropy_loss_sentences,
    "cost": cost_sentences,
    "selection": selection_sentences,
}
TOLD: dict[str, Callable[[Row], str]] = {
    "entropy_loss": entropy_loss,
    "cost": cost,
    "selection": selection,
}
