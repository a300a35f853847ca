"""The report's tables: prepared once, shown as HTML by the page or as GitHub Markdown.

What stands in them: `accuracy`, `corrupted` and `unseen` beside this module.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.merging.methods import METHODS
from pipeline.report.content import one_per_task
from pipeline.report.needs import needs_of

NOTHING = "\N{EN DASH}"
OTHERS = "Not one model for all tasks"  # above the rows that are no single model


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


def hundredths(value: float) -> str:
    """An end of a difference's interval, with its sign."""
    text = f"{value:+.2f}"
    return text[1:] if text[1:] == "0.00" else text.replace("-", "\N{MINUS SIGN}")


def thousandths(value: float) -> str:
    """A number near one: nats, or a score from 0 to 2."""
    return f"{value:.3f}"


@dataclass(frozen=True)
class Column:
    """A column's title and its numbers by row key; a row without a number shows a dash."""

    title: str
    values: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)  # standard deviation over seeds
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)  # low and high
    marked: Collection[str] = ()  # rows whose number is set off; a note says what that means
    show: Callable[[float], str] = printed
    show_ends: Callable[[float], str] | None = None  # of intervals; None: as the numbers


@dataclass(frozen=True)
class Cell:
    """A number as printed, what stands below it in small print, and whether it is set off."""

    text: str
    below: str = ""
    marked: bool = False


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
    def paper_number(self) -> str:
        """The paper as printed where nobody can click: '2212.04089', its number at arXiv."""
        return self.paper.removeprefix("https://arxiv.org/abs/").removeprefix("https://")

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

    @property
    def marked(self) -> bool:
        """Whether a cell needs the note about bold numbers."""
        return any(cell.marked for row in self.rows for cell in row.cells)


def make_table(
    rows: Mapping[str, tuple[str, str]], columns: Sequence[Column], needs: bool = False
) -> Table:
    """A table of `rows`: key -> (method, title). `needs`: as in `Table`."""
    return Table(
        columns=tuple(column.title for column in columns),
        rows=tuple(
            Row(method, title, tuple(_cell(column, key) for column in columns))
            for key, (method, title) in rows.items()
        ),
        needs=needs,
    )


def _cell(column: Column, key: str) -> Cell:
    if key not in column.values:
        return Cell(NOTHING)
    text = column.show(column.values[key])
    if key in column.spread:
        text += f" ± {column.show(column.spread[key])}"
    below = ""
    if key in column.intervals:
        show = column.show_ends or column.show
        below = " to ".join(show(end) for end in column.intervals[key])
    return Cell(text, below, key in column.marked)


def by_method(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Rows for `make_table`, one for each method."""
    return {method: (method, METHODS[method].title) for method in methods}


def numbers(figures: Mapping[str, Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """Row key -> what lies under `names`, one within the other, of the rows that have it."""
    found = {}
    for key, row in figures.items():
        value: Any = row
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found[key] = value
    return found
