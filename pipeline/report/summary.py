"""The report in plain words: sentences made from the figures, and the few that stand out."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.merging.methods import METHODS
from pipeline.report import beyond, clear
from pipeline.report.comparison import compare
from pipeline.report.content import (
    REFERENCE,
    Content,
    best_of,
    competes,
    is_adamerging,
    one_per_task,
)
from pipeline.report.cost import costs
from pipeline.report.needs import needs_of
from pipeline.report.tables import difference, signed
from pipeline.report.words import TUNED, beside, inline, percent, points

MINIATURE = (
    "This is a miniature: drawn tasks of 32-pixel images and a very small CLIP. It shows how the "
    "methods behave; its figures are not comparable with published ones."
)


@dataclass(frozen=True)
class KeyFigure:
    """A number that stands out, and what it is."""

    number: str
    meaning: str


def sentences(content: Content) -> list[str]:
    """What was found, best news and bad news alike, in the order of the page."""
    return [
        *_published(content),
        *_best(content),
        *_rivals(content),
        *_worst(content),
        *beyond.robust(content),
        *beyond.unseen(content),
        *costs(content),
    ]


def key_figures(content: Content) -> list[KeyFigure]:
    """Three or four numbers for readers in a hurry."""
    best = content.best
    if best is None:
        return []
    row = content.clean[best]
    found = [KeyFigure(percent(row["avg"]), f"{METHODS[best].title}, average accuracy")]
    if best != REFERENCE and REFERENCE in content.methods:
        unclear = content.gain is not None and not content.gain.clear
        found.append(
            KeyFigure(
                signed(_gap(content, best, REFERENCE)),
                "points over task arithmetic" + ", no clear difference" * unclear,
            )
        )
    if row.get("normalized") is not None:
        found.append(KeyFigure(percent(row["normalized"]), "of the experts' accuracy"))
    worst = content.worst(best)
    title = content.task_titles[worst]
    found.append(KeyFigure(percent(row["tasks"][worst]), f"on its worst task, {title}"))
    return found


def setting(content: Content) -> str:
    """Which images methods read, and which the figures come from."""
    if content.config.profile.protocol == "transductive":
        return (
            "Protocol: transductive. Methods that need images read the evaluation images "
            "themselves, without labels, as in the AdaMerging paper."
        )
    return (
        "Protocol: inductive. Methods that need images read unlabeled ones (adapt) apart from "
        "those that the figures come from (eval)."
    )


def _published(content: Content) -> Iterator[str]:
    """First of all, whether the figures can be trusted."""
    comparison = compare(content)
    if comparison and comparison.verdict:
        yield comparison.verdict


def _best(content: Content) -> Iterator[str]:
    best = content.best
    if best is None:
        return
    row = content.clean[best]
    level = clear.level(content.clean, filter(competes, content.methods))
    others = [method for method in level if method != best]
    alone = " Every other one is clearly below it." if level == (best,) else ""
    yield (
        f"Of the single models merged without labels, {inline(best)} has the highest average: "
        f"{percent(row['avg'])} over {len(content.tasks)} tasks "
        f"(it needs {' and '.join(words for _, words in needs_of(best))})."
        + (beyond.no_clear_difference(others) or alone)
    )
    gains = []
    if best != REFERENCE and REFERENCE in content.methods:
        gains.append(_beside(content, best, REFERENCE))
    if TUNED in content.methods:
        chosen = content.learned[TUNED].values.mean() if TUNED in content.learned else None
        words = "task arithmetic with its coefficient tuned on labels"
        gains.append(
            _beside(content, best, TUNED, words + (f", {chosen:.2f}" if chosen is not None else ""))
        )
    if gains:
        yield f"It is {' and '.join(gains)}."
    if "experts" in content.methods and row.get("normalized") is not None:
        yield (
            f"It keeps {percent(row['normalized'])} of the accuracy of the experts, one model "
            f"per task, which average {percent(content.clean['experts']['avg'])}."
        )


def _rivals(content: Content) -> Iterator[str]:
    """The best AdaMerging, where another model is better, and the best that is no single model."""
    best = content.best
    learned = best_of(content, (m for m in content.methods if is_adamerging(m)))
    if best and learned and learned != best:
        yield (
            f"The best AdaMerging, {inline(learned)}, has "
            f"{percent(content.clean[learned]['avg'])}: {_beside(content, learned, best)}."
        )
    others = (m for m in content.methods if one_per_task(m) and m != "experts")
    if other := best_of(content, others):
        yield (
            f"With a part of its own for every task, {inline(other)} has "
            f"{percent(content.clean[other]['avg'])}: it needs "
            f"{' and '.join(words for _, words in needs_of(other))}."
        )


def _worst(content: Content) -> Iterator[str]:
    best = content.best
    if best is None:
        return
    tasks, worst = content.clean[best]["tasks"], content.worst(best)
    beside = {REFERENCE: "task arithmetic", "experts": "the task's expert"}
    gaps = [
        f"{points(difference(tasks[worst], content.clean[method]['tasks'][worst]))} {name}"
        for method, name in beside.items()
        if method in content.methods and method != best
    ]
    yield (
        f"The worst task of {inline(best)} is {content.task_titles[worst]} with "
        f"{percent(tasks[worst])}" + (f", {' and '.join(gaps)}." if gaps else ".")
    )
    if best != REFERENCE and REFERENCE in content.methods:
        theirs = content.clean[REFERENCE]["tasks"]
        change = {task: difference(tasks[task], theirs[task]) for task in content.tasks}
        lost = sorted((t for t in content.tasks if change[t] < 0), key=change.__getitem__)
        named = ", ".join(f"{content.task_titles[t]} ({signed(change[t])})" for t in lost)
        won = sum(gain > 0 for gain in change.values())
        yield (
            f"Against task arithmetic it gains on {won} of {len(content.tasks)} tasks"
            + (f" and loses on {named}." if lost else " and loses on none.")
        )


def _gap(content: Content, method: str, other: str) -> float:
    return difference(content.clean[method]["avg"], content.clean[other]["avg"])


def _beside(content: Content, method: str, other: str, words: str = "") -> str:
    """A method's average beside another's, which is called `words`, or by its title."""
    interval = clear.beside(content.clean, method, other)
    return beside(_gap(content, method, other), interval, words or inline(other))
