"""The table of merging methods: what each is called, needs and takes.

It imports nothing heavy, so that a profile's names and options can be checked at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Need = Literal["images", "labels", "task_identity"]

TASK_ARITHMETIC = "https://arxiv.org/abs/2212.04089"
TIES = "https://arxiv.org/abs/2306.01708"
ADAMERGING = "https://arxiv.org/abs/2310.02575"


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`."""

    title: str
    summary: str
    function: str  # "module:name" below pipeline.merging
    paper: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[Need] = frozenset()  # beside the pretrained model and the experts

    def reads(self, need: Need) -> bool:
        """Whether the method needs `need` to be fitted or used."""
        return need in self.needs


def _adamerging(title: str, summary: str, granularity: str, keep: float) -> Method:
    return Method(
        title,
        summary,
        "learned:adamerging",
        ADAMERGING,
        {
            "granularity": granularity,
            "keep": keep,
            "schedule": "paper",
            "steps": None,  # None: the schedule's own, as is the rate
            "lr": None,
            "batch": 16,
            "batches_per_task": 1,
            "initial": 0.3,
            "clamp": True,
            "objective": "entropy",
            "on_collapse": "warn",
        },
        frozenset({"images"}),
    )


METHODS: dict[str, Method] = {
    "pretrained": Method(
        "Pretrained", "no merging: zero-shot", "arithmetic:pretrained", TASK_ARITHMETIC
    ),
    "weight_average": Method(
        "Weight averaging",
        "mean of the experts",
        "arithmetic:weight_average",
        "https://arxiv.org/abs/2203.05482",
    ),
    "task_arithmetic": Method(
        "Task arithmetic",
        "pretrained + coefficient x sum of task vectors",
        "arithmetic:task_arithmetic",
        TASK_ARITHMETIC,
        {"coefficient": 0.3},
    ),
    "task_arithmetic_tuned": Method(
        "Task arithmetic, tuned on labels",
        "task arithmetic with the coefficient that labels of `select` prefer",
        "learned:tuned",
        TASK_ARITHMETIC,
        {"grid": tuple(round(0.05 * step, 2) for step in range(21))},
        frozenset({"images", "labels"}),
    ),
    "ties": Method(
        "TIES-merging",
        "trim, elect signs, add the entries that agree",
        "arithmetic:ties",
        TIES,
        {"coefficient": 0.3, "keep": 0.2},
    ),
    "adamerging_taskwise": _adamerging(
        "AdaMerging (task-wise)", "one coefficient a task, by entropy", "task", 1.0
    ),
    "adamerging_taskwise_pp": _adamerging(
        "AdaMerging++ (task-wise)", "the same on TIES-processed task vectors", "task", 0.2
    ),
    "adamerging_blockwise": _adamerging(
        "AdaMerging (block-wise)", "one coefficient a block and task, by entropy", "block", 1.0
    ),
    "adamerging_layerwise": _adamerging(
        "AdaMerging (layer-wise)", "one coefficient a tensor and task, by entropy", "layer", 1.0
    ),
    "adamerging_layerwise_pp": _adamerging(
        "AdaMerging++ (layer-wise)", "the same on TIES-processed task vectors", "layer", 0.2
    ),
    "experts": Method(
        "Experts (upper bound)",
        "no merging: each task's own fine-tuned model",
        "arithmetic:experts",
        "https://arxiv.org/abs/2109.01903",
        needs=frozenset({"task_identity"}),
    ),
}
