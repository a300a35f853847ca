"""Tables of tasks that took no part in the merge: splits, and every pair of tasks in turn.

Merging can lose on unseen tasks, so figures stand beside the pretrained model's.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content
from pipeline.report.tables import Column, Table, by_method, hundredths, make_table, numbers, signed
from pipeline.statistics import Interval

UNSEEN_NOTE = (
    "Gap: points above or below the pretrained model on the unseen tasks, with its 95 % interval "
    "over images (bootstrap, paired). Bold: clearly above it."
)
PAIRS_NOTE = (
    "Every pair of tasks in turn took no part in the merge; seen, unseen and gap are means over "
    "the pairs, and so are the gaps of the single tasks, each over the pairs that it is in. Gap: "
    "as above. Pairs above zero: on how many the merge is above the pretrained model."
)

Rows = Mapping[str, Mapping[str, Any]]  # method -> its figures


def generalization_table(content: Content, split: str) -> Table:
    """Seen and unseen averages, the gap to the pretrained model, and each unseen task."""
    figures = with_pretrained(content, split)
    unseen = content.config.profile.generalization.splits[split].unseen
    columns = [
        *_averages(content, figures),
        *(Column(content.task_titles[task], numbers(figures, "tasks", task)) for task in unseen),
    ]
    return make_table(by_method(figures), [one for one in columns if one.values])


def leave_two_out_table(content: Content) -> Table | None:
    """Means over all pairs of unseen tasks, and the gap of every task; None where not asked for."""
    figures = over_pairs(content)
    if not figures:
        return None
    pairs = next(iter(figures.values()))["pairs"]
    columns = [
        *_averages(content, figures),
        Column(
            "Pairs above zero",
            _others(numbers(figures, "pairs_above_zero")),
            show=lambda count: f"{count} of {pairs}",
        ),
        *(
            Column(title, _others(numbers(figures, "tasks", task, "gap")), show=signed)
            for task, title in content.task_titles.items()
        ),
    ]
    return make_table(by_method(figures), columns)


def over_pairs(content: Content) -> dict[str, Mapping[str, Any]]:
    """metrics/<profile>/leave_two_out.json in report order."""
    return {
        method: content.leave_two_out[method]
        for method in METHODS
        if method in content.leave_two_out
    }


def _averages(content: Content, figures: Rows) -> list[Column]:
    several = len(content.config.profile.seeds) > 1
    intervals = _others(numbers(figures, "gap_interval"))
    return [
        *(
            Column(
                f"{part.capitalize()} tasks",
                numbers(figures, part),
                numbers(figures, f"{part}_sd") if several else {},
            )
            for part in ("seen", "unseen")
        ),
        Column(
            "Gap",
            _others(numbers(figures, "gap")),
            intervals=intervals,
            marked=[method for method, ends in intervals.items() if ends[0] > 0],
            show=signed,
            show_ends=hundredths,
        ),
    ]


def _others(values: dict[str, Any]) -> dict[str, Any]:
    """Without the pretrained model, whose gap to itself says nothing."""
    return {method: value for method, value in values.items() if method != "pretrained"}


def with_pretrained(content: Content, split: str) -> dict[str, Mapping[str, Any]]:
    """A split's figures, method -> figures, with the pretrained model as their reference.

    No split changes the pretrained model: where a split leaves it out, its clean accuracies serve.
    """
    found = content.generalization[split]
    if "pretrained" in content.clean and "pretrained" not in found:
        tasks = content.clean["pretrained"]["tasks"]
        parts = content.config.profile.generalization.splits[split]
        reference = {
            "seen": sum(tasks[task] for task in parts.seen) / len(parts.seen),
            "unseen": sum(tasks[task] for task in parts.unseen) / len(parts.unseen),
            "tasks": tasks,
        }
        found = {**found, "pretrained": reference}
    return {method: found[method] for method in METHODS if method in found}


def outcomes(figures: Rows) -> dict[str, list[str]]:
    """'gains', 'loses', 'unclear' -> methods, by the interval of their gap to the pretrained."""
    found: dict[str, list[str]] = {"gains": [], "loses": [], "unclear": []}
    for method, ends in _others(numbers(figures, "gap_interval")).items():
        interval = Interval(*ends)
        name = "unclear" if not interval.clear else "gains" if interval.low > 0 else "loses"
        found[name].append(method)
    return found
