"""Coefficients from a file instead of learning: the published ones of AdaMerging, or a run's own.

The authors' table (https://github.com/EnnengYang/AdaMerging, copied into JSON) has one row per
tensor of their pickled image encoder, text leftovers included, and no names. The rows are named
here and found by name, because a table of another order fits just as well and merges nonsense.
"""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.clip import PREFIX
from pipeline.errors import CheckpointError, MissingInput, UserError, unknown
from pipeline.files import sha256
from pipeline.learning.coefficients import Coefficients, load_coefficients
from pipeline.merging.methods import METHODS

COLUMNS = ("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")

# (width, patch in pixels, tokens, blocks) -> entry of the table
_MODELS = {
    (768, 32, 50, 12): "ViT-B-32",
    (768, 16, 197, 12): "ViT-B-16",
    (1024, 14, 257, 24): "ViT-L-14",
}
_BLOCK = re.compile(re.escape(PREFIX) + r"transformer\.resblocks\.\d+\.ln_1\.weight")
_STEM = (
    *("class_embedding", "positional_embedding", "proj"),
    *("conv1.weight", "ln_pre.weight", "ln_pre.bias"),
)
_EACH_BLOCK = (
    *("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias"),
    *("attn.out_proj.weight", "attn.out_proj.bias", "ln_2.weight", "ln_2.bias"),
    *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
)
_PROCESSED = {"none": "plain", "ties": "TIES-processed", "awd": "AWD-processed"}
_TEXT_BEFORE = 3  # positional_embedding, text_projection, logit_scale
_TEXT_AFTER = 3  # token_embedding.weight, ln_final.weight, ln_final.bias


def read_coefficients(
    path: Path,
    method: str,
    pretrained: Mapping[str, Tensor],
    tasks: Sequence[str],
    keep: float = 0.2,
) -> Coefficients:
    """The coefficients of `method` in a file, with rows and columns as a merge needs them.

    `path`: a `.json` table as `published_coefficients` reads it, or a `.safetensors` file that
    `save_coefficients` wrote. `pretrained`: the image encoder's tensors by name; their order is
    that of the rows. `keep`: the share of entries that the ++ variants are to keep. Values:
    [layers, tasks], or [1, tasks] where `method` has one row. The history is empty, the facts are
    the file's name and SHA-256. Raises `UserError`: a file that is missing, damaged, of another
    kind, or that does not fit the method, the model or the tasks.
    """
    if path.suffix == ".json":
        return published_coefficients(path, method, pretrained, tasks)
    if path.suffix == ".safetensors":
        return _own_coefficients(path, method, pretrained, tasks, keep)
    raise UserError(
        f"{path} must end in .json (a published table) or .safetensors (what "
        "'python -m stages.learn' writes): name such a file in learn.coefficients."
    )


def published_coefficients(
    path: Path, method: str, pretrained: Mapping[str, Tensor], tasks: Sequence[str]
) -> Coefficients:
    """Coefficients from a table of the AdaMerging authors' layout.

    The file: {"coefficients": {model: {method: rows of 8 numbers in [0, 1]}}}, columns as in
    `COLUMNS`; one row for a task-wise method, else 158 (12 blocks) or 302 (24 blocks), of which 152
    and 296 belong to the image encoder. The model follows from the shapes of `pretrained`, of which
    nothing else is read. The authors learned them for their own checkpoints (family `original`),
    those of ++ methods on TIES-processed task vectors. Returns and raises as `read_coefficients`.
    """
    facts = _source(path, method)
    one_row = _granularity(method) == "task"
    model, blocks = _model(pretrained, method)
    names = _row_names(blocks)
    rows = _table(path, model, method)
    count = 1 if one_row else _TEXT_BEFORE + len(names) + _TEXT_AFTER
    _check_cells(f"{path}: {model}, {method}", rows, count)
    values = torch.tensor(rows, dtype=torch.float32)
    values = values[:, _columns(path, COLUMNS, tasks, method)]
    if one_row:
        return Coefficients(values, tuple(tasks), ("*",), {}, facts)
    places = _places(path, names, pretrained, method)
    values = values[_TEXT_BEFORE : _TEXT_BEFORE + len(names)][places]
    return Coefficients(values, tuple(tasks), tuple(pretrained), {}, facts)


def _own_coefficients(
    path: Path,
    method: str,
    pretrained: Mapping[str, Tensor],
    tasks: Sequence[str],
    keep: float,
) -> Coefficients:
    """What `save_coefficients` wrote, for other tasks or tensors in another order."""
    facts = _source(path, method)
    asked = _granularity(method)
    try:
        kept = load_coefficients(path, "python -m stages.learn")
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} holds no coefficients as 'python -m stages.learn' writes them, or is damaged: "
            f"copy it again, or {_instead(method)}."
        ) from error
    # Many rows need not be layer-wise ones: blocks' and frozen tensors' are spelled out too.
    one_row = kept.layers == ("*",)
    found = kept.facts.get("granularity", "task" if one_row else asked)
    if found != asked:
        raise UserError(
            f"{path} holds coefficients of granularity '{found}' where '{method}' takes '{asked}': "
            f"name a file of that method, or {_instead(method)}."
        )
    share = kept.facts.get("keep", 1.0)
    # Files of earlier releases tell the share alone.
    made = kept.facts.get("processing", "ties" if share < 1 else "none")
    if made != METHODS[method].defaults.get("processing", "none"):
        raise UserError(
            f"{path} is for {_PROCESSED.get(made, made)} task vectors, "
            f"which '{method}' does not take: name a file of that method, or {_instead(method)}."
        )
    if made == "ties" and share != keep:
        raise UserError(
            f"{path} is for task vectors of which {share:g} is kept, and learn.keep is {keep:g}: "
            f"set it to that, or {_instead(method)}."
        )
    values = kept.values[:, _columns(path, kept.tasks, tasks, method)]
    if one_row:
        return Coefficients(values, tuple(tasks), ("*",), {}, facts)
    values = values[_places(path, kept.layers, pretrained, method)]
    return Coefficients(values, tuple(tasks), tuple(pretrained), {}, facts)


def _instead(method: str) -> str:
    return f"remove '{method}' from learn.coefficients so that its coefficients are learned"


def _source(path: Path, method: str) -> dict[str, str]:
    """Where coefficients come from, for their facts."""
    try:
        return {"source": path.name, "sha256": sha256(path)}
    except OSError as error:
        raise MissingInput(
            f"{path} cannot be read ({error.strerror}): put the file of coefficients there, "
            f"or {_instead(method)}."
        ) from None


def _granularity(method: str) -> str:
    """What shares a task's coefficient: all tensors ("task"), a block's, or none ("layer")."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return METHODS[method].defaults.get("granularity", "task")


def _model(pretrained: Mapping[str, Tensor], method: str) -> tuple[str, int]:
    """The table's name for the architecture, and its number of blocks."""
    blocks = sum(_BLOCK.fullmatch(name) is not None for name in pretrained)
    first = pretrained.get(f"{PREFIX}conv1.weight")
    positions = pretrained.get(f"{PREFIX}positional_embedding")
    width, patch = (0, 0) if first is None else (first.shape[0], first.shape[-1])
    tokens = 0 if positions is None else positions.shape[0]
    model = _MODELS.get((width, patch, tokens, blocks))
    if model is None:
        raise UserError(
            f"There are published coefficients for {', '.join(_MODELS.values())}, not for the "
            f"pretrained model (width {width}, patches of {patch} pixels, {tokens} tokens, "
            f"{blocks} blocks): {_instead(method)}."
        )
    return model, blocks


def _row_names(blocks: int) -> list[str]:
    """The image tensors in the authors' state dict, between the leftovers of the text tower."""
    within = [f"transformer.resblocks.{n}.{name}" for n in range(blocks) for name in _EACH_BLOCK]
    return [PREFIX + name for name in (*_STEM, *within, "ln_post.weight", "ln_post.bias")]


def _table(path: Path, model: str, method: str) -> Any:
    """The rows as the file has them, unchecked."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}): copy the table again, or {_instead(method)}."
        ) from None
    keys = {"coefficients": "a table", model: "a model", method: "a method"}
    for key, kind in keys.items():
        if not isinstance(found, dict) or key not in found:
            has = f"has {reprlib.repr(list(found))}" if isinstance(found, dict) else "has no keys"
            raise UserError(
                f"{path} lacks '{key}' where {kind} should be (it {has} there): "
                f"name another file, or {_instead(method)}."
            )
        found = found[key]
    return found


def _check_cells(where: str, rows: Any, count: int) -> None:
    """`count` rows of 8 numbers in [0, 1], or a `UserError` that names the first that is not."""
    if not isinstance(rows, list) or len(rows) != count:
        found = f"{len(rows)} rows" if isinstance(rows, list) else "no list of rows"
        raise UserError(f"{where}: {found} where {count} should be: copy the table again.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(COLUMNS):
            found = f"{len(row)} columns" if isinstance(row, list) else "no list of columns"
            raise UserError(
                f"{where}: row {number} of {count} has {found} where {len(COLUMNS)} should be "
                f"({', '.join(COLUMNS)}): copy the table again."
            )
        for task, cell in zip(COLUMNS, row, strict=True):
            if isinstance(cell, bool) or not isinstance(cell, int | float) or not 0 <= cell <= 1:
                raise UserError(
                    f"{where}: row {number} of {count}, column {task}, holds {reprlib.repr(cell)}, "
                    "which is not a number from 0 to 1: copy the table again."
                )


def _columns(path: Path, have: Sequence[str], tasks: Sequence[str], method: str) -> list[int]:
    """Where the file keeps each task."""
    if lost := [task for task in tasks if task not in have]:
        raise UserError(
            f"{path} has no coefficients for the task(s) {', '.join(lost)}, only for "
            f"{', '.join(have)}: leave the task(s) out, or {_instead(method)}."
        )
    return [have.index(task) for task in tasks]


def _places(
    path: Path, rows: Sequence[str], pretrained: Mapping[str, Tensor], method: str
) -> list[int]:
    """The row of each tensor of `pretrained`; neither side may have a name that the other lacks."""
    places = {name: place for place, name in enumerate(rows)}
    for lost, what in (
        (pretrained.keys() - places.keys(), "lacks rows for tensors of the pretrained model:"),
        (places.keys() - pretrained.keys(), "has rows without a tensor in the pretrained model:"),
    ):
        if lost:
            names = ", ".join(sorted(lost)[:3]) + (", ..." if len(lost) > 3 else "")
            raise UserError(
                f"{path} {what} {names}: name a file for this architecture, or {_instead(method)}."
            )
    return [places[name] for name in pretrained]
