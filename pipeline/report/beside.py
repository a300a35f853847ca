"""Our figures beside published ones: pairs, tables of pairs, and what they say together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.config import Config
from pipeline.merging.methods import METHODS
from pipeline.report.comparability import other_settings
from pipeline.report.content import one_per_task
from pipeline.report.tables import difference, printed, signed

# Largest difference in points that rounding, libraries and hardware explain.
EXACT = 0.3  # of models that no image had part in
LEARNED = 1.0  # of the others: other images, in another order
EVALUATOR = ("experts", "pretrained")  # nothing was merged: they show whether evaluation agrees

ABOVE, BELOW = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"


@dataclass(frozen=True)
class Pair:
    """Our figure and the published one, in percent."""

    ours: float
    theirs: float
    tolerance: float | None  # in points; None: other settings made it, so nothing is flagged

    @property
    def difference(self) -> float:
        """Ours minus theirs in points, both as printed."""
        return difference(self.ours, self.theirs)

    @property
    def outside(self) -> bool:
        """Whether they differ by more than the tolerance."""
        return self.tolerance is not None and abs(self.difference) > self.tolerance

    @property
    def mark(self) -> str:
        """A sign where they do, so that colour is not the only one."""
        return (ABOVE if self.difference > 0 else BELOW) if self.outside else ""

    @property
    def meaning(self) -> str:
        """What the mark says, in words."""
        side = "above" if self.difference > 0 else "below"
        return f"{abs(self.difference):.1f} points {side} the published figure"

    @property
    def text(self) -> str:
        """'75.3 (+0.3)'."""
        return f"{printed(self.ours)} ({signed(self.difference)})"

    @property
    def below(self) -> str:
        """The published figure."""
        return printed(self.theirs)


@dataclass(frozen=True)
class Line:
    """A method's pairs under a table's columns."""

    method: str
    pairs: tuple[Pair, ...]
    other_settings: tuple[str, ...] = ()  # how the profile differs from the published run

    @property
    def title(self) -> str:
        """How the method is printed."""
        return METHODS[self.method].title

    @property
    def paper(self) -> str:
        """Where the method is described."""
        return METHODS[self.method].paper


def line_of(config: Config, method: str, figures: Iterable[tuple[float, float]]) -> Line:
    """A method's line from (ours, theirs), flagged only where the settings are the published."""
    other = other_settings(config, method)
    tolerance = LEARNED if METHODS[method].reads("images") else EXACT
    pairs = (Pair(ours, theirs, None if other else tolerance) for ours, theirs in figures)
    return Line(method, tuple(pairs), other)


Flagged = tuple[Line, str, Pair]  # a pair with its line and the title of its column


@dataclass(frozen=True)
class Beside:
    """A table: lines under the titles of their columns."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def groups(self) -> tuple[tuple[Line, ...], ...]:
        """The lines that check the evaluator, the merged models, and what is no single model."""
        first = tuple(line for name in EVALUATOR for line in self.lines if line.method == name)
        merged = [line for line in self.lines if line.method not in EVALUATOR]
        single = tuple(line for line in merged if not one_per_task(line.method))
        others = tuple(line for line in merged if one_per_task(line.method))
        return tuple(group for group in (first, single, others) if group)

    @property
    def compared(self) -> tuple[Flagged, ...]:
        """All pairs that a tolerance applies to."""
        return tuple(
            (line, column, pair)
            for group in self.groups
            for line in group
            for column, pair in zip(self.columns, line.pairs, strict=True)
            if pair.tolerance is not None
        )


@dataclass(frozen=True)
class Elsewhere:
    """Published averages of methods that the profile does not run."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]  # title of the method, its cells


@dataclass(frozen=True)
class Comparison:
    """The report's section of published figures, or one sentence that says why there is none."""

    absence: str | None = None
    clean: Beside | None = None
    splits: Mapping[str, Beside] = field(default_factory=dict)  # titles of unseen tasks -> table
    corrupted: Beside | None = None
    elsewhere: Elsewhere | None = None
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def verdict(self) -> str | None:
        """Whether the evaluator agrees with the published one and, if so, how many figures do."""
        compared = self.clean.compared if self.clean else ()
        outside = [one for one in compared if one[2].outside]
        if wrong := [one for one in outside if one[0].method in EVALUATOR]:
            return (
                f"The evaluator disagrees with the published one on {_named(wrong)}: do not trust "
                "the tables before that is explained."
            )
        if not compared:
            return None
        return (
            f"{len(compared) - len(outside)} of {len(compared)} figures agree with the published "
            "ones of the same checkpoints"
            + (f"; outside the tolerance: {_named(outside)}." if outside else ".")
        )


def _named(found: Sequence[Flagged]) -> str:
    """'Cars (experts +0.9, pretrained +0.5), DTD (experts -0.4)'."""
    columns: dict[str, list[str]] = {}
    for line, column, pair in found:
        name = line.method if line.method in EVALUATOR else line.title
        columns.setdefault(column, []).append(f"{name} {signed(pair.difference)}")
    return ", ".join(f"{column} ({', '.join(names)})" for column, names in columns.items())
