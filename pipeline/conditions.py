"""What coefficients are learned on when the images are corrupted: the conditions, and the images.

Coefficients learned on clean images are the plain condition, which every method is tested under.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from pipeline.corruptions import corrupt

SMALL = 2  # images of a task in a step of the condition `small`


@dataclass(frozen=True)
class Condition:
    """`changes`: options of learning that differ from the profile's."""

    mixed: bool = True  # all corruptions at once; else each by itself, with coefficients of its own
    changes: Mapping[str, Any] = field(default_factory=dict)


CONDITIONS: dict[str, Condition] = {
    "each": Condition(mixed=False),
    "mixture": Condition(),  # every image under one corruption, drawn for it
    "stream": Condition(changes={"order": "stream"}),  # each image is seen once
    "small": Condition(changes={"batch": SMALL, "batches_per_task": 1}),
    # Classes, as the pretrained model predicts them, follow a long tail.
    "imbalanced": Condition(changes={"order": "long_tail"}),
}


class CorruptedImages:
    """A task's images, each under one of `corruptions`: uint8 [N, 3, height, width].

    Only the rows that are asked for are corrupted, each alike whatever is asked for with it. Which
    corruption an image has follows from the seed, the task and the image's place, not from its
    class. `images`: as stored, in memory or mapped. `rows`: the places of those that count, of
    which k is then number k here; None: all.
    """

    def __init__(
        self,
        images: np.ndarray,
        task: str,
        corruptions: Sequence[str],
        severity: int,
        *,
        seed: int,
        scale: str,
        rows: np.ndarray | None = None,
    ) -> None:
        self._images, self._corruptions = images, tuple(corruptions)
        self._places = np.arange(len(images)) if rows is None else rows
        self._seed, self._severity, self._scale = task_seed(seed, task), severity, scale
        rng = np.random.default_rng(self._seed)
        kinds = rng.integers(len(corruptions), size=len(images))
        self.kinds = kinds[self._places]  # place in `corruptions`

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The images at `rows`."""
        indices = self._places[rows]
        images = np.asarray(self._images[indices])
        kinds, found = self.kinds[rows], np.empty_like(images)
        for kind in np.unique(kinds):
            where = kinds == kind
            found[where] = corrupt(
                images[where],
                self._corruptions[kind],
                self._severity,
                indices=indices[where],
                seed=self._seed,
                scale=self._scale,
            )
        return found


def task_seed(seed: int, task: str) -> int:
    """A seed of the task's own: images of two tasks with the same number get different noise."""
    return crc32(f"{seed} {task}".encode())


def noise_seed(seed: int) -> int:
    """The seed of corruptions to learn on: not the tested images', whose noise must differ."""
    return seed + 1_000_000
