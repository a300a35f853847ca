"""The checkpoints that are merged: opened, and held against each other before any work.

Safetensors stay in their files. A pickle is read as a whole; of experts, one at a time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.checkpoints._hf_layout import IMAGE, WORDS
from pipeline.checkpoints._opening import TOWER, Opened, open_checkpoint, zeros
from pipeline.checkpoints.architecture import complete, named_architecture, tensor_shapes
from pipeline.checkpoints.contents import INDEX, pieces_in, weights_in
from pipeline.checkpoints.hf import converted
from pipeline.checkpoints.reading import (
    OTHERWISE,
    check_told,
    clip_of,
    encoder_of,
    read_image_encoder,
)
from pipeline.checkpoints.writing import LazyArrays
from pipeline.errors import CheckpointError

BLOCKS = "transformer.resblocks."  # of open_clip's text tower


@dataclass(frozen=True)
class Pretrained:
    """The model that experts were fine-tuned from: both towers, or the image tower alone."""

    path: Path
    arrays: LazyArrays  # open_clip's name -> float32
    architecture: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether it has both towers."""
        return "logit_scale" in self.arrays

    @property
    def tower(self) -> LazyArrays:
        """The image tower."""
        return _only(self.arrays, lambda name, dtype: name.startswith(TOWER))

    @property
    def merged(self) -> LazyArrays:
        """Of the image tower what a merge changes: a ResNet has counters besides."""
        return _only(self.arrays, lambda name, dtype: name.startswith(TOWER) and "float" in dtype)


@dataclass(frozen=True)
class Expert:
    """A fine-tuned image encoder that fits the pretrained model."""

    name: str
    path: Path
    arrays: LazyArrays | None  # None: pickled, and would stay in memory as a whole


def open_pretrained(path: Path, model: str | None) -> Pretrained:
    """The pretrained model in a file or folder of any layout.

    `model`: open_clip's name of its architecture, for what does not tell its own. Raises
    `UserError` for an unknown `model`, `MissingInput` and `CheckpointError`.
    """
    found = _described(open_checkpoint(path))
    if _both_towers(found):
        arrays, architecture = clip_of(found, model)
        return Pretrained(path, arrays, architecture)
    arrays = found.arrays
    if found.layout == "hf":
        try:
            arrays = converted(arrays, (IMAGE,), source=str(path))
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} Give the whole CLIP that the experts were fine-tuned from."
            ) from None
    arrays = _only(arrays, lambda name, dtype: name.startswith(TOWER))
    architecture = _architecture(found, arrays, model)
    return Pretrained(path, arrays, architecture)


def open_expert(name: str, path: Path, pretrained: Pretrained) -> Expert:
    """An expert that was fine-tuned from `pretrained`; raises `CheckpointError` if it was not.

    Reads as much as shows that its weights differ from the pretrained ones.
    """
    arrays = expert_arrays(path, pretrained)
    ours = pretrained.merged
    if all(np.array_equal(arrays[each], ours[each]) for each in ours):
        raise CheckpointError(
            f"{path} holds the same image encoder as {pretrained.path}: the expert '{name}' is the "
            "pretrained model itself. Give the fine-tuned one."
        )
    kept = all(facts_in(file) is not None for file in weight_files(path))
    return Expert(name, path, arrays if kept else None)


def expert_arrays(path: Path, pretrained: Pretrained) -> LazyArrays:
    """The expert's tensors that are merged; raises `CheckpointError` for what does not fit."""
    architecture = pretrained.architecture
    if pretrained.whole:
        check_told(Opened(path, zeros({}), "open_clip", _told_in(path)), architecture, OTHERWISE)
        arrays = read_image_encoder(path, pretrained.arrays, architecture)
    else:
        found = _described(open_checkpoint(path))
        # An image tower alone does not tell of texts.
        told = {key: value for key, value in found.told.items() if key in architecture}
        arrays = encoder_of(replace(found, told=told), pretrained.arrays, architecture)
    names = pretrained.merged.kinds
    return _only(arrays, lambda name, dtype: name in names)


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the tensors of a checkpoint; raises `CheckpointError`."""
    file = weights_in(path) if path.is_dir() else path
    if not file.name.endswith(INDEX):
        return (file,)
    places = pieces_in(file.read_text(encoding="utf-8"), file)
    return tuple(file.parent / name for name in sorted(set(places.values())))


def facts_in(path: Path) -> dict[str, str] | None:
    """The metadata of a safetensors file; None for any other file."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return None


def _described(found: Opened) -> Opened:
    """With the architecture that this project's files have in their header."""
    told = _told_in(found.path)
    return replace(found, told=told) if told else found


def _told_in(path: Path) -> dict[str, Any]:
    """The architecture in the header of a file; nothing if there is none."""
    facts = facts_in(path) if path.is_file() else None
    if not facts or "architecture" not in facts:
        return {}
    try:
        found = json.loads(facts["architecture"])
        told = complete(found, found.get("mean"), found.get("std"))
        if "vocabulary" in facts:  # a tokenizer of its own
            told["text_cfg"]["vocab_size"] = len(json.loads(facts["vocabulary"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not say its architecture as it should ({error}). Write it again."
        ) from error
    return told


def _both_towers(found: Opened) -> bool:
    """Whether there are blocks of a text tower, and not some of its leftovers at most."""
    if found.layout == "hf":
        return any(name.endswith(next(iter(WORDS.tensors))) for name in found.arrays)
    return any(name.startswith(BLOCKS) for name in found.arrays)


def _architecture(found: Opened, arrays: LazyArrays, model: str | None) -> dict[str, Any]:
    """That of an image tower alone, `arrays`."""
    if model is not None:
        architecture = named_architecture(model)
        check_told(found, architecture, f"{model} says. Name the model that it is.")
    elif "vision_cfg" in found.told:
        architecture = dict(found.told)
    else:
        raise CheckpointError(
            f"{found.path} does not tell its architecture: name its model in open_clip's words, "
            "such as ViT-B-32-quickgelu."
        )
    if "visual.proj" in arrays:
        architecture.setdefault("embed_dim", arrays.kinds["visual.proj"].shape[1])
    shapes = tensor_shapes({"text_cfg": {}, "embed_dim": 0, **architecture})
    _check_shapes(found.path, arrays, shapes)
    return architecture


def _check_shapes(
    path: Path, arrays: LazyArrays, expected: Mapping[str, tuple[int, ...]] | None
) -> None:
    if expected is None:  # no transformer
        return
    ours = {name: shape for name, shape in expected.items() if name.startswith(TOWER)}
    theirs = {name: kind.shape for name, kind in arrays.kinds.items()}
    wrong = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensor(s) are not as its architecture says, such as "
            f"'{wrong[0]}'. Name the model that it is."
        )


def _only(arrays: LazyArrays, wanted: Any) -> LazyArrays:
    kinds = {name: kind for name, kind in arrays.kinds.items() if wanted(name, kind.dtype)}
    return LazyArrays(kinds, arrays.__getitem__)
