"""Which averages in the metrics files moved beyond noise; which of them are gone or new.

A figure's name is its place in the files: `robustness/clean/ties/avg` is the `avg` of `ties` in
the section `clean` of robustness.json. Metrics are given as {file's name: its content}.

The rule. Both runs test the same images, so that what chance does to the one it does to the other.
Where both files hold an average's 95 % interval over images, that of its change is made from the
two with a correlation of one half (Zou 2007, https://doi.org/10.1037/1082-989X.12.4.399), less than
even two merging methods within 5 points of each other have on the same images, whose paired
intervals tests/test_regression.py holds the rule against; for gaps it is assumed. A change is
beyond noise if its interval does not cover zero. An average without an interval may move by an
allowance.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import mean
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.merging.methods import METHODS
from pipeline.statistics import Interval

FILES = ("clean", "robustness", "generalization")

_AVERAGES = ("avg", "seen", "unseen")
_COLUMNS = ("Clean", "Robust", "Unseen")
_CORRELATION = 0.5  # of one average in two runs, over sets of images


@dataclass(frozen=True)
class Average:
    """A mean accuracy over tasks and seeds, in percent.

    `sd`: its standard deviation over seeds; `interval`: of 95 % over images, None if none is held.
    """

    value: float
    sd: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Change:
    """An average's change in points: within `noise`, if that covers zero."""

    points: float
    noise: Interval
    measured: bool  # the noise comes from intervals over images; else it is an allowance

    def __str__(self) -> str:
        if not self.measured:
            return f"{self.points:+.2f}, no interval: allowed {self.noise.high - self.points:.2f}"
        return f"{self.points:+.2f}, 95 % interval {self.noise.low:+.2f} to {self.noise.high:+.2f}"


@dataclass(frozen=True)
class Finding:
    """One average that differs; before and after in percent."""

    name: str
    kind: Literal["fell", "vanished", "rose", "new"]
    before: float = 0.0
    after: float = 0.0
    change: Change | None = None  # of what fell or rose

    @property
    def fails(self) -> bool:
        """Whether the gate must stay shut."""
        return self.kind in ("fell", "vanished")

    def __str__(self) -> str:
        if self.kind == "new":
            return f"{self.name} {self.after:.2f} is new"
        if self.kind == "vanished":
            return f"{self.name} {self.before:.2f} -> vanished"
        return f"{self.name} {self.kind}: {self.before:.2f} -> {self.after:.2f} ({self.change})"


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], max_drop: float = 1.0
) -> list[Finding]:
    """What fell, vanished, rose or is new between two sets of metrics, failures first.

    `max_drop`: percentage points by which an average without an interval may fall, plus twice the
    larger of both standard deviations over seeds (zero with one seed).
    """
    old, new = dict(averages(before)), dict(averages(after))
    findings = [Finding(name, "vanished", old[name].value) for name in old if name not in new]
    for name, moved in changes(before, after, max_drop).items():
        if moved.noise.clear:
            kind: Literal["fell", "rose"] = "fell" if moved.points < 0 else "rose"
            findings.append(Finding(name, kind, old[name].value, new[name].value, moved))
    findings += [Finding(name, "new", after=new[name].value) for name in new if name not in old]
    return sorted(findings, key=lambda finding: not finding.fails)


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], max_drop: float = 1.0
) -> dict[str, Change]:
    """name -> change, of every average that both hold; `max_drop` as in `compare`."""
    old, new = dict(averages(before)), dict(averages(after))
    return {name: _change(old[name], new[name], max_drop) for name in old if name in new}


def _change(was: Average, now: Average, max_drop: float) -> Change:
    points = now.value - was.value
    if was.interval is None or now.interval is None:
        allowed = max_drop + 2 * max(was.sd, now.sd)
        return Change(points, _rounded(points - allowed, points + allowed), measured=False)
    below = _joined(now.value - now.interval.low, was.interval.high - was.value)
    above = _joined(now.interval.high - now.value, was.value - was.interval.low)
    return Change(points, _rounded(points - below, points + above), measured=True)


def _joined(one: float, other: float) -> float:
    """How far the interval of a difference reaches, by how far those of its two sides do."""
    return sqrt(one**2 + other**2 - 2 * _CORRELATION * one * other)


def averages(metrics: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Average]]:
    """(name, average) for every average that metrics hold, at whatever depth.

    Raises `UserError` for one that is no number or lacks what belongs to it.
    """
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from averages(value, f"{path}{key}/")
        elif key in _AVERAGES:
            try:
                found = Average(
                    float(value), float(metrics.get(f"{key}_sd", 0.0)), _interval(metrics, key)
                )
            except (TypeError, ValueError, KeyError) as error:
                raise UserError(
                    f"The metrics are damaged at {path}{key}: run the stage that writes them again."
                ) from error
            yield f"{path}{key}", found


def _interval(row: Mapping[str, Any], key: str) -> Interval | None:
    """Of one average in a method's row. One without width says nothing.

    The interval of `unseen` is that of its gap to the pretrained model, moved: the pretrained
    model is the same in both runs, so that the average changes by what the gap changes by.
    """
    source = "gap" if key == "unseen" else key
    low, high = row.get(f"{source}_interval", (0.0, 0.0))
    if low == high:
        return None
    return Interval(low + row[key] - row[source], high + row[key] - row[source])


def _rounded(low: float, high: float) -> Interval:
    # As the files are: in binary, 71.20 - 70.20 is more than 1.
    return Interval(*Interval(low, high).rounded())


def summary_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """GitHub Markdown: every method's averages now, with their change since `before`."""
    old, new = _by_method(before), _by_method(after)
    lines = ["| Method | " + " | ".join(_COLUMNS) + " |", "| :-- |" + " --: |" * len(_COLUMNS)]
    for method in {**new, **old}:
        title = METHODS[method].title if method in METHODS else method
        was, now = old.get(method, {}), new.get(method, {})
        cells = (_cell(was.get(column), now.get(column)) for column in _COLUMNS)
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _by_method(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """method -> column -> percent. Robust: merged from clean data. Unseen: mean over splits."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, average in averages(metrics):
        match name.split("/"):
            case ["clean", method, "avg"]:
                column = "Clean"
            case ["robustness", "clean", method, "avg"]:
                column = "Robust"
            case ["generalization", _, method, "unseen"]:
                column = "Unseen"
            case _:
                continue
        found.setdefault(method, {}).setdefault(column, []).append(average.value)
    return {
        method: {column: mean(values) for column, values in columns.items()}
        for method, columns in found.items()
    }


def _cell(was: float | None, now: float | None) -> str:
    if now is None:
        return "" if was is None else f"vanished ({was:.2f})"
    return f"{now:.2f} (new)" if was is None else f"{now:.2f} ({now - was:+.2f})"
