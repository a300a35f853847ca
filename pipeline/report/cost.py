"""What the methods cost: steps and seconds of learning, seconds of merging, memory."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.content import Content, best_of, is_adamerging
from pipeline.report.tables import Column, Table, by_method, make_table, printed
from pipeline.report.words import duration, inline

LEAST = 0.1  # seconds: less is said to be less
COST_NOTE = (
    "Of the runs that made the files at hand, means over seeds. Learning: gradient steps of "
    "coefficients, beside which nothing is trained; merging: from weights in memory to a model, "
    "statistics of images included. Memory is measured by stage, not by method: see above."
)


def costs(content: Content) -> Iterator[str]:
    """Sentences: what the best model cost, and the best AdaMerging where that is another."""
    best = content.best
    if best is None:
        return
    learned = best_of(content, (m for m in content.methods if is_adamerging(m)))
    for method in dict.fromkeys(m for m in (best, learned) if m):
        parts = [*_learning(content, method), *_merging(content, method)]
        if parts:
            yield f"It took {inline(method)} {' and '.join(parts)}{_where(content, method)}."


def _learning(content: Content, method: str) -> Iterator[str]:
    found = content.learned.get(method)
    if found and found.seconds is not None and found.steps is not None:
        schedule = content.config.profile.learn.schedule
        yield (
            f"{duration(found.seconds)} to learn its coefficients in {found.steps:g} steps "
            f"(schedule {schedule})"
        )


def _merging(content: Content, method: str) -> Iterator[str]:
    seconds = content.merging.get(method)
    if seconds is not None:
        yield f"{duration(seconds) if seconds >= LEAST else f'less than {LEAST} s'} to merge"


def _where(content: Content, method: str) -> str:
    """', on AMD EPYC with 2 cores and no GPU; the stage learn peaked at 1.3 GB of memory'."""
    stage = "learn" if method in content.learned else "merge"
    run: Mapping[str, Any] = next((one for one in content.runs if one["stage"] == stage), {})
    if not run:
        return ""
    machine = run["machine"]
    device = "no GPU" if machine["device"] == "cpu" else machine["device"]
    return (
        f", on {machine['cpu']} with {machine['cores']} cores and {device}; the stage {stage}, "
        f"all methods in turn, peaked at {run['peak_gb']:.1f} GB of memory"
    )


def cost_table(content: Content) -> Table | None:
    """Steps and seconds of every method; None where no stage left a record."""
    steps = {m: one.steps for m, one in content.learned.items() if one.steps is not None}
    seconds = {m: one.seconds for m, one in content.learned.items() if one.seconds is not None}
    columns = [
        Column("Steps learned", steps, show=lambda count: f"{count:g}"),
        Column("Learning, s", seconds, show=printed),
        Column("Merging, s", content.merging, show=lambda value: f"{value:.2f}"),
    ]
    columns = [one for one in columns if one.values]
    methods = [m for m in content.methods if any(m in one.values for one in columns)]
    return make_table(by_method(methods), columns) if columns else None
