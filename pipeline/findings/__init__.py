"""What holds on the miniature and what does not: the generated blocks of docs/findings.md.

    blocks = findings_blocks(config, Layout(root, "study"))

Every sentence is made from the metrics of a profile: no outcome is typed in. A statement whose
figures are not there is left out and named among what was not measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.config import Config
from pipeline.corruptions.table import CONSTANTS
from pipeline.files import read_json
from pipeline.findings import beyond, clean, studies
from pipeline.findings.look import Files, Look
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report.words import listed

COMMAND = "make study"
Statement = Callable[[Look], str | None]

SECTIONS: Mapping[str, tuple[Statement, ...]] = {
    "Accuracy": (
        clean.against_task_arithmetic,
        clean.against_tuned,
        clean.level_with_the_best,
        clean.plus_plus,
        clean.weights_only,
        clean.against_regmean,
        clean.kept_of_the_experts,
    ),
    "Calibration and the task's identity": (clean.calibration, clean.joint),
    "Corrupted images": (
        beyond.corrupted_level,
        beyond.corrupted_errors,
        beyond.adapted_on_each,
        beyond.adapted_on_mixture,
        beyond.adapted_on_stream,
        beyond.adapted_on_small,
        beyond.adapted_on_imbalanced,
    ),
    "Unseen tasks": (beyond.unseen_splits, beyond.unseen_pairs, beyond.unseen_tasks),
    "What learning depends on": (
        studies.entropy_for_loss,
        studies.images_needed,
        studies.first_values,
        studies.finer_coefficients,
        studies.numbers_of_tasks,
        studies.label_free_selection,
    ),
    "Cost": (clean.cost,),
}
# File of metrics/<profile>/ -> the stage that writes it; studies say themselves what they are from.
FILES = {
    "clean": "evaluate",
    "robustness": "robustness",
    "generalization": "generalization",
    "leave_two_out": "generalization",
    "entropy_loss": "study",
    "budget": "study",
    "initial": "study",
    "granularity": "study",
    "tasks": "study",
    "selection": "study",
    "cost": "study",
}


class Finding(NamedTuple):
    """A statement in Markdown, and the (file, keys) of every figure in it."""

    text: str
    sources: tuple[tuple[str, tuple[str, ...]], ...]


def findings_blocks(config: Config, layout: Layout) -> dict[str, str | None]:
    """Block -> its text, None where a block is to stay as it is."""
    files = read_files(layout)
    if "clean" not in files:
        return {"findings": None, "findings-missing": None, "findings-runs": None}
    return {
        "findings": _findings_block(files, config),
        "findings-missing": _missing_block(files, config),
        "findings-runs": _runs_block(files, config, layout),
    }


def read_files(layout: Layout) -> Files:
    """Name -> what is in it, of the metrics files that are there."""
    return {
        name: read_json(layout.metric(name), COMMAND)
        for name in FILES
        if layout.metric(name).exists()
    }


def findings(files: Files, config: Config) -> dict[str, list[Finding]]:
    """Section -> what can be said from `files`."""
    found: dict[str, list[Finding]] = {}
    for section, statements in SECTIONS.items():
        for statement in statements:
            look = Look(files, config)
            if text := statement(look):
                found.setdefault(section, []).append(Finding(text, tuple(look.used)))
    return found


def _findings_block(files: Files, config: Config) -> str:
    lines = []
    for section, group in findings(files, config).items():
        lines += [f"## {section}", ""]
        for one in group:
            lines += [f"- {one.text}", f"  <br><sub>{_sources(one, config)}</sub>"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _sources(finding: Finding, config: Config) -> str:
    """The keys of a finding by file, as links."""
    by_file: dict[str, dict[str, list[str]]] = {}
    for file, keys in finding.sources:
        by_file.setdefault(file, {}).setdefault("/".join(keys[:-1]), []).append(keys[-1])
    return "; ".join(
        f"[{file}.json](../metrics/{config.name}/{file}.json): "
        + ", ".join(_key(above, last) for above, last in groups.items())
        for file, groups in by_file.items()
    )


def _key(above: str, last: Sequence[str]) -> str:
    """'`ties/avg`', or '`ties/{avg, seeds}`'."""
    ends = last[0] if len(last) == 1 else f"{{{', '.join(last)}}}"
    return f"`{above}/{ends}`" if above else f"`{ends}`"


def _missing_block(files: Files, config: Config) -> str:
    lines = [f"- {what}" for what in _missing(files, config)]
    return "\n".join(lines) + "\n"


def _missing(files: Files, config: Config) -> Iterator[str]:
    """What was not measured, in words."""
    for statements in SECTIONS.values():
        for statement in statements:
            if statement(Look(files, config)) is None:
                topic = (statement.__doc__ or "").rstrip(".")
                asked_for = config.profile.generalization.leave_two_out
                if statement in (beyond.unseen_pairs, beyond.unseen_tasks) and not asked_for:
                    yield f"{topic}: `generalization.leave_two_out` is not set in the profile."
                else:
                    yield f"{topic}: its figures are not there yet (`{COMMAND}`)."
    left_out = [method for method in METHODS if method not in files["clean"]]
    if left_out:
        yield f"Methods that were not run: {listed([METHODS[m].title for m in left_out])}."
    asked = config.profile.robustness
    yield (
        f"Corruptions: {len(asked.corruptions)} of {len(CONSTANTS)}, at severities "
        f"{listed([str(one) for one in asked.severities])}, of {len(asked.tasks)} of "
        f"{len(config.profile.tasks)} tasks, coefficients learned again for "
        f"{listed([METHODS[m].title for m in asked.adapted.methods]) or 'no method'} only."
    )
    pairs = config.profile.generalization.methods
    yield f"Unseen tasks: {len(pairs)} of {len(METHODS)} methods."
    yield (
        "Published checkpoints, real photographs and a GPU: every figure here is of the miniature "
        "on a CPU."
    )


def _runs_block(files: Files, config: Config, layout: Layout) -> str | None:
    """From which run each file is; None where a stage's record is missing."""
    seeds = ", ".join(map(str, config.profile.seeds))
    lines = ["| File | Written by | Seeds | Commit | Run |", "| :-- | :-- | :-- | :-- | :-- |"]
    for name, metrics in files.items():
        stage = FILES[name]
        record = layout.run(stage)
        if not record.exists():
            return None
        run = read_json(record, COMMAND)
        git = metrics["git"] if stage == "study" else run["git"]
        own = metrics.get("cost_seed") if name == "cost" else None
        lines.append(
            f"| [{name}.json](../metrics/{config.name}/{name}.json) | `{stage}` "
            f"| {seeds if own is None else own} | {_commit(git)} "
            f"| {run['started'][:16].replace('T', ' ')} UTC |"
        )
    return "\n".join(lines) + "\n"


def _commit(git: Mapping[str, object]) -> str:
    if not git["commit"]:
        return "none"
    return f"`{str(git['commit'])[:10]}`" + (" with changes" if git["dirty"] else "")
