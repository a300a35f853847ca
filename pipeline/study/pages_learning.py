"""Studies of what learning depends on, told: budget, initial, granularity, tasks."""

from collections.abc import Callable
from itertools import takewhile

from pipeline.merging.methods import METHODS
from pipeline.study.budget import ALL
from pipeline.study.granularity import METHODS as OF
from pipeline.study.initial import PUBLISHED
from pipeline.study.tasks import BESIDE, LEARNED, STUDIED, TUNED, UNIFORM
from pipeline.study.variants import BEFORE
from pipeline.study.words import (
    NOTHING,
    Row,
    beside,
    block,
    clear,
    difference,
    image,
    listed,
    origin,
    seeds,
    spread,
    table,
)

LAYERWISE = METHODS["adamerging_layerwise"].title
NOTE = (
    "Accuracy in percent on `eval`, ± standard deviation over seeds; differences in points, with a "
    "95 % interval over images. Where an interval covers zero, nothing is ranked. Entropy in nats, "
    "summed over tasks."
)


def _note(figures: Row, what: str) -> str:
    return f"{what}, schedule `fast`, {seeds(figures)}. {NOTE} {origin(figures)}"


def _learning(row: Row) -> list[str]:
    """Entropy, steps, time and collapsed tasks of a row."""
    if "steps" not in row:
        return [f"{row['entropy']:.3f}", NOTHING, NOTHING, NOTHING]
    collapsed = ", ".join(row["collapsed"]) or "none"
    return [f"{row['entropy']:.3f}", f"{row['steps']:g}", f"{row['seconds']:.1f} s", collapsed]


_LEARNING = ["Entropy", "Steps", "Time", "Collapsed"]


# ---- Number of unlabeled images


def budget_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    rows, total = figures["rows"], figures["all"]
    sizes = [name for name in rows if name not in (BEFORE, ALL)]
    before = "not learning at all"
    said = [
        f"{LAYERWISE} on all {total} images of each task: "
        f"{beside(rows[ALL]['beside'][BEFORE], before)}."
    ]
    if sizes:
        found = beside(rows[sizes[0]]["beside"][BEFORE], before)
        said.append(f"On {_images(sizes[0])} of each task: {found}.")
    # A size counts only if it holds for all larger ones as well.
    gains = list(takewhile(lambda name: _above_before(rows[name]), reversed(sizes)))
    enough = list(takewhile(lambda name: not _below_all(rows[name]), reversed(sizes)))
    if gains:
        said.append(f"Learning helps from {_images(gains[-1])} of each task on.")
    if enough:
        found = beside(rows[enough[-1]]["beside"][ALL], f"learning on all {total}")
        said.append(f"No loss can be seen from {_images(enough[-1])} on: {found}.")
    elif sizes:
        found = beside(rows[sizes[-1]]["beside"][ALL], f"learning on all {total}")
        said.append(f"Even {_images(sizes[-1])} are too few: {found}.")
    return said


def _images(size: str) -> str:
    return f"{size} image" if size == "1" else f"{size} images"


def _below_all(row: Row) -> bool:
    found = row["beside"][ALL]
    return clear(found) and found["difference"] < 0


def _above_before(row: Row) -> bool:
    found = row["beside"][BEFORE]
    return clear(found) and found["difference"] > 0


def budget(figures: Row) -> str:
    """Figure, sentences, table."""
    titles = {BEFORE: "0 (before learning)", ALL: f"all {figures['all']}"}
    cells = (
        [
            titles.get(name, name),
            spread(row),
            difference(row["beside"].get(BEFORE)),
            difference(row["beside"].get(ALL)),
            *_learning(row),
        ]
        for name, row in figures["rows"].items()
    )
    columns = ["Images of each task", "Accuracy", "Above no learning", "Above all images"]
    alt = (
        "Accuracy against the number of unlabeled images of each task, with the standard deviation"
    )
    return block(
        [
            image("study_budget", alt),
            table([*columns, *_LEARNING], cells, 1),
            _note(figures, f"{LAYERWISE}; images drawn without a look at their classes"),
        ],
        budget_sentences(figures),
    )


# ---- First value


def initial_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    rows = figures["rows"]
    starts = [row["start"]["avg"] for row in rows.values()]
    ends = [row["avg"] for row in rows.values()]
    said = [
        f"From {listed(list(rows))}, accuracies lie within {max(starts) - min(starts):.1f} points "
        f"before learning and within {max(ends) - min(ends):.1f} after it."
    ]
    others = {name: row["beside"][PUBLISHED] for name, row in rows.items() if name != PUBLISHED}
    words = {
        "More accurate than from": [
            n for n, f in others.items() if clear(f) and f["difference"] > 0
        ],
        "Less accurate than from": [
            n for n, f in others.items() if clear(f) and f["difference"] < 0
        ],
        "Not to be told from": [n for n, f in others.items() if not clear(f)],
    }
    said += [
        f"{word} {PUBLISHED}, the published value: {listed(names)}."
        for word, names in words.items()
        if names
    ]
    return said


def initial(figures: Row) -> str:
    """Figure, sentences, table."""
    cells = (
        [
            name,
            spread(row["start"]),
            spread(row),
            difference(row["beside"].get(PUBLISHED)),
            *_learning(row),
        ]
        for name, row in figures["rows"].items()
    )
    columns = ["First value", "Before learning", "After", f"Above {PUBLISHED}"]
    alt = "Accuracy before and after learning against the first value of the coefficients"
    return block(
        [
            image("study_initial", alt),
            table([*columns, *_LEARNING], cells, 1),
            _note(figures, LAYERWISE),
        ],
        initial_sentences(figures),
    )


# ---- Granularity

_GRAINS = {"task": "one per task", "block": "one per block", "layer": "one per tensor"}


def granularity_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    rows, names = figures["rows"], [BEFORE, *OF]
    titles = {BEFORE: "task arithmetic, which it starts from", **_GRAINS}
    return [
        f"Coefficients {_GRAINS[name]} and task: {beside(rows[name]['beside'][other], of)}."
        if name != "task"
        else f"One coefficient per task: {beside(rows[name]['beside'][other], of)}."
        for name, other in zip(names[1:], names, strict=False)
        for of in [titles[other]]
    ]


def granularity(figures: Row) -> str:
    """Figure, sentences, table."""
    titles = {BEFORE: "none (before learning)"}
    cells = (
        [
            titles.get(name, METHODS[OF[name]].title if name in OF else name),
            f"{row['coefficients']:,}" if "coefficients" in row else NOTHING,
            spread(row),
            *(difference(row["beside"].get(other)) for other in (BEFORE, "task", "block")),
            *_learning(row),
        ]
        for name, row in figures["rows"].items()
    )
    columns = ["Learned", "Coefficients", "Accuracy"]
    columns += ["Above no learning", "Above task-wise", "Above block-wise"]
    alt = "Accuracy of task-wise, block-wise and layer-wise coefficients, seed by seed"
    return block(
        [
            image("study_granularity", alt),
            table([*columns, *_LEARNING], cells, 1),
            _note(figures, "AdaMerging"),
        ],
        granularity_sentences(figures),
    )


# ---- Number of tasks


def tasks_sentences(figures: Row) -> list[str]:
    """What holds, each in one sentence."""
    counts = figures["counts"]
    fewest, most = min(counts, key=int), max(counts, key=int)
    said = []
    for method in STUDIED:
        ends = [counts[count][method]["normalized"] for count in (fewest, most)]
        if None not in ends and fewest != most:
            said.append(
                f"{METHODS[method].title}: {ends[0]:.1f} % of the experts' accuracy with {fewest} "
                f"tasks, {ends[1]:.1f} % with {most}."
            )
    for method in LEARNED:
        for other in BESIDE:
            said.append(_compared(counts, method, other))
    return said


def _compared(counts: Row, method: str, other: str) -> str:
    """With which numbers of tasks a method is above another."""
    found = {count: rows[method]["beside"][other] for count, rows in counts.items()}
    words: dict[str, list[str]] = {"more accurate with": [], "less with": [], "no telling with": []}
    for count, one in found.items():
        place = 2 if not clear(one) else int(one["difference"] < 0)
        list(words.values())[place].append(count)
    told = "; ".join(f"{word} {listed(names)}" for word, names in words.items() if names)
    return f"{METHODS[method].title} beside {METHODS[other].title}: {told} tasks."


def tasks(figures: Row) -> str:
    """Figure, sentences, tables."""
    counts: Row = figures["counts"]
    shares = (
        [count, *(spread(rows[method], "normalized") for method in STUDIED)]
        for count, rows in counts.items()
    )
    pairs = [(method, other) for method in LEARNED for other in BESIDE]
    gaps = (
        [count, *(difference(rows[method]["beside"][other]) for method, other in pairs)]
        for count, rows in counts.items()
    )
    alt = "Accuracy normalised by the experts against the number of tasks, for each method"
    short = {UNIFORM: "task arithmetic", TUNED: "the tuned one"}
    titles = [f"{METHODS[method].title} above {short[other]}" for method, other in pairs]
    note = (
        f"{METHODS[UNIFORM].title} with coefficient 0.3; the tuned one chose its coefficient by "
        "the labels of `select` †. First table: accuracy as a share of the experts', mean over "
        "tasks, in percent. Second: differences in points of accuracy. Which tasks there are is "
        "drawn by the seed, each set a part of the next."
    )
    return block(
        [
            image("study_tasks", alt),
            table(["Tasks", *(METHODS[m].title + " †" * (m == TUNED) for m in STUDIED)], shares, 1),
            table(["Tasks", *titles], gaps, 1),
            f"{note} {_note(figures, 'AdaMerging')}",
        ],
        tasks_sentences(figures),
    )


SENTENCES: dict[str, Callable[[Row], list[str]]] = {
    "budget": budget_sentences,
    "initial": initial_sentences,
    "granularity": granularity_sentences,
    "tasks": tasks_sentences,
}
TOLD: dict[str, Callable[[Row], str]] = {
    "budget": budget,
    "initial": initial,
    "granularity": granularity,
    "tasks": tasks,
}
