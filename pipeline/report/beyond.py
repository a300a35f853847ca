"""The summary's sentences about corrupted images and unseen tasks."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.clear import level_corrupted, paired
from pipeline.report.content import Content, competes
from pipeline.report.corrupted import CLEAN, LEARNED_ON, adapted_figures
from pipeline.report.tables import difference, signed
from pipeline.report.unseen import outcomes, over_pairs, with_pretrained
from pipeline.report.words import inline, listed, named, percent


def robust(content: Content) -> Iterator[str]:
    """Who does best on corrupted images, and what adapting to them changes."""
    figures = content.robustness.get("clean", {})
    rivals = [m for m in content.methods if m in figures and competes(m)]
    if not rivals:
        return
    top = max(rivals, key=lambda m: figures[m]["avg"])
    settings = content.config.profile.robustness
    yield (
        f"Under {len(settings.corruptions)} image corruptions, {inline(top)} has the highest "
        f"accuracy of the single models without labels: {percent(figures[top]['avg'])} on average, "
        f"against {percent(figures[top]['clean'])} on the same images without corruption."
        + no_clear_difference([m for m in level_corrupted(figures, rivals) if m != top])
    )
    found = adapted_figures(content)
    for method in dict.fromkeys(method for method, _ in found):
        before = found.get((method, CLEAN))
        conditions = [c for m, c in found if m == method and c != CLEAN]
        if before is None or not conditions:
            continue
        changes = [
            f"on {LEARNED_ON.get(c, c)} {_changed(found[method, c], before)}" for c in conditions
        ]
        yield (
            f"At severity {settings.adapted.severity}, {inline(method)} learned on clean images "
            f"has {percent(before['avg'])}; learned {listed(changes)}."
        )


def _changed(row: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """'63.1 % (+2.5 points)'; what the corruptions cannot tell apart is said to be alike."""
    interval = paired(row["corruptions"], before["corruptions"])
    gap = difference(row["avg"], before["avg"])
    if interval is not None and not interval.clear:
        return f"{percent(row['avg'])} (no clear difference)"
    return f"{percent(row['avg'])} ({signed(gap)} points)"


def unseen(content: Content) -> Iterator[str]:
    """Where merging gains and where it loses on tasks that took no part in it."""
    for split, tasks in content.config.profile.generalization.splits.items():
        if split not in content.generalization:
            continue
        figures = with_pretrained(content, split)
        names = " and ".join(content.task_titles[task] for task in tasks.unseen)
        if said := _against_pretrained(figures):
            base = figures.get("pretrained")
            start = f" ({percent(base['unseen'])})" if base else ""
            yield f"On {names}, unseen in the merge, beside the pretrained model{start}: {said}."
    figures = over_pairs(content)
    if said := _against_pretrained(figures):
        count = next(iter(figures.values()))["pairs"]
        yield f"Over all {count} pairs of unseen tasks, beside the pretrained model: {said}."


def _against_pretrained(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """'A (+3.1) gains; B (-8.0) loses; no clear difference: C (+0.1)'; empty without intervals."""
    parts = []
    for outcome, methods in outcomes(figures).items():
        if not methods:
            continue
        words = listed([f"{inline(m)} ({signed(figures[m]['gap'])})" for m in methods])
        verb = outcome if len(methods) == 1 else outcome.removesuffix("s")
        unclear = outcome == "unclear"
        parts.append(f"no clear difference: {words}" if unclear else f"{words} {verb}")
    return "; ".join(parts)


def no_clear_difference(others: list[str]) -> str:
    """A sentence about methods that are level with the one before; empty if there are none."""
    if not others:
        return ""
    return f" No clear difference to it: {named(others)}."
