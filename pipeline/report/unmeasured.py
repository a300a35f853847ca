"""What the page does not say: what was not tested, and on how little some figures rest."""

from collections.abc import Iterator

from pipeline.merging.methods import METHODS
from pipeline.report.content import Content, competes, one_per_task
from pipeline.report.samples import BEFORE
from pipeline.report.words import listed


def unmeasured(content: Content) -> list[str]:
    """Sentences about what the figures leave open."""
    return [
        *_seeds(content),
        *_robustness(content),
        *_unseen(content),
        *_joint(content),
        *_before(content),
        *_photographs(content),
        "How long a merged model takes for an image: each is an image encoder of the size of the "
        "pretrained one, so nothing should change.",
    ]


def _seeds(content: Content) -> Iterator[str]:
    if len(content.config.profile.seeds) == 1:
        yield (
            "How much the figures change with the seed: one was run. Intervals are over images, "
            "for the very models at hand."
        )
    if content.config.profile.protocol == "transductive":
        yield (
            "Images that the methods had not read: they read the evaluation images themselves, "
            "without labels."
        )


def _robustness(content: Content) -> Iterator[str]:
    if not content.robustness:
        return
    asked = content.config.profile.robustness
    spared = [content.task_titles[task] for task in content.tasks if task not in asked.tasks]
    if spared:
        yield f"Corrupted images of {listed(spared)}."
    adapted = [m for m in content.methods if m in content.robustness.get("adapted", {})]
    others = [
        METHODS[m].title
        for m in content.methods
        if METHODS[m].reads("images") and not METHODS[m].reads("labels") and m not in adapted
    ]
    if adapted and others:
        yield (
            f"What adapting to corrupted images does to {listed(others)}: it was tested with "
            f"{listed([METHODS[m].title for m in adapted])} alone."
        )


def _unseen(content: Content) -> Iterator[str]:
    if not content.generalization:
        return
    tested = {m for split in content.generalization.values() for m in split}
    others = [METHODS[m].title for m in content.methods if competes(m) and m not in tested]
    if others:
        yield f"Unseen tasks with {listed(others)}."
    if not content.leave_two_out:
        yield "Other choices of unseen tasks than the splits above."


def _joint(content: Content) -> Iterator[str]:
    lacking = [m for m in content.methods if "joint" not in content.clean[m]]
    if lacking and len(lacking) < len(content.methods):
        yield (
            f"Accuracy without the task's identity of {listed([METHODS[m].title for m in lacking])}"
            + (": these need it." if all(map(one_per_task, lacking)) else ".")
        )


def _before(content: Content) -> Iterator[str]:
    if BEFORE not in content.methods:
        yield "The pretrained model, which every merge starts from: it is not among the methods."


def _photographs(content: Content) -> Iterator[str]:
    if content.config.profile.suite == "mini":
        yield "Photographs, and a CLIP of the usual size: images are drawn, and the model is small."
