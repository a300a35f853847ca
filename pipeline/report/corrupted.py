"""Tables of corrupted images: every method merged from clean data, and what adapting changes."""

from collections.abc import Mapping
from typing import Any

from pipeline.merging.methods import METHODS
from pipeline.report.clear import by_corruption, level_corrupted, paired
from pipeline.report.content import REFERENCE, Content, competes
from pipeline.report.tables import Column, Table, by_method, hundredths, make_table, numbers, signed

CLEAN, EACH = "clean", "each"
# Condition of `pipeline.conditions` -> what coefficients were learned on.
LEARNED_ON = {
    CLEAN: "clean images",
    EACH: "each corruption's own images",
    "mixture": "a mixture of the corruptions",
    "stream": "a mixture, each image seen once",
    "small": "a mixture, small batches",
    "imbalanced": "a mixture, imbalanced classes",
}
ROBUSTNESS_NOTE = (
    "Average: mean over all corruptions and severities. Error ratio: the error divided by the "
    "pretrained model's on the same images, %, mean over corruptions; below 100 it errs less. "
    "Relative drop: how much of the accuracy without corruption is lost, %. Models were merged "
    "from clean data."
)
MARKED_NOTE = (
    "Bold: the single model without labels with the highest average, and all that the corruptions "
    "cannot tell from it (the 95 % interval of the mean difference over them, by Student's t, "
    "covers zero)."
)
ADAPTED_NOTE = (
    "Learned on: whose unlabeled images the coefficients come from. Beside clean images: points "
    "above or below the same method learned on clean images, with a 95 % interval over the "
    "corruptions (Student's t)."
)

Figures = Mapping[str, Mapping[str, Any]]


def corruption_title(name: str) -> str:
    """A corruption's name as it is printed."""
    words = name.replace("_", " ")
    return (words[0].upper() + words[1:]).replace("Jpeg", "JPEG")


def robustness_table(content: Content) -> Table:
    """Corrupted accuracy with coefficients from clean images, means over severities."""
    figures = content.robustness["clean"]
    tested = [method for method in content.methods if method in figures]
    means = {method: by_corruption(figures[method]) for method in tested}
    columns = [
        Column(
            "Average",
            numbers(figures, "avg"),
            marked=level_corrupted(figures, [m for m in tested if competes(m)]),
        ),
        Column("Without corruption", numbers(figures, "clean")),
        Column("Relative drop", numbers(figures, "relative_drop")),
        Column("Error ratio", numbers(figures, "error_ratio", "mean")),
        *(
            Column(corruption_title(name), numbers(means, name))
            for name in content.config.profile.robustness.corruptions
        ),
    ]
    return make_table(by_method(tested), [one for one in columns if one.values])


def adapted_table(content: Content) -> Table | None:
    """What learning on corrupted images changes, at the severity where it was done.

    Rows: task arithmetic, and every adapted method under every condition.
    """
    figures = adapted_figures(content)
    if not figures:
        return None
    adapted = {method for method, condition in figures if condition != CLEAN}
    rows, gaps = {}, {}
    for method, condition in figures:
        title, key = METHODS[method].title, f"{method}/{condition}"
        learned_on = LEARNED_ON.get(condition, condition)
        rows[key] = (method, f"{title}, {learned_on}" if method in adapted else title)
        if condition != CLEAN and (method, CLEAN) in figures:
            own, before = figures[method, condition], figures[method, CLEAN]
            gaps[key] = (
                own["avg"] - before["avg"],
                paired(own["corruptions"], before["corruptions"]),
            )
    found = {f"{method}/{condition}": row for (method, condition), row in figures.items()}
    columns = [
        Column("Average", numbers(found, "avg")),
        Column(
            "Beside clean images",
            {key: gap for key, (gap, _) in gaps.items()},
            intervals={k: (one.low, one.high) for k, (_, one) in gaps.items() if one},
            show=signed,
            show_ends=hundredths,
        ),
        Column("Error ratio", numbers(found, "error_ratio")),
        *(
            Column(corruption_title(name), numbers(found, "corruptions", name))
            for name in content.config.profile.robustness.corruptions
        ),
    ]
    return make_table(rows, [one for one in columns if one.values])


def adapted_figures(content: Content) -> dict[tuple[str, str], dict[str, Any]]:
    """(Method, condition) -> figures at the severity of the adaptation; {} where there is none.

    Task arithmetic, which learns nothing, and the adapted methods as learned on clean images have
    the condition `clean`.
    """
    settings = content.config.profile.robustness.adapted
    learned = {
        EACH: content.robustness.get("adapted", {}),
        **content.robustness.get("conditions", {}),
    }
    adapted = [m for m in content.methods if any(m in rows for rows in learned.values())]
    if not adapted:
        return {}
    clean, severity = content.robustness.get("clean", {}), str(settings.severity)
    found = {}
    for method in content.methods:
        if method in clean and (method == REFERENCE or method in adapted):
            found[method, CLEAN] = at_severity(clean[method], severity)
        for condition, rows in learned.items():
            if method in rows:
                found[method, condition] = at_severity(rows[method], severity)
    return {key: row for key, row in found.items() if row}


def at_severity(row: Mapping[str, Any], severity: str) -> dict[str, Any]:
    """`avg`, `corruptions` and `error_ratio` of one severity; {} if not tested."""
    corruptions = by_corruption(row, severity)
    if not corruptions or len(corruptions) < len(row["corruptions"]):
        return {}
    average = sum(corruptions.values()) / len(corruptions)
    ratios = row.get("error_ratio", {}).get("severities", {})
    return {
        "avg": average,
        "corruptions": corruptions,
        "error_ratio": ratios.get(severity),
    }
