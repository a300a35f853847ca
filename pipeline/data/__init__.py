"""Images decoded once and kept as uint8 arrays, in disjoint splits.

`train` is for the experts; `adapt` is unlabeled (it has no labels file, so no method can read
one); labels of `select` are for choices that are reported as such; `eval` is for figures only.
"""

from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import need, replacing

SPLITS = ("train", "adapt", "select", "eval")
UNLABELED = "adapt"


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy."""
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def load_array(path: Path, made_by: str) -> np.ndarray:
    """Read an array, memory-mapped; raises `UserError` if it is missing or damaged."""
    try:
        return np.load(need(path, made_by), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and run '{made_by}'.") from error


def check_labels(task: str, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Raise `UserError` unless there is an image, a label each, and a class for every label."""
    if not len(images):
        raise UserError(f"The task '{task}' has no images. Check its split sizes or its folder.")
    if len(images) != len(labels):
        raise UserError(
            f"The task '{task}' has {len(images)} images but {len(labels)} labels: "
            "fetch its data again."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise UserError(
            f"The task '{task}' has labels from {lowest} to {highest} but {classes} class names: "
            "the class list does not belong to these labels."
        )
