"""The studies in words and tables: the generated blocks of docs/learning.md and README.md.

Those of docs/studies.md come from `pages_learning` and `pages_methods`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.learning.objectives import OBJECTIVES
from pipeline.learning.schedules import SCHEDULES
from pipeline.merging.methods import METHODS
from pipeline.study import pages_learning, pages_methods
from pipeline.study.objectives import PLAIN
from pipeline.study.schedules import RATIOS, REFERENCE, RIVAL
from pipeline.study.words import COMMAND, NOTHING, image, origin, seeds, table

Row = Mapping[str, Any]

AS_GOOD = "as good, in entropy and accuracy, as"
# Study -> its block of docs/studies.md.
TOLD: dict[str, Callable[[Row], str]] = {**pages_learning.TOLD, **pages_methods.TOLD}
FIGURES = {
    "learning_schedules": "Accuracy and entropy against seconds of learning, for both schedules",
    "learning_objectives": "Accuracy of every objective above that of entropy, with 95 % intervals",
}


def study_blocks(layout: Layout) -> dict[str, str | None]:
    """Block -> its text, None where the study has not run."""
    blocks: dict[str, str | None] = {
        "schedules": schedules_block(),
        "objectives": objectives_block(),
    }
    for metric, made in (
        ("schedules", {"schedules-sentence": sentence, "schedules-study": schedules_study}),
        ("objectives", {"objectives-study": objectives_study}),
    ):
        path = layout.metric(metric)
        figures = read_json(path, COMMAND) if path.exists() else None
        blocks |= {name: make(figures) if figures else None for name, make in made.items()}
    for name, tell in TOLD.items():
        path = layout.metric(name)
        blocks[f"{name}-study"] = tell(read_json(path, COMMAND)) if path.exists() else None
    return blocks


def schedules_block() -> str:
    """What schedules there are."""
    rows = (
        [f"`{name}`", one.summary, str(one.steps), f"{one.lr:g}"] for name, one in SCHEDULES.items()
    )
    return table(["Schedule", "What it is", "Steps at most", "Rate"], rows, 2)


def objectives_block() -> str:
    """What objectives there are."""
    rows = (
        [
            f"`{name}`",
            one.summary,
            "the experts' weights" if one.needs == "experts" else NOTHING,
            f"[{one.paper.rpartition('/')[2]}]({one.paper})",
        ]
        for name, one in OBJECTIVES.items()
    )
    return table(["Objective", "What is minimised", "Needs besides", "Paper"], rows, 4)


# ---- Schedules


def sentence(figures: Row) -> str:
    """What comes of the fast schedule, in a few sentences."""
    opening = f"On the miniature, over {seeds(figures)}. "
    return opening + " ".join(_reached(m, row) for m, row in figures["methods"].items()) + "\n"


def _reached(method: str, row: Row) -> str:
    mean, title = row["mean"], METHODS[method].title
    published = f"the {_steps(mean[REFERENCE]['end'])} of `{REFERENCE}`"
    gap = mean["gap"]["accuracy"]
    end = (
        f"It ends after {_steps(mean[RIVAL]['end'])}, with "
        f"{_compared(gap, 'accuracy', 'points', 2)}."
    )
    ratio, good = mean["ratios"]["end_to_good"], mean[RIVAL]["good"]
    if good is None:
        reached = f"{mean[RIVAL]['reached']} of {len(row['seeds'])} seeds"
        return f"{title}: `{RIVAL}` comes to be {AS_GOOD} {published} on {reached}. {end}"
    text = f"{title}: `{RIVAL}` is {AS_GOOD} {published} after {_steps(good)}"
    if ratio["steps"] is not None:
        text += f": {ratio['steps']:.1f} times fewer steps, {ratio['seconds']:.1f} times less time"
    return f"{text}. {end}"


def schedules_study(figures: Row) -> str:
    """Figure, tables and how to read them."""
    rows = list(_by_seed(figures))
    noise = f"{figures['noise_standard_errors']:g} standard errors"
    note = (
        f"As good: from this snapshot on, the entropy of {figures['unlabeled_images']} unlabeled "
        f"images a task is no higher, and the accuracy on {figures['eval_images']} other images a "
        f"task no lower, than at the end of `{REFERENCE}`, by more than {noise} of the differences "
        "between the same images. Ratios are of steps, then of seconds; a mean is one over seeds. "
        "Seconds are those of learning alone. The study chooses nothing by accuracy. "
        f"{origin(figures)}"
    )
    return "\n".join(
        [
            image("learning_schedules", FIGURES["learning_schedules"]),
            table(_TIME, ([*head, *_times(row)] for head, row in rows), 2),
            table(_QUALITY, ([*head, *_qualities(row)] for head, row in rows), 2),
            note + "\n",
        ]
    )


_TIME = [
    *("Method", "Seed", f"`{REFERENCE}` ends", f"`{REFERENCE}` as good"),
    *(f"`{RIVAL}` ends", f"`{RIVAL}` as good"),
    *("End / end", f"End / `{RIVAL}` as good", "As good / as good"),
]
_QUALITY = [
    *("Method", "Seed", f"Accuracy, `{REFERENCE}`", f"`{RIVAL}`", "Difference (95 %)"),
    *(f"Entropy, `{REFERENCE}`", f"`{RIVAL}`", "Difference (95 %)"),
]


def _by_seed(figures: Row) -> Iterator[tuple[list[str], Row]]:
    """The first cells of every row with its figures: each seed, then the mean."""
    for method, row in figures["methods"].items():
        title = METHODS[method].title
        for seed, one in row["seeds"].items():
            yield [title, seed], one
        yield [title, "**mean**"], row["mean"]


def _times(row: Row) -> list[str]:
    places = (row[name][point] for name in (REFERENCE, RIVAL) for point in ("end", "good"))
    texts = ["never" if p is None else f"{_steps(p)}, {p['seconds']:.1f} s" for p in places]
    ratios = (row["ratios"][name] for name in RATIOS)
    return texts + [
        f"{r['steps']:.1f}, {r['seconds']:.1f}" if r["steps"] is not None else NOTHING
        for r in ratios
    ]


def _qualities(row: Row) -> list[str]:
    cells = []
    for name, digits in (("accuracy", 1), ("entropy", 3)):
        cells += [f"{row[schedule]['end'][name]:.{digits}f}" for schedule in (REFERENCE, RIVAL)]
        cells.append(_interval(row["gap"][name], digits))
    return cells


# ---- Objectives


def objectives_study(figures: Row) -> str:
    """Figure, table, verdict and how to read them."""
    rows = figures["rows"]
    columns = [
        *("Objective", "Needs besides", "Accuracy", "Worst task", f"Above `{PLAIN}` (95 %)"),
        *("Verdict", "Tasks won, lost", "Entropy", "Collapsed", "Steps", "Time"),
    ]
    cells = (_objective(case, row) for case, row in rows.items())
    note = (
        f"Layer-wise, schedule `{RIVAL}`, {seeds(figures)}; accuracy in percent (± standard "
        f"deviation over seeds). Above `{PLAIN}`: points of accuracy above the row `{PLAIN}`, with "
        "an interval over images, which covers no chance in the seeds. Where the interval covers "
        "zero, the verdict is: no difference. Entropy in nats, summed over tasks. Time includes "
        f"the experts' predictions where they are needed. {origin(figures)}"
    )
    return "\n".join(
        [
            image("learning_objectives", FIGURES["learning_objectives"]),
            table(columns, cells, 2),
            _verdicts(rows) + "\n",
            note + "\n",
        ]
    )


def _objective(case: str, row: Row) -> list[str]:
    gap = row["difference"]
    return [
        case_title(row),
        f"the {row['needs']}" if row["needs"] else NOTHING,
        f"{row['avg']:.1f} ± {row['avg_sd']:.1f}",
        f"{row['worst']:.1f} ({row['worst_task']})",
        NOTHING if gap is None else _interval(gap, 2),
        NOTHING if gap is None else _verdict(gap),
        NOTHING if gap is None else f"{row['wins']}, {row['losses']}",
        f"{row['entropy']:.3f}",
        ", ".join(row["collapsed"]) or "none",
        f"{row['steps']:g}",
        f"{row['seconds']:.1f} s",
    ]


def case_title(row: Row, mark: str = "`") -> str:
    """A row's name: the objective, and what is not as published."""
    changes = dict(row["options"])
    title = f"{mark}{changes.pop('objective')}{mark}"
    words = {"batches_per_task": "{} batches per task", "clamp": "clamp: {}"}
    said = (words[name].format(str(value).lower()) for name, value in changes.items())
    return ", ".join([title, *said])


def _verdicts(rows: Mapping[str, Row]) -> str:
    """Which rows help and which do not, in one sentence."""
    found: dict[str, list[str]] = {"helps": [], "hurts": [], "no difference": []}
    for row in rows.values():
        if row["difference"] is not None:
            found[_direction(row["difference"])].append(case_title(row))
    said = {
        "helps": "More accurate than entropy: {}.",
        "hurts": "Less accurate: {}.",
        "no difference": "No difference that the images could show: {}.",
    }
    return " ".join(said[word].format("; ".join(names) or "none") for word, names in found.items())


def _verdict(gap: Row) -> str:
    word = _direction(gap)
    sign = {"helps": 1, "hurts": -1}.get(word)
    if sign is None:
        return word
    values = gap["seeds"].values()
    return f"{word}, on {sum(sign * value > 0 for value in values)} of {len(values)} seeds"


# ---- Both


def _direction(gap: Row) -> str:
    if gap["low"] > 0:
        return "helps"
    return "hurts" if gap["high"] < 0 else "no difference"


def _compared(gap: Row, what: str, unit: str, digits: int) -> str:
    """'no difference in accuracy (-0.1 to 0.3 points)', or how much higher or lower it is."""
    interval = f"{gap['low']:.{digits}f} to {gap['high']:.{digits}f}"
    if _direction(gap) == "no difference":
        return f"no difference in {what} (95 % interval {interval} {unit})"
    word = "higher" if gap["value"] > 0 else "lower"
    size = f"{abs(gap['value']):.{digits}f}"
    return f"{what} {size} {unit} {word} (95 % interval {interval})"


def _interval(gap: Row, digits: int) -> str:
    return f"{gap['value']:+.{digits}f} ({gap['low']:+.{digits}f} to {gap['high']:+.{digits}f})"


def _steps(point: Row) -> str:
    return f"{point['steps']:g} steps"
