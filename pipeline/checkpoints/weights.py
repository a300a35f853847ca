"""Weights in and out as torch tensors: safetensors with open_clip key names, checked when read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.checkpoints.writing import kinds_of, not_finite, write_blocks
from pipeline.errors import CheckpointError
from pipeline.files import need


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and the facts about them; the same input gives the same bytes.

    One tensor at a time is brought from its device.
    """
    write_blocks(path, kinds_of(tensors), lambda name: _bytes(tensors[name]), metadata)


def _bytes(tensor: Tensor) -> np.ndarray:
    # numpy has no bfloat16: its bits go through as they are.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def load_weights(path: Path, made_by: str) -> dict[str, Tensor]:
    """Every tensor of a file, floating-point ones as float32.

    Raises `MissingInput` (naming the stage `made_by`), or `CheckpointError` where the file is
    damaged or a weight is not a finite number.
    """
    with _opened(path, made_by) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.float()
            if not bool(torch.isfinite(tensors[name]).all()):
                raise not_finite(path, name)
    return tensors


def load_metadata(path: Path, made_by: str) -> dict[str, str]:
    """The facts that `save_weights` stored; raises as `load_weights` does."""
    with _opened(path, made_by) as file:
        return dict(file.metadata() or {})


def _opened(path: Path, made_by: str) -> Any:
    try:
        return safe_open(need(path, made_by), framework="pt")
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Delete it and run '{made_by}' again."
        ) from error
