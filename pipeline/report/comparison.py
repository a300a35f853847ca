"""Which of our figures stand beside which published ones.

Only figures of whole test splits do (protocol `transductive`), and only those of the same
checkpoints, family, backbone and tasks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from pipeline.config.sources import collection
from pipeline.report.beside import (
    ABOVE,
    BELOW,
    EVALUATOR,
    EXACT,
    LEARNED,
    Beside,
    Comparison,
    Elsewhere,
    line_of,
)
from pipeline.report.beside_corrupted import compare_corrupted
from pipeline.report.content import Content
from pipeline.report.published import Printed, published, split_numbers, title
from pipeline.report.tables import NOTHING, difference, printed
from pipeline.report.unseen import with_pretrained

INDUCTIVE = (
    "No published figure stands here: published ones come from whole test splits, on which "
    "coefficients were learned as well (protocol: transductive), these from the part of them that "
    "is kept for evaluation (protocol: inductive)."
)
# What all published experts were fine-tuned from.
OPENAI = re.compile(r"openai/clip-vit-(base-patch(16|32)|large-patch14)")

Known = Mapping[str, Printed]  # method -> what is printed for it


def compare(content: Content) -> Comparison | None:
    """What the report says about published figures; None for families that have none."""
    profile = content.config.profile
    family, backbone = profile.checkpoint.family, profile.checkpoint.backbone
    if family in ("mini", "own"):
        return None
    if foreign := _foreign(content):
        return Comparison(absence=f"No published figure stands here: {foreign}.")
    if profile.protocol != "transductive":
        return Comparison(absence=INDUCTIVE)
    known = published("clean", family, backbone)
    clean = _clean(content, known)
    beyond = {name: _known_split(content, name) for name in profile.generalization.splits}
    splits = {name: table for name, by in beyond.items() if (table := _split(content, name, by))}
    corrupted = compare_corrupted(content)
    if not clean and not splits and not corrupted.table:
        return Comparison(
            absence="No published figure stands here: none is known in print for these tasks, "
            f"checkpoint family {family} and {backbone or 'this backbone'}."
        )
    beyond = {name: beyond[name] for name in splits}
    tables = [table for table in (clean, *splits.values(), corrupted.table) if table]
    return Comparison(
        clean=clean,
        splits={_unseen(content, name): table for name, table in splits.items()},
        corrupted=corrupted.table,
        elsewhere=_elsewhere(content, known, beyond, corrupted.averages),
        notes=(
            *_notes(content, known, tables),
            *_differences(known, beyond, content.task_titles),
            *corrupted.notes,
        ),
        sources=tuple(
            dict.fromkeys(
                [*_sources([*([known] if clean else []), *beyond.values()]), *corrupted.sources]
            )
        ),
    )


def _foreign(content: Content) -> str | None:
    """Which checkpoints are not those that the published figures are of; None: all are."""
    checkpoint, experts = content.config.profile.checkpoint, content.config.profile.experts
    # Those of `original` lie on the authors' drive as well, for downloads by hand.
    by_hand = checkpoint.family == "original" and experts.path
    if not by_hand and collection(experts) != checkpoint.family:
        return (
            f"the experts come from {experts.hub or experts.path}, not from the published "
            f"collection of checkpoint family {checkpoint.family}"
        )
    if not OPENAI.fullmatch(checkpoint.hub or ""):
        return (
            f"the pretrained model comes from {checkpoint.hub or checkpoint.path}, not from "
            "OpenAI's repository"
        )
    return None


def _clean(content: Content, known: Known) -> Beside | None:
    """Clean accuracy of each task.

    Merged models and averages only where the profile merges the published tasks and no others.
    """
    whole = _is_whole(content, known)
    printed_tasks = {task for row in known.values() for task in row.tasks}
    tasks = [task for task in content.tasks if task in printed_tasks]
    lines = []
    for method in (m for m in content.methods if m in known and (whole or m in EVALUATOR)):
        ours, theirs = content.clean[method], known[method]
        figures = [(ours["tasks"][task], theirs.tasks[task]) for task in tasks]
        if whole:
            figures.append((ours["avg"], theirs.average))
        lines.append(line_of(content.config, method, figures))
    columns = [content.task_titles[task] for task in tasks] + (["Average"] if whole else [])
    return Beside(tuple(columns), tuple(lines)) if tasks and lines else None


def _is_whole(content: Content, known: Known) -> bool:
    return any(set(row.tasks) == set(content.tasks) for row in known.values())


def _known_split(content: Content, name: str) -> Known:
    """What is printed for a generalization split of exactly these seen and unseen tasks."""
    checkpoint = content.config.profile.checkpoint
    asked = content.config.profile.generalization.splits[name]
    for number in split_numbers():
        seen, unseen = (
            published(f"generalization_{number}_{part}", checkpoint.family, checkpoint.backbone)
            for part in ("seen", "unseen")
        )
        both = {
            method: Printed({**row.tasks, **unseen[method].tasks}, row.sources)
            for method, row in seen.items()
            if set(row.tasks) == set(asked.seen) and set(unseen[method].tasks) == set(asked.unseen)
        }
        if both:
            return both
    return {}


def _split(content: Content, name: str, known: Known) -> Beside | None:
    """Averages of the seen and unseen tasks, and every task."""
    asked = content.config.profile.generalization.splits[name]
    figures = with_pretrained(content, name) if name in content.generalization else {}
    tasks = (*asked.seen, *asked.unseen)
    lines = []
    for method in (m for m in figures if m in known):
        ours, theirs = figures[method], known[method].tasks
        pairs = [(ours["seen"], _mean(theirs, asked.seen))]
        pairs += [(ours["unseen"], _mean(theirs, asked.unseen))]
        pairs += [(ours["tasks"][task], theirs[task]) for task in tasks]
        lines.append(line_of(content.config, method, pairs))
    titles = (content.task_titles[task] for task in tasks)
    return Beside(("Seen tasks", "Unseen tasks", *titles), tuple(lines)) if lines else None


def _mean(figures: Mapping[str, float], tasks: Sequence[str]) -> float:
    return sum(figures[task] for task in tasks) / len(tasks)


def _unseen(content: Content, name: str) -> str:
    unseen = content.config.profile.generalization.splits[name].unseen
    return ", ".join(content.task_titles[task] for task in unseen)


def _elsewhere(
    content: Content,
    known: Known,
    beyond: Mapping[str, Known],
    corrupted: Mapping[str, float],
) -> Elsewhere | None:
    """Averages of the methods that were not run here: clean, on the splits, corrupted."""
    columns: dict[str, dict[str, float]] = {}
    if _is_whole(content, known):
        columns["Average"] = {method: row.average for method, row in known.items()}
    for name, by in beyond.items():
        asked = content.config.profile.generalization.splits[name]
        for part, tasks in (("seen", asked.seen), ("unseen", asked.unseen)):
            columns[f"Without {_unseen(content, name)}: {part}"] = {
                method: _mean(row.tasks, tasks) for method, row in by.items()
            }
    if corrupted:
        columns["Corrupted images"] = dict(corrupted)
    methods = dict.fromkeys(m for by in columns.values() for m in by if m not in content.methods)
    rows = (
        (title(m), tuple(printed(by[m]) if m in by else NOTHING for by in columns.values()))
        for m in methods
    )
    return Elsewhere(tuple(columns), tuple(rows)) if methods else None


def _notes(content: Content, known: Known, tables: Sequence[Beside]) -> Iterator[str]:
    """How to read the tables, and what in them does not compare."""
    yield (
        "Accuracy in percent: ours, in brackets ours minus published, below it the published one "
        f"(averages: means of the printed figures). {ABOVE} and {BELOW} mark differences of more "
        f"than {EXACT:.1f} points, of methods that read images {LEARNED:.1f}."
    )
    if known and not _is_whole(content, known):
        yield (
            "Merged models are left out of the clean table: a merge of these "
            f"{len(content.tasks)} tasks is not the published one."
        )
    if not any(method in known for method in EVALUATOR):
        yield (
            "No accuracy of the experts or the pretrained model is known in print for this family, "
            "so only merged models check the evaluator."
        )
    settings: dict[tuple[str, ...], dict[str, None]] = {}
    for line in (line for table in tables for line in table.lines if line.other_settings):
        settings.setdefault(line.other_settings, {})[line.title] = None
    for other, titles in settings.items():
        yield f"Other settings, so nothing is marked: {', '.join(titles)} ({'; '.join(other)})."


def _differences(
    known: Known, beyond: Mapping[str, Known], titles: Mapping[str, str]
) -> Iterator[str]:
    """What the sources themselves measured otherwise."""
    start = known["pretrained"].tasks if "pretrained" in known else {}
    gaps = {
        task: abs(difference(value, start[task]))
        for by in beyond.values()
        if "pretrained" in by
        for task, value in by["pretrained"].tasks.items()
        if task in start
    }
    if any(gap > EXACT for gap in gaps.values()):
        most = max(gaps, key=gaps.__getitem__)
        yield (
            "The published tables of unseen tasks come from another version of their source's "
            "evaluator than its clean table: the pretrained model's figures differ between them "
            f"by up to {gaps[most]:.1f} points ({titles[most]})."
        )


def _sources(shown: Sequence[Known]) -> tuple[str, ...]:
    """Where the figures are printed, each named once."""
    rows = (row for by in shown for row in by.values())
    return tuple(dict.fromkeys(source for row in rows for source in row.sources))
