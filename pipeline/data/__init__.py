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
