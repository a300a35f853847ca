"""How the studies' figures are worded: verdicts, tables, where they come from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.readme import line, machine_text
from pipeline.statistics import Interval

COMMAND = "make study"
NOTHING = "\N{EN DASH}"

Row = Mapping[str, Any]


def clear(found: Row) -> bool:
    """Whether a comparison on the same images has a sign."""
    return Interval(*found["interval"]).clear


def beside(found: Row, other: str) -> str:
    """'2.1 points more accurate than X (95 % interval 1.8 to 2.4)', or that nobody can tell."""
    low, high = found["interval"]
    if not clear(found):
        return f"not to be told from {other} ({low:+.2f} to {high:+.2f} points)"
    word = "more" if found["difference"] > 0 else "less"
    size = abs(found["difference"])
    return f"{size:.2f} points {word} accurate than {other} ({low:+.2f} to {high:+.2f})"


def difference(found: Row | None) -> str:
    """'+2.10 (+1.80 to +2.40)'; a dash where there is nothing to compare."""
    if found is None:
        return NOTHING
    low, high = found["interval"]
    return f"{found['difference']:+.2f} ({low:+.2f} to {high:+.2f})"


def spread(row: Row, name: str = "avg") -> str:
    """'82.0 ± 0.5': mean and standard deviation over seeds, in percent."""
    if row[name] is None:
        return NOTHING
    return f"{row[name]:.1f} ± {row[f'{name}_sd']:.1f}"


def listed(words: Sequence[str]) -> str:
    """'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def seeds(figures: Row) -> str:
    """How many seeds there were."""
    count = len(figures["seeds"])
    return f"{count} seeds" if count > 1 else "one seed"


def origin(figures: Row) -> str:
    """The machines that learning was timed on, and the commit."""
    git = figures["git"]
    commit = "no commit" if git["commit"] is None else f"commit {git['commit'][:10]}"
    dirty = " with uncommitted changes" if git["dirty"] else ""
    machines = "; ".join(machine_text(machine) for machine in figures["machines"])
    return f"Measured on {machines}; {commit}{dirty}." if machines else f"From {commit}{dirty}."


def image(name: str, alt: str) -> str:
    """A figure of docs/images/."""
    return f"![{alt}](images/{name}.png)\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table; the first `left` columns are text."""
    rule = [":--"] * left + ["--:"] * (len(columns) - left)
    return "\n".join(line(cells) for cells in (columns, rule, *rows)) + "\n"


def block(parts: Sequence[str], sentences: Sequence[str]) -> str:
    """A generated block: its parts, with the sentences as a list after the first."""
    said = "".join(f"- {one}\n" for one in sentences)
    first, *rest = [part.rstrip("\n") + "\n" for part in parts]
    return "\n".join([first, *([said] if said else []), *rest])
