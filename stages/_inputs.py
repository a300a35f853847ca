"""Reading what earlier stages wrote, for the stages that need the same things."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages._stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.clip import ImageEncoder
    from pipeline.vectors import TaskVectors


def encoder_of(run: Stage) -> tuple["ImageEncoder", float]:
    """The pretrained image encoder on the run's device and in its precision; the logit scale."""
    import torch

    from pipeline.clip import load_encoder

    encoder, scale = load_encoder(run.layout.pretrained, "python -m stages.fetch")
    encoder.precision = getattr(torch, run.precision())
    return encoder.to(run.device()), scale


def heads_of(run: Stage, tasks: Iterable[str]) -> dict[str, "Tensor"]:
    """task -> zero-shot head [classes, dim] on the run's device."""
    from pipeline.checkpoints.weights import load_weights

    made_by, device = "python -m stages.experts", run.device()
    return {t: load_weights(run.layout.head(t), made_by)["weight"].to(device) for t in tasks}


def images_of(run: Stage, seed: int, tasks: Iterable[str], split: str) -> dict[str, np.ndarray]:
    """task -> uint8 images [N, 3, height, width]."""
    from pipeline.data import load_array

    made_by = "python -m stages.fetch"
    return {task: load_array(run.layout.images(seed, task, split), made_by) for task in tasks}


def images_count(run: Stage, seed: int, task: str, split: str) -> int:
    """How many images a split has."""
    return len(images_of(run, seed, [task], split)[task])


def labels_of(run: Stage, seed: int, tasks: Iterable[str], split: str) -> dict[str, np.ndarray]:
    """task -> int64 labels [N]; raises `UserError` if they do not fit the images or classes."""
    from pipeline.data import check_labels, load_array

    tasks = tuple(tasks)
    made_by = "python -m stages.fetch"
    labels = {task: load_array(run.layout.labels(seed, task, split), made_by) for task in tasks}
    images, heads = images_of(run, seed, tasks, split), heads_of(run, tasks)
    for task in tasks:
        check_labels(task, images[task], labels[task], len(heads[task]))
    return labels


def image_numbers(run: Stage, task: str, sizes: Sequence[int]) -> list[np.ndarray]:
    """For every seed the numbers [N] of its `eval` images in their source.

    `sizes`: N of every seed; raises `UserError` where the numbers are not as many.
    """
    from pipeline.errors import UserError
    from pipeline.files import read_json

    made_by, numbers = "python -m stages.fetch", []
    for seed, size in zip(run.config.profile.seeds, sizes, strict=True):
        path = run.layout.splits(seed, task)
        found = read_json(path, made_by).get("eval", {}).get("source_index", [])
        if len(found) != size:
            raise UserError(
                f"{path} names {len(found)} images of eval, but {size} were classified. "
                f"Run '{made_by}' and then 'python -m stages.evaluate' again."
            )
        numbers.append(np.asarray(found))
    return numbers


def vectors_of(run: Stage, seed: int, tasks: Sequence[str]) -> "TaskVectors":
    """The task vectors of `tasks` in the memory of the run's device."""
    return lazy_vectors_of(run, seed, tasks).to(run.device())


def lazy_vectors_of(run: Stage, seed: int, tasks: Sequence[str]) -> "TaskVectors":
    """The task vectors of `tasks` on the run's device, each tensor read as it is used."""
    from pipeline.checkpoints.matching import check_same_tensors
    from pipeline.checkpoints.writing import open_arrays
    from pipeline.vectors import TaskVectors, as_tensors, stacked

    encoder, _ = encoder_of(run)
    pretrained = encoder.weights()
    paths = [run.layout.vector(seed, task) for task in tasks]
    opened = [open_arrays(path, "python -m stages.vectors") for path in paths]
    for path, vector in zip(paths, opened, strict=True):
        check_same_tensors(pretrained, vector, "the pretrained model", str(path))
    parts = [as_tensors(vector, run.device()) for vector in opened]
    return TaskVectors(tuple(tasks), pretrained, stacked(pretrained, parts))


def maker(method: str) -> str:
    """The stage that writes the encoders of `method`."""
    return "experts" if method == "experts" else "merge"


def weights_path(run: Stage, seed: int, method: str, task: str) -> Path:
    """The file that the encoder which `method` uses for `task` is read from."""
    if method == "experts":
        return run.layout.expert(seed, task)
    return run.layout.merged(seed, method)


def weights_of(run: Stage, seed: int, method: str, task: str) -> "Mapping[str, Tensor]":
    """The encoder that `method` uses for `task`: name -> tensor."""
    from pipeline.checkpoints.weights import load_weights
    from pipeline.merging.methods import METHODS

    path = weights_path(run, seed, method, task)
    weights = load_weights(path, f"python -m stages.{maker(method)}")
    if not METHODS[method].masked:
        return weights
    from pipeline.masked import Masked

    encoder, _ = encoder_of(run)
    return Masked.from_tensors(encoder.weights(), weights, str(path)).weights(task)
