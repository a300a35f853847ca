"""The models of a profile, from the files that its stages wrote; without torch where it can be."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checkpoints.architecture import tensor_shapes
from pipeline.checkpoints.matching import check_same_tensors
from pipeline.checkpoints.writing import LazyArrays, kinds_of, open_arrays
from pipeline.errors import CheckpointError
from pipeline.exported import Labels
from pipeline.layout import Layout
from pipeline.merge_files.inputs import Pretrained, facts_in
from pipeline.merging.methods import METHODS
from pipeline.tasks.words import read_words

if TYPE_CHECKING:
    from pipeline.config import Config

FETCH, EXPERTS, MERGE = (f"python -m stages.{name}" for name in ("fetch", "experts", "merge"))


def pretrained_of(layout: Layout) -> Pretrained:
    """The pretrained CLIP, both towers. Raises `MissingInput` or `CheckpointError`."""
    path = layout.pretrained
    arrays = open_arrays(path, FETCH)
    facts = facts_in(path) or {}
    try:
        architecture = {"quick_gelu": False, **json.loads(facts["architecture"])}
        if "vocabulary" in facts:  # words of its own instead of CLIP's byte pairs
            words = {"vocab_size": len(json.loads(facts["vocabulary"]))}
            architecture["text_cfg"] = architecture["text_cfg"] | words
        expected = tensor_shapes(architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say its architecture ({error}). Run '{FETCH}' again."
        ) from error
    shapes = {name: kind.shape for name, kind in arrays.kinds.items()}
    if expected is not None and shapes != expected:
        raise CheckpointError(
            f"{path} has other tensors than its architecture says. Run '{FETCH}' again."
        )
    return Pretrained(path, arrays, architecture)


def labels_of(config: "Config", layout: Layout, tasks: Sequence[str]) -> dict[str, Labels]:
    """task -> the classes of its head. Raises `MissingInput` or `UserError`."""
    words = read_words(layout.tasks, tasks, FETCH)
    return {
        task: Labels(said.classes, said.templates, config.task(task).title)
        for task, said in words.items()
    }


def heads_of(
    layout: Layout, labels: Mapping[str, Labels], pretrained: Pretrained
) -> dict[str, np.ndarray]:
    """task -> unit rows [classes, dim]. Raises `MissingInput` or `CheckpointError`."""
    heads = {}
    for task, said in labels.items():
        path = layout.head(task)
        arrays = open_arrays(path, EXPERTS)
        if "weight" not in arrays:
            raise CheckpointError(f"{path} holds no head. Run '{EXPERTS}' again.")
        heads[task] = arrays["weight"]
        check_heads(heads, {task: said}, pretrained, path)
    return heads


def check_heads(
    heads: Mapping[str, np.ndarray],
    labels: Mapping[str, Labels],
    pretrained: Pretrained,
    path: Path,
) -> None:
    """Raise `CheckpointError` unless there is a row for every class; `path`: in messages."""
    dim, kinds = pretrained.architecture["embed_dim"], kinds_of(heads)
    for task, said in labels.items():
        if kinds[task].shape != (len(said.classes), dim):
            raise CheckpointError(
                f"{path}: the head of {task} has shape {list(kinds[task].shape)} where its classes "
                f"and the model need {[len(said.classes), dim]}. Make it again."
            )


def tower_of(
    layout: Layout, method: str, seed: int, task: str, pretrained: Pretrained
) -> Mapping[str, Any]:
    """The image tower that a method uses for a task: name -> array or tensor, each made when used.

    Raises `MissingInput`, or `CheckpointError` unless the tensors are those of `pretrained`.
    """
    path, made_by = layout.merged(seed, method), MERGE
    if method == "experts":
        path, made_by = layout.expert(seed, task), EXPERTS
    arrays = open_arrays(path, made_by)
    if METHODS[method].masked:
        return _unmasked(arrays, pretrained, task, path)
    check_same_tensors(pretrained.merged, arrays, "the pretrained model", str(path))
    return arrays


def _unmasked(
    arrays: LazyArrays, pretrained: Pretrained, task: str, path: Path
) -> Mapping[str, Any]:
    import torch

    from pipeline.masked import Masked
    from pipeline.vectors import as_tensors

    cpu = torch.device("cpu")
    start, masks = as_tensors(pretrained.merged, cpu), as_tensors(arrays, cpu)
    return Masked.from_tensors(start, masks, str(path)).weights(task)
