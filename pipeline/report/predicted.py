"""What models said about single images, as `evaluate` stored it: confusions of a task's classes."""

from dataclasses import dataclass

import numpy as np

from pipeline.config import Config
from pipeline.evaluation import Predictions
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.report.stages import stage_command


@dataclass(frozen=True)
class Confusion:
    """How often a method took which class of a task for which, over the images of all seeds."""

    method: str
    task: str
    classes: tuple[str, ...]
    counts: np.ndarray  # integers [classes, classes]: what it is, what it was taken for

    @property
    def errors(self) -> np.ndarray:
        """`counts` without the correct answers."""
        return self.counts - np.diag(np.diag(self.counts))

    def pairs(self) -> list[tuple[int, int]]:
        """(What it is, what it was taken for) of all errors, the most frequent first."""
        errors = self.errors
        order = np.argsort(-errors, axis=None, kind="stable")[: np.count_nonzero(errors)]
        return [divmod(int(place), len(errors)) for place in order]


def read_predictions(
    config: Config, layout: Layout, method: str, task: str
) -> list[Predictions] | None:
    """Predictions under every seed; None if some are not there."""
    paths = [layout.predictions(seed, method, task) for seed in config.profile.seeds]
    if not all(path.exists() for path in paths):
        return None
    return [Predictions.load(path, stage_command("evaluate")) for path in paths]


def read_classes(config: Config, layout: Layout, task: str, count: int) -> tuple[str, ...]:
    """The words of a task's classes; of those that nobody named, as many as `count`, numbers."""
    words: tuple[str, ...] = config.task(task).classes
    if layout.tasks.exists():
        stored = read_json(layout.tasks, stage_command("fetch"))
        words = tuple(stored.get(task, {}).get("classes", words))
    return words + tuple(f"class {place}" for place in range(len(words), count))


def read_confusion(config: Config, layout: Layout, method: str, task: str) -> Confusion | None:
    """Counts over all seeds; None if some predictions are not there."""
    found = read_predictions(config, layout, method, task)
    if found is None:
        return None
    label = np.concatenate([one.label for one in found]).astype(int)
    answer = np.concatenate([one.top[:, 0] for one in found]).astype(int)
    classes = read_classes(config, layout, task, int(max(label.max(), answer.max())) + 1)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (label, answer), 1)
    return Confusion(method, task, classes, counts)
