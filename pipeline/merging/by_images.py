"""What merges by images share: the images, and a merge of which only a part is found by them."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.learning.feeding import draw
from pipeline.merging import Merged
from pipeline.merging.arithmetic import uniform
from pipeline.vectors import TaskVectors


def drawn_images(
    vectors: TaskVectors, data: FitData, seed: int, images: int
) -> dict[str, np.ndarray]:
    """task -> uint8 images, at most `images` of them. Raises `UserError` where there are none."""
    if images < 1:
        raise UserError(f"images is {images}: give at least one image for every task.")
    found = {}
    for task in vectors.tasks:
        if task not in data.images or not len(data.images[task]):
            raise UserError(f"There are no images of {task}: add them to data.images.")
        rows = draw(seed, task, len(data.images[task]), 1, images)[0]
        found[task] = data.images[task][np.sort(rows)]
    return found


def moved(vectors: TaskVectors, change: Mapping[str, Tensor]) -> Merged:
    """pretrained + `change`; the mean of the experts where there is none."""
    mean = uniform(vectors, 1 / len(vectors.tasks)).shared

    def make(name: str) -> Tensor:
        if name not in change:
            return mean[name]
        start = vectors.pretrained[name]
        return start + change[name].to(start)

    return Merged(Lazy(kinds_of(vectors.pretrained), make))
