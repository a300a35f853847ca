"""Our figures on corrupted images beside the published ones, where they are of the same thing.

The published ones are of four experts, merged, and of whole test splits that the hub holds
corrupted; AdaMerging's coefficients were learned on each corruption's own test images, so ours of
the section `adapted` stand beside them, and all others' are of models merged from clean data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from pipeline.report.beside import Beside, line_of
from pipeline.report.content import Content, is_adamerging
from pipeline.report.corrupted import corruption_title
from pipeline.report.published import Printed, corruptions, published
from pipeline.report.words import listed

SEVERITY = 2  # of the published figures: docs/real-suites.md says how that is known
SCALE = "published"
NOTE = (
    "Corrupted images: means over the tasks, at severity 2. AdaMerging's coefficients, ours and "
    "the published ones, were learned on each corruption's own test images without their labels, "
    "those of the first column on clean ones."
)

Known = Mapping[str, Mapping[str, Printed]]  # corruption, or "clean" -> method -> what is printed


@dataclass(frozen=True)
class Corrupted:
    """A table, or in `notes` why there is none."""

    table: Beside | None = None
    averages: Mapping[str, float] = field(default_factory=dict)  # published, over corruptions
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def compare_corrupted(content: Content) -> Corrupted:
    """What is said about published figures on corrupted images; nothing where none are known."""
    checkpoint = content.config.profile.checkpoint
    names = corruptions(checkpoint.family, checkpoint.backbone)
    if not names or not content.robustness:
        return Corrupted()
    known = {
        name: published("robustness", checkpoint.family, checkpoint.backbone, name)
        for name in ("clean", *names)
    }
    tasks = {task for row in known["clean"].values() for task in row.tasks}
    reasons = [*_different(content, names, tasks)]
    if reasons:
        return Corrupted(notes=(f"Figures on corrupted images are not compared: {reasons[0]}.",))
    lines = []
    for method in (m for m in content.methods if m in known["clean"]):
        ours = _ours(content, method, names)
        if ours is not None:
            theirs = [known[name][method].average for name in ("clean", *names)]
            theirs.append(mean(theirs[1:]))
            lines.append(line_of(content.config, method, zip(ours, theirs, strict=True)))
    if not lines:
        return Corrupted()
    columns = ("Without corruption", *map(corruption_title, names), "Average")
    return Corrupted(
        Beside(columns, tuple(lines)),
        {m: mean(known[name][m].average for name in names) for m in known["clean"]},
        (NOTE,),
        tuple(dict.fromkeys(source for row in known["clean"].values() for source in row.sources)),
    )


def _different(content: Content, names: tuple[str, ...], tasks: set[str]) -> Iterator[str]:
    """How our figures are of something else than the published ones."""
    asked = content.config.profile.robustness
    titles = [content.config.task(task).title for task in sorted(tasks)]
    if {*content.tasks} != tasks:
        yield f"the published ones are of a merge of {listed(titles)} alone, another model"
    if asked.scale != SCALE:
        yield (
            "the published ones are of images that the hub holds corrupted (robustness.scale: "
            f"{SCALE}), these were made with scale {asked.scale}"
        )
    if {*asked.tasks} != tasks:
        yield f"the published ones are means over {listed(titles)}"
    if SEVERITY not in asked.severities:
        yield f"the published ones are of severity {SEVERITY}"
    if missing := [name for name in names if name not in asked.corruptions]:
        yield f"{listed(missing)} was not tested here"
    sources = (content.config.task(task).source for task in asked.tasks)
    if any(source and source.size > asked.images for source in sources):
        yield f"the published ones are of all images, these of {asked.images} a task"


def _ours(content: Content, method: str, names: tuple[str, ...]) -> list[float] | None:
    """Without corruption, under each, and their mean; None if it was not tested like that."""
    clean: Mapping[str, Any] = content.robustness.get("clean", {}).get(method, {})
    section = "adapted" if is_adamerging(method) else "clean"
    row: Mapping[str, Any] = content.robustness.get(section, {}).get(method, {})
    found = [row.get("corruptions", {}).get(name, {}).get(str(SEVERITY)) for name in names]
    if "clean" not in clean or any(value is None for value in found):
        return None
    return [clean["clean"], *found, mean(found)]
