"""Merge checkpoints that lie in files, without a profile: tensor by tensor, into a file or folder.

    plan = planned(Request("ties", Path("clip"), {"cars": Path("cars.pt")}, Path("merged")))
    merge_files(plan, "cpu")

A package beside `pipeline.merging`, whose modules all stages that merge depend on.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline.checkpoints.writing import Lazy, LazyArrays, kinds_of, open_arrays, write_safetensors
from pipeline.errors import UserError, unknown
from pipeline.files import sha256
from pipeline.merge_files.inputs import (
    Expert,
    Pretrained,
    expert_arrays,
    open_expert,
    open_pretrained,
    weight_files,
)
from pipeline.merge_files.outputs import Output, check_output, check_room, making, write_model
from pipeline.merging.methods import METHODS
from pipeline.merging.options import check_count, check_options

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.vectors import TaskVectors

__all__ = ["Plan", "Request", "merge_files", "planned"]

NOTHING_MERGED = ("pretrained", "experts")
Progress = Callable[[int, str], None]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Request:
    """What is to be merged, and where to."""

    method: str
    pretrained: Path
    experts: Mapping[str, Path]  # name -> file or folder
    out: Path  # a .safetensors file, or a folder
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    model: str | None = None  # open_clip's name, for a pretrained model that does not tell its own
    replace: bool = False  # what an earlier merge wrote to `out`


@dataclass(frozen=True)
class Plan:
    """A request that was checked."""

    request: Request
    pretrained: Pretrained
    experts: tuple[Expert, ...]
    output: Output

    @property
    def options(self) -> dict[str, Any]:
        """All options of the method."""
        return {**METHODS[self.request.method].defaults, **self.request.options}

    @property
    def size(self) -> tuple[int, int]:
        """Tensors and parameters of one merged image tower."""
        kinds = self.pretrained.merged.kinds.values()
        return len(kinds), sum(math.prod(kind.shape) for kind in kinds)

    @property
    def steps(self) -> int:
        """How far `merge_files` counts: inputs, and tensors that are written."""
        models = len(self.output.models)
        return 1 + len(self.experts) + models * len(self.pretrained.tower)


def planned(request: Request) -> Plan:
    """Check all of a request, by names, options, and what files tell of their tensors.

    Writes nothing, and reads little but pickles. Raises `UserError` for what cannot be merged.
    """
    check_method(request.method)
    check_options(request.method, request.options)
    check_count(request.method, len(request.experts), request.options)
    if request.seed < 0:
        raise UserError(f"The seed is {request.seed}: give a whole number of at least 0.")
    for path in (request.pretrained, *request.experts.values()):
        if not os.path.exists(path):  # Path.exists raises for a name that is too long
            raise UserError(f"There is no {path}: correct the path of the checkpoint.")
    _check_distinct(request.experts)
    per_task = METHODS[request.method].reads("task_identity")
    tasks = tuple(request.experts) if per_task else None
    inputs = (request.pretrained, *request.experts.values())
    output = check_output(request.out, request.method, tasks, inputs, request.replace)
    pretrained = open_pretrained(request.pretrained, request.model)
    experts = [open_expert(name, path, pretrained) for name, path in request.experts.items()]
    output = output.of(pretrained)
    check_room(output, pretrained, copies=sum(expert.arrays is None for expert in experts))
    return Plan(request, pretrained, tuple(experts), output)


def _check_distinct(experts: Mapping[str, Path]) -> None:
    """Raise `UserError` for two experts of one path: the merge would count it twice."""
    held: dict[Path, str] = {}
    for name, path in experts.items():
        first = held.setdefault(path.resolve(), name)
        if first != name:
            raise UserError(
                f"The experts '{first}' and '{name}' are one checkpoint, {path}: correct a path, "
                "or leave one out."
            )


def check_method(method: str) -> None:
    """Raise `UserError` unless the method merges by weights alone."""
    merging = [
        name
        for name, row in METHODS.items()
        if not row.learns and not row.reads("images") and name not in NOTHING_MERGED
    ]
    if method in NOTHING_MERGED:
        raise UserError(f"{method} merges nothing: use the checkpoint as it is.")
    if method not in METHODS:
        raise unknown("method", method, merging)
    if method not in merging:
        raise UserError(
            f"{method} needs images, which checkpoints do not hold: name it in a profile and run "
            "'make repro' (docs/methods.md)."
        )


def merge_files(plan: Plan, device: str, on_progress: Progress = lambda done, words: None) -> None:
    """Merge, and write what the plan says; all of it is there at the end, or nothing.

    Of inputs in safetensors files, a few tensors of each are in memory at a time. `device`: what
    torch computes on. `on_progress`: called with (done, a few words), up to `plan.steps`. Raises
    `UserError` where the disk refuses, or a weight, of an input or merged, is no finite number.
    """
    import torch

    from pipeline.vectors import TaskVectors, as_tensors

    count = _Counter(on_progress)
    with making(plan.output) as (folder, result):
        sources = {"": _source(plan.request.pretrained)}
        count.one(str(plan.request.pretrained))
        start = as_tensors(plan.pretrained.merged, torch.device(device))
        parts = {}
        for expert in plan.experts:
            arrays = expert.arrays
            if arrays is None:
                arrays = _copied(expert, plan.pretrained, folder / f"{expert.name}.copy")
            parts[expert.name] = as_tensors(arrays, torch.device(device))
            sources[expert.name] = _source(expert.path)
            count.one(str(expert.path))
        facts = _facts(plan, sources)
        vectors = TaskVectors.between(start, parts)
        for task, weights in _merged(plan, vectors).items():
            made = _counted(_finite(_complete(weights, plan.pretrained), plan.request), count)
            write_model(plan.output, result, task, made, plan.pretrained, facts)


def _copied(expert: Expert, pretrained: Pretrained, path: Path) -> LazyArrays:
    """The tensors of a pickled expert from a file, so that no two are in memory as a whole."""
    write_safetensors(path, expert_arrays(expert.path, pretrained), {})
    return open_arrays(path)


def _merged(plan: Plan, vectors: "TaskVectors") -> "Mapping[str, Mapping[str, Tensor]]":
    """Task -> weights; "" stands for all tasks."""
    from pipeline.merging import merge_vectors

    request = plan.request
    merged = merge_vectors(request.method, vectors, seed=request.seed, **request.options)
    return merged.extras or {"": merged.shared}


def _complete(weights: "Mapping[str, Tensor]", pretrained: Pretrained) -> Lazy[Any]:
    """With what is not merged of the image tower, as arrays."""

    def make(name: str) -> Any:
        return weights[name].cpu().numpy() if name in weights else pretrained.arrays[name]

    return Lazy(kinds_of(pretrained.tower), make)


def _finite(arrays: LazyArrays, request: Request) -> LazyArrays:
    """The same, but that an array with NaN or infinity raises `UserError` when it is made.

    Inputs are finite, or are refused: what is not comes of the method's options.
    """

    def make(name: str) -> Any:
        made = arrays[name]
        if not np.isfinite(made).all():
            given = ", ".join(f"{option} {value}" for option, value in request.options.items())
            raise UserError(
                f"{request.method} makes NaN or infinity of the tensor '{name}', and nothing is "
                f"written: look at the method's options ({given or 'none was given'})."
            )
        return made

    return Lazy(arrays.kinds, make)


class _Counter:
    """Tells how many steps are done."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress, self._done = on_progress, 0

    def one(self, words: str) -> None:
        self._done += 1
        self._on_progress(self._done, words)


def _counted(arrays: Lazy[Value], count: _Counter) -> Lazy[Value]:
    def make(name: str) -> Value:
        made = arrays[name]
        count.one(name)
        return made

    return Lazy(arrays.kinds, make)


def _source(path: Path) -> dict[str, Any]:
    """Which files a checkpoint is, for the record; reads them once."""
    return {"path": str(path), "sha256": {file.name: sha256(file) for file in weight_files(path)}}


def _facts(plan: Plan, sources: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What files of the merge say of themselves. `sources`: of experts, and "" of pretrained."""
    request, as_text = plan.request, partial(json.dumps, sort_keys=True)
    return {
        "architecture": as_text(plan.pretrained.architecture),
        "method": request.method,
        "options": as_text(plan.options),
        "seed": str(request.seed),
        "pretrained": as_text(sources.pop("")),
        "experts": as_text(sources),
    }
