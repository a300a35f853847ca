"""Which images a row read, and what for: one dataset a split, over all tasks."""

import hashlib
import json
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS


@dataclass(frozen=True)
class Images:
    """The images of one split and seed, of every task."""

    name: str
    digest: str  # of the pixels; MLflow takes 36 characters at most
    context: str  # `eval`, `adapt` (without labels), `select` (with labels), or several of them
    folder: str  # below the project's root
    counts: dict[str, int]  # task -> how many


def images_read(config: Config, layout: Layout, method: str, seed: int) -> tuple[Images, ...]:
    """What the figures of a row and its method's coefficients come from.

    Read from the records of the splits: images take part in no figure of a row, and DVC need not
    have fetched them. Nothing where those records are not there either.
    """
    tasks = config.profile.tasks
    paths = {task: layout.splits(seed, task) for task in tasks}
    if not all(path.is_file() for path in paths.values()):
        return ()
    records = {task: read_json(path, "python -m stages.fetch") for task, path in paths.items()}
    folder = paths[tasks[0]].parent.parent.relative_to(layout.root).as_posix()
    found = []
    for split, contexts in _contexts(config, method).items():
        pixels = json.dumps([[task, records[task][split]["sha256"]] for task in tasks])
        found.append(
            Images(
                f"{config.name} {split}, seed {seed}",
                hashlib.sha256(pixels.encode()).hexdigest()[:32],
                contexts,
                folder,
                {task: records[task][split]["images"] for task in tasks},
            )
        )
    return tuple(found)


def _contexts(config: Config, method: str) -> dict[str, str]:
    """Split -> what the method or its test reads it for; the test's comes first."""
    row = METHODS[method]
    if not row.reads("images"):
        return {"eval": "eval"}
    if row.reads("labels"):
        return {"eval": "eval", "select": "select"}
    if config.profile.protocol == "transductive":
        return {"eval": "eval, adapt"}
    return {"eval": "eval", "adapt": "adapt"}
