"""The report's tables: prepared once, shown as HTML by the page or as GitHub Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import Config
from pipeline.merging.methods import METHODS
from pipeline.report.content import REFERENCE, Content, competes, one_per_task, task_titles
from pipeline.report.needs import key as key_of_needs
from pipeline.report.needs import needs_of

NOTHING = "\N{EN DASH}"
OTHERS = "Not one model for all tasks"  # above the rows that are no single model


@dataclass(frozen=True)
class Column:
    """A column's title and its numbers by row key; a row without a number shows a dash."""

    title: str
    values: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)  # standard deviation over seeds
    lowest: bool = False  # the lowest number is the best one


@dataclass(frozen=True)
class Cell:
    """A number as printed, and whether it is the best of those that compete."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A method's cells."""

    method: str
    title: str
    cells: tuple[Cell, ...]

    @property
    def paper(self) -> str:
        """Where the method is described."""
        return METHODS[self.method].paper

    @property
    def label_tuned(self) -> bool:
        """Whether labels chose something in it."""
        return METHODS[self.method].reads("labels")

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """(Letter, words) of everything that it needs."""
        return needs_of(self.method)


@dataclass(frozen=True)
class Table:
    """Rows in report order, under the titles of their columns."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    needs: bool = False  # whether a column says what the methods need

    @property
    def groups(self) -> dict[str, tuple[Row, ...]]:
        """Title -> rows: single models, without a title, and then those that are none."""
        single = tuple(row for row in self.rows if not one_per_task(row.method))
        others = tuple(row for row in self.rows if one_per_task(row.method))
        return {title: rows for title, rows in (("", single), (OTHERS, others)) if rows}

    @property
    def label_tuned(self) -> bool:
        """Whether a row needs the note about labels."""
        return any(row.label_tuned for row in self.rows)


def printed(value: float) -> str:
    """A percentage as every table and sentence prints it: one decimal."""
    return f"{value:.1f}"


def difference(value: float, other: float) -> float:
    """The difference of two numbers as printed, so that a reader who subtracts finds the same."""
    return round(float(printed(value)) - float(printed(other)), 1)


def signed(value: float) -> str:
    """A difference with its sign, a true minus included; zero has none."""
    text = f"{value:+.1f}"
    return text[1:] if text[1:] == "0.0" else text.replace("-", "\N{MINUS SIGN}")


def make_table(
    rows: Mapping[str, tuple[str, str]], columns: Sequence[Column], needs: bool = False
) -> Table:
    """A table of `rows`: key -> (method, title). The best competing number of a column is marked.

    Numbers are compared as printed, so that two that look alike are marked alike. `needs`: whether
    a column says what the methods need.
    """
    cells = [_cells({key: method for key, (method, _) in rows.items()}, one) for one in columns]
    return Table(
        columns=tuple(column.title for column in columns),
        rows=tuple(
            Row(method, title, tuple(column[key] for column in cells))
            for key, (method, title) in rows.items()
        ),
        needs=needs,
    )


def _cells(methods: Mapping[str, str], column: Column) -> dict[str, Cell]:
    """Row key -> cell. `methods`: row key -> method."""
    texts = {key: printed(column.values[key]) for key in methods if key in column.values}
    rivals = [float(text) for key, text in texts.items() if competes(methods[key])]
    best = (min if column.lowest else max)(rivals, default=None)
    cells = {key: Cell(NOTHING) for key in methods}
    for key, text in texts.items():
        spread = f" ± {printed(column.spread[key])}" if key in column.spread else ""
        cells[key] = Cell(text + spread, competes(methods[key]) and float(text) == best)
    return cells


def _by_method(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    return {method: (method, METHODS[method].title) for method in methods}


def _numbers(figures: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float]:
    """Row key -> the number `name`, of the rows that have it."""
    return {key: row[name] for key, row in figures.items() if row.get(name) is not None}


def _nested(figures: Mapping[str, Mapping[str, Any]], group: str, name: str) -> dict[str, float]:
    return {key: row[group][name] for key, row in figures.items() if name in row[group]}


def accuracy_table(config: Config, clean: Mapping[str, Mapping[str, Any]]) -> Table:
    """Clean accuracy: methods x (needs, average, tasks, share of the experts' accuracy, ECE)."""
    several = len(config.profile.seeds) > 1
    titles = task_titles(config)
    columns = [
        Column("Average", _numbers(clean, "avg"), _numbers(clean, "avg_sd") if several else {}),
        *(Column(title, _nested(clean, "tasks", task)) for task, title in titles.items()),
        Column("Normalised", _numbers(clean, "normalized")),
        Column("ECE", _numbers(clean, "ece"), lowest=True),
    ]
    return make_table(_by_method(config.methods), columns, needs=True)


def accuracy_note(config: Config, table: Table) -> str:
    """How to read the accuracy table, in some sentences."""
    seeds = config.profile.seeds
    notes = [
        "Accuracy in percent"
        + (f", means over {len(seeds)} seeds (± standard deviation)." if len(seeds) > 1 else "."),
        "Normalised: accuracy divided by the task's expert, averaged. "
        "ECE: expected calibration error, lower is better. "
        "Bold: the best single model without labels.",
        f"Needs: {key_of_needs(row.method for row in table.rows)}.",
    ]
    if table.label_tuned:
        notes.append("† chose its coefficient with labels, so it does not compete.")
    if config.profile.suite == "mini":
        notes.append("Miniature tasks: not comparable with published figures.")
    return " ".join(notes)


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


def robustness_table(content: Content) -> Table:
    """Corrupted accuracy with coefficients from clean images, means over severities."""
    figures = content.robustness["clean"]
    columns = [
        Column("Average", _numbers(figures, "avg")),
        Column("Without corruption", _numbers(figures, "clean")),
        Column("Relative drop", _numbers(figures, "relative_drop"), lowest=True),
    ]
    for name in content.config.profile.robustness.corruptions:
        found = {method: row["corruptions"].get(name, {}) for method, row in figures.items()}
        means = {m: sum(by.values()) / len(by) for m, by in found.items() if by}
        columns.append(Column(corruption_title(name), means))
    return make_table(_by_method(m for m in content.methods if m in figures), columns)


def adapted_table(content: Content) -> Table | None:
    """What learning on the corrupted images changes, at the severity where it was done."""
    figures = _adapted_figures(content)
    if not figures:
        return None
    adapted = content.robustness["adapted"]
    rows = {}
    for key in figures:
        method, _, on_corrupted = key.partition("/")
        images = "corrupted images" if on_corrupted else "clean images" if method in adapted else ""
        title = METHODS[method].title
        rows[key] = (method, f"{title}, learned on {images}" if images else title)
    columns = [Column("Average", adapted_averages(content))]
    for name in content.config.profile.robustness.corruptions:
        columns.append(Column(corruption_title(name), _numbers(figures, name)))
    return make_table(rows, columns)


def adapted_averages(content: Content) -> dict[str, float]:
    """Row key of `adapted_table` -> mean over corruptions at the severity of the adaptation."""
    return {key: sum(by.values()) / len(by) for key, by in _adapted_figures(content).items()}


def _adapted_figures(content: Content) -> dict[str, dict[str, float]]:
    """Row key -> corruption -> accuracy at that severity.

    Keys: task arithmetic and each adapted method as they are, and "<method>/adapted".
    """
    adapted = content.robustness.get("adapted", {})
    clean = content.robustness.get("clean", {}) if adapted else {}
    sources = {}
    for method in content.methods:
        if method in clean and (method == REFERENCE or method in adapted):
            sources[method] = clean[method]
        if method in adapted:
            sources[f"{method}/adapted"] = adapted[method]
    severity = str(content.config.profile.robustness.adapted.severity)
    return {
        key: {name: by[severity] for name, by in row["corruptions"].items() if severity in by}
        for key, row in sources.items()
        if all(severity in by for by in row["corruptions"].values())
    }


def generalization_table(content: Content, split: str) -> Table:
    """Seen and unseen averages of a split, and each unseen task, beside the pretrained model."""
    figures = with_pretrained(content, split)
    unseen = content.config.profile.generalization.splits[split].unseen
    several = len(content.config.profile.seeds) > 1
    columns = [
        Column(
            f"{part.capitalize()} tasks",
            _numbers(figures, part),
            _numbers(figures, f"{part}_sd") if several else {},
        )
        for part in ("seen", "unseen")
    ]
    columns += [
        Column(content.task_titles[task], _nested(figures, "tasks", task)) for task in unseen
    ]
    return make_table(_by_method(figures), columns)


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


def corruption_title(name: str) -> str:
    """A corruption's name as it is printed."""
    words = name.replace("_", " ")
    return (words[0].upper() + words[1:]).replace("Jpeg", "JPEG")
