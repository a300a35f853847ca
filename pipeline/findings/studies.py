"""Statements about what learning depends on: from the files of `make study`."""

from collections.abc import Callable, Iterable

from pipeline.findings.clean import OURS, TITLE
from pipeline.findings.look import Compared, Look
from pipeline.report.content import REFERENCE
from pipeline.report.tables import signed
from pipeline.report.words import TUNED, inline, listed, percent
from pipeline.statistics import Interval

Outcomes = dict[str, list[str]]
INTERVAL = "95\N{NO-BREAK SPACE}% interval"


def entropy_for_loss(look: Look) -> str | None:
    """Whether entropy stands for the loss."""
    parts, intervals = [], []
    for method in look.names("entropy_loss", "methods"):
        low_high = look("entropy_loss", "methods", method, "images_interval")
        images = look("entropy_loss", "methods", method, "images")
        groups = look("entropy_loss", "methods", method, "groups")
        intervals.append(Interval(*low_high))
        parts.append(
            f"{images:.2f} over images ({INTERVAL} {low_high[0]:.2f} to {low_high[1]:.2f}) and "
            f"{groups:.2f} over groups of images with like entropy for {inline(method)}"
        )
    if not parts:
        return None
    if all(one.low > 0 for one in intervals):
        verdict = "rises with the loss that labels would give"
    elif all(one.high < 0 for one in intervals):
        verdict = "falls where the loss that labels would give rises"
    else:
        verdict = "does not clearly follow the loss that labels would give"
    return f"**Entropy {verdict}.** Spearman's correlation, mean over tasks: {'; '.join(parts)}."


def images_needed(look: Look) -> str | None:
    """How many unlabeled images learning needs."""
    sizes = [size for size in look.names("budget", "rows") if size.isdigit()]
    sizes.sort(key=int)
    if not sizes:
        return None
    gained = {size: _beside(look, "budget", ("rows", size), "before") for size in sizes}
    lost = {size: _beside(look, "budget", ("rows", size), "all") for size in sizes}
    every = look("budget", "all")
    enough = _from(sizes, lambda size: gained[size].of_three("yes", "", "") == "yes")
    same = _from(sizes, lambda size: lost[size].of_three("yes", "", "yes") == "yes")
    verdict = (
        f"With {enough} unlabeled images of each task or more learning clearly helps"
        if enough
        else f"With up to {sizes[-1]} unlabeled images of each task learning does not clearly help"
    )
    rest = (
        f"From {same} on it is not clearly below learning from all {every}."
        if same
        else f"With {sizes[-1]} it is still clearly below learning from all {every}."
    )
    averages = [f"{size}: {percent(look('budget', 'rows', size, 'avg'))}" for size in sizes]
    before, whole = look("budget", "rows", "before", "avg"), look("budget", "rows", "all", "avg")
    return (
        f"**{verdict}.** {rest} Averages by number of images: {', '.join(averages)}, "
        f"all: {percent(whole)}; before learning {percent(before)}."
    )


def _from(sizes: list[str], good: Callable[[str], bool]) -> str:
    """The smallest size from which on all are good; empty if the largest is not."""
    found = ""
    for size in reversed(sizes):
        if not good(size):
            break
        found = size
    return found


def first_values(look: Look) -> str | None:
    """How much the first value of the coefficients matters."""
    values = [value for value in look.names("initial", "rows") if value != "0.3"]
    if not values or not look.has("initial", "rows", "0.3"):
        return None
    outcomes = _grouped(
        (value, _beside(look, "initial", ("rows", value), "0.3")) for value in values
    )
    averages = [
        f"{value}: {percent(look('initial', 'rows', value, 'avg'))}"
        for value in look.names("initial", "rows")
    ]
    if not outcomes["above"] and not outcomes["below"]:
        verdict = "The first value of the coefficients makes no clear difference"
    elif outcomes["above"]:
        verdict = f"Starting at {listed(outcomes['above'])} is clearly better than at 0.3"
    else:
        verdict = f"Starting at {listed(outcomes['below'])} is clearly worse than at 0.3"
    return f"**{verdict}.** {_rest(outcomes, '0.3')} Averages: {', '.join(averages)}."


def finer_coefficients(look: Look) -> str | None:
    """What finer coefficients are worth."""
    if not all(look.has("granularity", "rows", name) for name in ("task", "block", "layer")):
        return None
    layer = _beside(look, "granularity", ("rows", "layer"), "task")
    block = _beside(look, "granularity", ("rows", "block"), "task")
    top = _beside(look, "granularity", ("rows", "layer"), "block")
    verdict = layer.of_three(
        "One coefficient a tensor is better than one a task",
        "One coefficient a tensor is worse than one a task",
        "One coefficient a tensor is not clearly different from one a task",
    )
    return (
        f"**{verdict}.** Layer-wise is {layer.than('task-wise')} and {top.than('block-wise')}; "
        f"block-wise is {block.than('task-wise')}."
    )


def numbers_of_tasks(look: Look) -> str | None:
    """Whether the gain over task arithmetic holds for 2, 3, ... tasks."""
    counts = look.names("tasks", "counts")
    if not counts:
        return None
    sentences, verdict = [], ""
    for other in (REFERENCE, TUNED):
        found = {count: _beside(look, "tasks", ("counts", count, OURS), other) for count in counts}
        outcomes = _grouped(found.items())
        gaps = ", ".join(f"{count}: {signed(one.gap)}" for count, one in found.items())
        if not verdict:
            above, below = outcomes["above"], outcomes["below"]
            verdict = (
                f"at every number of tasks from {counts[0]} to {counts[-1]}"
                if len(above) == len(counts)
                else f"at {listed(above)} tasks"
                if above
                else "at no number of tasks"
            )
            verdict += f", and clearly below it at {listed(below)}" if below else ""
        sentences.append(f"Points beside {inline(other)}: {gaps}. {_rest(outcomes, inline(other))}")
    return f"**{TITLE} is clearly above task arithmetic {verdict}.** {' '.join(sentences)}"


def label_free_selection(look: Look) -> str | None:
    """Whether choices without labels help."""
    choices = look.names("selection", "choices")
    if not choices:
        return None
    sentences, gains = [], 0
    free = ("entropy", "infomax", "snd")
    for choice in choices:
        words = (
            f"which step of {inline(choice.removeprefix('step/'))} to stop at"
            if choice.startswith("step/")
            else "which variant to take"
        )
        each = []
        for name in free:
            one = _beside(look, "selection", ("choices", choice, "rows", name), "none")
            gains += one.of_three("gain", "", "") == "gain"
            each.append(f"by {NAMES[name]} it is {one.than('choosing nothing')}")
        best = _beside(look, "selection", ("choices", choice, "rows", "oracle"), "none")
        sentences.append(f"For {words}: {'; '.join(each)}. The oracle is {best.than('that')}.")
    total = len(free) * len(choices)
    verdict = (
        "Choosing without labels does not clearly help"
        if gains == 0
        else f"Choosing without labels clearly helps in {gains} of {total} cases"
    )
    return f"**{verdict}.** {' '.join(sentences)}"


NAMES = {"entropy": "the lowest entropy", "infomax": "InfoMax", "snd": "SND"}


def _beside(look: Look, file: str, place: tuple[str, ...], other: str) -> Compared:
    """A row's entry of `beside`; made of metrics as `pipeline.statistics` writes them."""
    found = look(file, *place, "beside", other)
    interval = Interval(*found["interval"])
    return Compared(round(found["difference"], 1) + 0.0, interval)


def _grouped(found: Iterable[tuple[str, Compared]]) -> Outcomes:
    outcomes: Outcomes = {"above": [], "below": [], "same": []}
    for name, one in found:
        outcomes[one.of_three("above", "below", "same")].append(name)
    return outcomes


def _rest(outcomes: Outcomes, other: str) -> str:
    """'Clearly above X: 4, 5. Clearly below: none. No clear difference: 2, 3.'"""
    words = {
        "above": f"Clearly above {other}",
        "below": "clearly below",
        "same": "no clear difference",
    }
    return "; ".join(f"{words[k]}: {', '.join(v) or 'none'}" for k, v in outcomes.items()) + "."
