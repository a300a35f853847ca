"""Which averages in the metrics files fell, by more than seeds explain; which are gone or new.

A figure's name is its place in the files: `robustness/clean/ties/avg` is the `avg` of `ties` in
the section `clean` of robustness.json. Metrics are given as {file's name: its content}.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from pipeline.merging.methods import METHODS

FILES = ("clean", "robustness", "generalization")

_AVERAGES = ("avg", "seen", "unseen")
_COLUMNS = ("Clean", "Robust", "Unseen")


@dataclass(frozen=True)
class Average:
    """A mean accuracy over tasks and seeds, and its standard deviation over seeds, in percent."""

    value: float
    sd: float


@dataclass(frozen=True)
class Finding:
    """One average that differs; before and after in percent, allowed in percentage points."""

    name: str
    kind: Literal["fell", "vanished", "new"]
    before: float = 0.0
    after: float = 0.0
    allowed: float = 0.0

    @property
    def fails(self) -> bool:
        """Whether the gate must stay shut."""
        return self.kind != "new"

    def __str__(self) -> str:
        if self.kind == "new":
            return f"{self.name} {self.after:.2f} is new"
        if self.kind == "vanished":
            return f"{self.name} {self.before:.2f} -> vanished"
        change = f"{self.after - self.before:+.2f}, allowed {self.allowed:.2f}"
        return f"{self.name} {self.before:.2f} -> {self.after:.2f} ({change})"


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], max_drop: float = 1.0
) -> list[Finding]:
    """Averages that fell, vanished or are new between two sets of metrics.

    A fall is allowed up to `max_drop` percentage points plus twice the larger of both standard
    deviations over seeds (zero with one seed). A rise is no finding.
    """
    old, new = dict(averages(before)), dict(averages(after))
    findings = []
    for name, was in old.items():
        if name not in new:
            findings.append(Finding(name, "vanished", before=was.value))
            continue
        allowed = max_drop + 2 * max(was.sd, new[name].sd)
        # Rounded, as the files are: in binary, 71.20 - 70.20 is more than 1.
        if round(was.value - new[name].value, 2) > round(allowed, 2):
            findings.append(Finding(name, "fell", was.value, new[name].value, allowed))
    added = (name for name in new if name not in old)
    return [*findings, *(Finding(name, "new", after=new[name].value) for name in added)]


def averages(metrics: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Average]]:
    """(name, average) for every average that metrics hold, at whatever depth."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from averages(value, f"{path}{key}/")
        elif key in _AVERAGES:
            yield f"{path}{key}", Average(value, metrics.get(f"{key}_sd", 0.0))


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
