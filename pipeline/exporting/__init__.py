"""A merged model as a folder that other programs load, with all that is needed to use it.

    plan = planned(config, layout, Request(Path("merged-clip"), "open_clip", "ties", seed=0))
    export(plan, {"commit": "...", "dirty": False})

Two formats: that of open_clip (`local-dir:`) and that of Hugging Face's `transformers`
(`CLIPModel`). Both hold the merged image tower, the pretrained model's text tower, the tasks' heads
and labels, where all of it comes from, and a model card. No torch is needed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoints.contents import HF_CONFIG, HF_PIXELS, OPEN_CLIP_CONFIG
from pipeline.checkpoints.writing import LazyArrays, write_safetensors
from pipeline.classifier import check_choice, one_model
from pipeline.config import Config
from pipeline.errors import UserError, unknown
from pipeline.exported import CARD, FORMATS, HEADS, LABELS, MADE_BY, PROVENANCE, WEIGHTS, Labels
from pipeline.exporting.accuracy import accuracy_of
from pipeline.exporting.card import Card, model_card, parameters_of
from pipeline.exporting.formats import BYTE_PAIRS, write_model
from pipeline.exporting.place import check_place
from pipeline.exporting.provenance import provenance_of
from pipeline.fetching.room import check_disks
from pipeline.files import write_json, write_text
from pipeline.layout import Layout
from pipeline.merge_files.inputs import Pretrained, facts_in
from pipeline.merge_files.outputs import Output, making
from pipeline.merging.methods import METHODS
from pipeline.profile_models import heads_of, labels_of, pretrained_of, tower_of

__all__ = ["Plan", "Request", "export", "planned"]

CONFIGURED = {"open_clip": (OPEN_CLIP_CONFIG,), "hf": (HF_CONFIG, HF_PIXELS)}
KEPT = ("family", "vocabulary", "tokenizer")  # of the pretrained file's header
Progress = Callable[[int, str], None]


@dataclass(frozen=True)
class Request:
    """What is to be exported, and where to."""

    out: Path  # a folder
    form: str  # one of FORMATS
    method: str
    seed: int
    replace: bool = False  # an earlier export that is there


@dataclass(frozen=True)
class Plan:
    """A request that was checked."""

    request: Request
    config: Config
    layout: Layout
    pretrained: Pretrained
    tower: Mapping[str, Any]  # the merged image tower
    heads: Mapping[str, np.ndarray]
    labels: Mapping[str, Labels]

    @property
    def facts(self) -> dict[str, str]:
        """What the header of the pretrained model's file says."""
        return facts_in(self.layout.pretrained) or {}

    @property
    def byte_pairs(self) -> bool:
        """Whether the model reads CLIP's own tokens, and no words of a vocabulary of its own."""
        return "vocabulary" not in self.facts

    @property
    def tensors(self) -> LazyArrays:
        """Both towers: open_clip's name -> float32, each read when it is asked for."""
        whole = self.pretrained.arrays
        return LazyArrays(
            whole.kinds, lambda name: (self.tower if name in self.tower else whole)[name]
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the tensors in each large file that is written."""
        weights = sum(kind.nbytes for kind in self.pretrained.arrays.kinds.values())
        heads = sum(head.nbytes for head in self.heads.values())
        return {WEIGHTS[self.request.form]: weights, HEADS: heads}

    @property
    def small_files(self) -> tuple[str, ...]:
        """What else is written."""
        tokenizer = BYTE_PAIRS if self.request.form == "hf" and self.byte_pairs else ()
        return (*CONFIGURED[self.request.form], *tokenizer, LABELS, PROVENANCE, CARD)

    @property
    def steps(self) -> int:
        """How far `export` counts: the tensors that are written."""
        return len(self.pretrained.arrays)


def planned(config: Config, layout: Layout, request: Request) -> Plan:
    """Check all of a request by names and what files tell of their tensors; writes nothing.

    Raises `UserError` for what cannot be exported, `MissingInput` naming the stage to run.
    """
    method, seed = request.method, request.seed
    if request.form not in FORMATS:
        raise unknown("format", request.form, FORMATS)
    check_choice(config, method, seed)
    if not one_model(method):
        raise UserError(
            f"{METHODS[method].title} is no single model, but one for every task: export another "
            f"method, or use it as it is: 'adamerge predict --method {method} --task "
            f"{config.profile.tasks[0]}'."
        )
    check_place(request.out, method, [layout.artifacts, layout.metrics], request.replace)
    tasks = config.profile.tasks
    labels = labels_of(config, layout, tasks)
    pretrained = pretrained_of(layout)
    heads = heads_of(layout, labels, pretrained)
    Output(request.out, None).of(pretrained)  # raises where there is no such layout
    tower = tower_of(layout, method, seed, tasks[0], pretrained)
    plan = Plan(request, config, layout, pretrained, tower, heads, labels)
    check_disks({"the export": (request.out.absolute().parent, sum(plan.sizes.values()))})
    return plan


def export(
    plan: Plan, git: Mapping[str, Any], on_progress: Progress = lambda done, words: None
) -> dict[str, Any]:
    """Write the folder, all of it or nothing; returns what its provenance.json says.

    `git`: the project's `commit` and whether it is `dirty`. `on_progress`: called with (done, a few
    words), up to `plan.steps`. Of the weights a few tensors are in memory at a time. Raises
    `UserError` where the disk refuses or a weight is no finite number.
    """
    request, architecture = plan.request, plan.pretrained.architecture
    accuracy = accuracy_of(plan.config, plan.layout, request.method, request.seed)
    with making(Output(request.out, None)) as (_, folder):
        kept = {key: value for key, value in plan.facts.items() if key in KEPT}
        header = {
            "written_by": MADE_BY,
            "architecture": json.dumps(architecture, sort_keys=True),
            "method": request.method,
            "seed": str(request.seed),
        }
        tensors = _counted(plan.tensors, on_progress)
        write_model(request.form, folder, tensors, architecture, kept | header, plan.byte_pairs)
        write_safetensors(folder / HEADS, plan.heads, {"written_by": MADE_BY})
        write_json(folder / LABELS, {task: said.facts for task, said in plan.labels.items()})
        provenance = provenance_of(
            plan.config,
            plan.layout,
            request.method,
            request.seed,
            request.form,
            folder / WEIGHTS[request.form],
            git,
            accuracy,
        )
        write_json(folder / PROVENANCE, provenance)
        shapes = {name: kind.shape for name, kind in plan.pretrained.arrays.kinds.items()}
        card = Card(
            request.out.absolute().name,
            provenance,
            plan.labels,
            architecture,
            plan.byte_pairs,
            parameters_of(shapes),
        )
        write_text(folder / CARD, model_card(card))
        check_place(request.out, request.method, [], request.replace)  # it may be there by now
    return provenance


def _counted(arrays: LazyArrays, on_progress: Progress) -> LazyArrays:
    done = 0

    def make(name: str) -> np.ndarray:
        nonlocal done
        made = arrays[name]
        done += 1
        on_progress(done, name)
        return made

    return LazyArrays(arrays.kinds, make)
