"""Weights in and out: safetensors with open_clip key names, checked when read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.files import need, replacing


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and the facts about them; the same input gives the same bytes."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = memoryview(save(ready, metadata=dict(metadata)))
    size = int.from_bytes(data[:8], "little")
    # The library writes the metadata in random order.
    header = json.dumps(
        json.loads(bytes(data[8 : 8 + size])),
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data[:8])
        file.write(header.encode().ljust(size))
        file.write(data[8 + size :])


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
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(
                    f"{path}: the tensor '{name}' holds NaN or infinity. "
                    "Replace the file: a model cannot be merged from it."
                )
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
