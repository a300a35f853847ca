"""The report in plain words: sentences made from the figures, and the few that stand out."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.merging.methods import METHODS
from pipeline.report.comparison import compare
from pipeline.report.content import (
    REFERENCE,
    Content,
    best_of,
    competes,
    is_adamerging,
    one_per_task,
)
from pipeline.report.needs import needs_of
from pipeline.report.tables import adapted_averages, difference, printed, signed, with_pretrained

TUNED = "task_arithmetic_tuned"
# Methods whose titles are ordinary words: inside a sentence these begin with a small letter.
WORDS = ("pretrained", "weight_average", REFERENCE, TUNED, "experts")

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
        *_robust(content),
        *_unseen(content),
    ]


def key_figures(content: Content) -> list[KeyFigure]:
    """Three or four numbers for readers in a hurry."""
    best = content.best
    if best is None:
        return []
    row = content.clean[best]
    found = [KeyFigure(_percent(row["avg"]), f"{METHODS[best].title}, average accuracy")]
    if best != REFERENCE and REFERENCE in content.methods:
        found.append(
            KeyFigure(signed(_gap(content, best, REFERENCE)), "points over task arithmetic")
        )
    if row.get("normalized") is not None:
        found.append(KeyFigure(_percent(row["normalized"]), "of the experts' accuracy"))
    worst = min(content.tasks, key=row["tasks"].__getitem__)
    title = content.task_titles[worst]
    found.append(KeyFigure(_percent(row["tasks"][worst]), f"on its worst task, {title}"))
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
    yield (
        f"Of the single models merged without labels, {_inline(best)} is the best: "
        f"{_percent(row['avg'])} on average over {len(content.tasks)} tasks "
        f"(it needs {' and '.join(words for _, words in needs_of(best))})."
    )
    gains = []
    if best != REFERENCE and REFERENCE in content.methods:
        interval = content.gain
        sure = (
            f" (95 % interval from the evaluation images: {signed(interval.low)} to "
            f"{signed(interval.high)})"
            if interval
            else ""
        )
        gains.append(f"{_points(_gap(content, best, REFERENCE))} task arithmetic{sure}")
    if TUNED in content.methods:
        chosen = content.learned[TUNED].values.mean() if TUNED in content.learned else None
        gains.append(
            f"{_points(_gap(content, best, TUNED))} task arithmetic with its coefficient tuned on "
            "labels" + (f" ({chosen:.2f})" if chosen is not None else "")
        )
    if gains:
        yield f"That is {' and '.join(gains)}."
    if "experts" in content.methods and row.get("normalized") is not None:
        yield (
            f"It keeps {_percent(row['normalized'])} of the accuracy of the experts, one model "
            f"per task, which average {_percent(content.clean['experts']['avg'])}."
        )


def _rivals(content: Content) -> Iterator[str]:
    """The best AdaMerging, where another model is better, and the best that is no single model."""
    best = content.best
    learned = best_of(content, (m for m in content.methods if is_adamerging(m)))
    if best and learned and learned != best:
        yield (
            f"The best AdaMerging, {_inline(learned)}, has "
            f"{_percent(content.clean[learned]['avg'])}: "
            f"{_points(_gap(content, learned, best))} {_inline(best)}."
        )
    others = (m for m in content.methods if one_per_task(m) and m != "experts")
    if other := best_of(content, others):
        yield (
            f"With a part of its own for every task, {_inline(other)} has "
            f"{_percent(content.clean[other]['avg'])}: it needs "
            f"{' and '.join(words for _, words in needs_of(other))}."
        )


def _worst(content: Content) -> Iterator[str]:
    best = content.best
    if best is None:
        return
    tasks = content.clean[best]["tasks"]
    worst = min(content.tasks, key=tasks.__getitem__)
    beside = {REFERENCE: "task arithmetic", "experts": "the task's expert"}
    gaps = [
        f"{_points(difference(tasks[worst], content.clean[method]['tasks'][worst]))} {name}"
        for method, name in beside.items()
        if method in content.methods and method != best
    ]
    yield (
        f"Its worst task is {content.task_titles[worst]} with {_percent(tasks[worst])}"
        + (f", {' and '.join(gaps)}." if gaps else ".")
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


def _robust(content: Content) -> Iterator[str]:
    figures = content.robustness.get("clean", {})
    rivals = [m for m in content.methods if m in figures and competes(m)]
    if not rivals:
        return
    top = max(rivals, key=lambda m: figures[m]["avg"])
    settings = content.config.profile.robustness
    yield (
        f"Under {len(settings.corruptions)} image corruptions, {_inline(top)} is the most accurate "
        f"single model without labels: {_percent(figures[top]['avg'])} on average, against "
        f"{_percent(figures[top]['clean'])} on the same images without corruption."
    )
    averages = adapted_averages(content)
    for method in (m for m in content.methods if f"{m}/adapted" in averages):
        yield (
            f"Learning on the corrupted images themselves brings "
            f"{_inline(method)} to {_percent(averages[f'{method}/adapted'])} at severity "
            f"{settings.adapted.severity}; learned on clean images, it has "
            f"{_percent(averages[method])}."
        )


def _unseen(content: Content) -> Iterator[str]:
    for split, tasks in content.config.profile.generalization.splits.items():
        if split not in content.generalization:
            continue
        figures = with_pretrained(content, split)
        rivals = [m for m in figures if m != "pretrained" and competes(m)]
        if not rivals:
            continue
        top = max(rivals, key=lambda m: figures[m]["unseen"])
        names = " and ".join(content.task_titles[task] for task in tasks.unseen)
        base = figures.get("pretrained")
        yield (
            f"On {names}, when these took no part in the merge, {_inline(top)} "
            + (f"is the best of {len(rivals)} merges with " if len(rivals) > 1 else "has ")
            + _percent(figures[top]["unseen"])
            + (f" (pretrained: {_percent(base['unseen'])})." if base else ".")
        )


def _gap(content: Content, method: str, other: str) -> float:
    return difference(content.clean[method]["avg"], content.clean[other]["avg"])


def _points(gap: float) -> str:
    """'2.1 points above', to be followed by what it is compared with."""
    if gap == 0:
        return "level with"
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"


def _percent(value: float) -> str:
    """A percentage that no line break takes from its sign."""
    return f"{printed(value)}\N{NO-BREAK SPACE}%"


def _inline(method: str) -> str:
    """A method's title inside a sentence: names keep their capitals, ordinary words do not."""
    title = METHODS[method].title
    return title[0].lower() + title[1:] if method in WORDS else title
