"""Tables of clean images: accuracy, calibration, and accuracy without the task's identity."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config import Config
from pipeline.merging.methods import METHODS
from pipeline.report.clear import level
from pipeline.report.content import REFERENCE, Content, competes, task_titles
from pipeline.report.needs import key as key_of_needs
from pipeline.report.tables import (
    Column,
    Table,
    by_method,
    hundredths,
    make_table,
    numbers,
    signed,
    thousandths,
)
from pipeline.report.words import listed

Clean = Mapping[str, Mapping[str, Any]]  # metrics/<profile>/clean.json


def accuracy_table(config: Config, clean: Clean) -> Table:
    """Clean accuracy: methods x (needs, average, tasks, share of the experts' accuracy, ECE).

    Set off: the averages of the best competing model and of those level with it.
    """
    several = len(config.profile.seeds) > 1
    best = level(clean, filter(competes, config.methods))
    columns = [
        Column(
            "Average",
            numbers(clean, "avg"),
            numbers(clean, "avg_sd") if several else {},
            marked=best,
        ),
        *(
            Column(title, numbers(clean, "tasks", task))
            for task, title in task_titles(config).items()
        ),
        Column("Normalised", numbers(clean, "normalized")),
        Column("ECE", numbers(clean, "ece")),
    ]
    return make_table(by_method(config.methods), columns, needs=True)


def accuracy_note(config: Config, table: Table) -> str:
    """How to read the accuracy table, in some sentences."""
    seeds = config.profile.seeds
    notes = [
        "Accuracy in percent"
        + (f", means over {len(seeds)} seeds (± standard deviation)." if len(seeds) > 1 else "."),
        "Normalised: accuracy divided by the task's expert, averaged. "
        "ECE: expected calibration error, lower is better.",
    ]
    if table.marked:
        notes.append(
            "Bold: the single model without labels with the highest average, and all that the "
            "images cannot tell from it (the 95 % interval of the difference covers zero)."
        )
    notes.append(f"Needs: {key_of_needs(row.method for row in table.rows)}.")
    if table.label_tuned:
        notes.append("† chose its coefficient with labels, so it does not compete.")
    if options := options_note(config, [row.method for row in table.rows]):
        notes.append(options)
    if config.profile.suite == "mini":
        notes.append("Miniature tasks: not comparable with published figures.")
    return " ".join(notes)


def options_note(config: Config, methods: Iterable[str]) -> str:
    """'Options that are not the defaults: WUDI-merging (solve closed).'; empty if all are.

    Coefficients that come from a file instead of learning are told likewise.
    """
    files, found = config.profile.learn.coefficients, []
    for method in methods:
        defaults = METHODS[method].defaults
        chosen = config.profile.merge.options.get(method, {})
        parts = [f"{k} {_value(v)}" for k, v in chosen.items() if v != defaults[k]]
        if method in files:
            parts.append(f"coefficients from {files[method].path}")
        if parts:
            found.append(f"{METHODS[method].title} ({', '.join(parts)})")
    return f"Options that are not the defaults: {listed(found)}." if found else ""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value}"


def contamination_notes(content: Content) -> list[str]:
    """A sentence for each task some of whose test images are trained on."""
    images = content.sources.get("images", {})
    found = {task: images.get(task, {}).get("duplicates", 0) for task in content.tasks}
    return [
        f"{content.task_titles[task]}: {number} of its test images {'is' if number == 1 else 'are'}"
        " also trained on, byte for byte: its figures are too good."
        for task, number in found.items()
        if number
    ]


def calibration_table(content: Content) -> Table | None:
    """How sure the averages are, how honest the probabilities, and what the task's identity is
    worth; None where the metrics are older than these figures."""
    clean = content.clean
    if not all("ece_mass" in clean[method] for method in content.methods):
        return None
    compared = numbers(clean, "beside", REFERENCE)
    tasks = len(content.tasks)
    columns = [
        Column("Average", numbers(clean, "avg"), intervals=numbers(clean, "avg_interval")),
        Column(
            "Beside task arithmetic",
            numbers(compared, "difference"),
            intervals=numbers(compared, "interval"),
            show=signed,
            show_ends=hundredths,
        ),
        Column("Tasks won", numbers(compared, "wins"), show=lambda wins: f"{wins} of {tasks}"),
        Column("ECE, equal width", numbers(clean, "ece")),
        Column("ECE, equal mass", numbers(clean, "ece_mass")),
        Column("NLL", numbers(clean, "nll"), show=thousandths),
        Column("Brier", numbers(clean, "brier"), show=thousandths),
        Column("Entropy", numbers(clean, "entropy"), show=thousandths),
        Column("Joint", numbers(clean, "joint")),
        Column("Joint, same words", numbers(clean, "joint_same_words")),
    ]
    return make_table(by_method(content.methods), [one for one in columns if one.values])


CALIBRATION_NOTE = (
    "Below averages and differences: their 95 % intervals over images (bootstrap; of differences "
    "paired), for the models at hand. Beside task arithmetic: points above or below it on the same "
    "images; tasks won: on how many it is the more accurate. ECE in percent, 15 bins of equal "
    "width or of equally many images; NLL and mean entropy of the predictions in nats; Brier from "
    "0 to 2. Joint: accuracy among the classes of all tasks together, without the task's identity; "
    "a class of another task counts as wrong, but with the same words as right in the last column."
)
