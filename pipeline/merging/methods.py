"""The table of merging methods: what each is called, needs and takes.

It imports nothing heavy, so that a profile's names and options can be checked at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Need = Literal["images", "labels", "experts", "task_identity", "extra_parameters"]

TASK_ARITHMETIC = "https://arxiv.org/abs/2212.04089"
TIES = "https://arxiv.org/abs/2306.01708"
DARE = "https://arxiv.org/abs/2311.03099"
TALL_MASKS = "https://arxiv.org/abs/2405.07813"
ISO = "https://arxiv.org/abs/2502.04959"
AWD = "https://arxiv.org/abs/2411.18729"
ADAMERGING = "https://arxiv.org/abs/2310.02575"


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`."""

    title: str
    summary: str
    function: str  # "module:name" below pipeline.merging
    paper: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[Need] = frozenset()  # beside the pretrained model and the task vectors
    experts: tuple[int, int | None] = (1, None)  # how many it merges: at least, and at most

    def reads(self, need: Need) -> bool:
        """Whether the method needs `need` to be fitted or used."""
        return need in self.needs

    @property
    def masked(self) -> bool:
        """Whether its models are kept as one vector and a mask for every task."""
        return self.function.startswith("masks:") and self.reads("task_identity")

    @property
    def learns(self) -> bool:
        """Whether it learns or chooses merging coefficients from images; else it merges at once."""
        return self.function.startswith("learned:")


def _adamerging(title: str, summary: str, granularity: str, processing: str = "none") -> Method:
    return Method(
        title,
        summary,
        "learned:adamerging",
        AWD if processing == "awd" else ADAMERGING,
        {
            "granularity": granularity,
            "processing": processing,  # of task vectors: none, ties or awd
            "keep": 0.2,  # of ties
            "schedule": "paper",
            "steps": None,  # None: the schedule's own, as is the rate
            "lr": None,
            "batch": 16,
            "batches_per_task": 1,
            "order": "random",  # of images; stream: each is seen once
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
        {"coefficient": 0.3, "keep": 0.2, "reduce": "sum"},
    ),
    "dare": Method(
        "DARE",
        "drop entries at random, rescale the rest, then task arithmetic",
        "sparse:dare",
        DARE,
        {"coefficient": 0.3, "drop": 0.5},
    ),
    "dare_ties": Method(
        "DARE + TIES",
        "drop entries at random, rescale the rest, then TIES",
        "sparse:dare_ties",
        DARE,
        {"coefficient": 0.3, "drop": 0.5, "keep": 0.2},
    ),
    "breadcrumbs": Method(
        "Breadcrumbs",
        "mask the largest and the smallest entries of every tensor, then task arithmetic",
        "sparse:breadcrumbs",
        "https://arxiv.org/abs/2312.06795",
        {"coefficient": 0.3, "largest": 0.01, "smallest": 0.85},
    ),
    "magmax": Method(
        "MagMax",
        "of every entry the task vector with the largest magnitude",
        "sparse:magmax",
        "https://arxiv.org/abs/2407.06322",
        {"coefficient": 0.5},
    ),
    "consensus_ta": Method(
        "Consensus TA",
        "task arithmetic on the entries that at least two tasks need",
        "masks:consensus_ta",
        TALL_MASKS,
        {"coefficient": 0.3, "mask": 0.4, "least": 2},
    ),
    "pcb": Method(
        "PCB-merging",
        "entries weighted by their standing within and between tasks",
        "competition:pcb",
        "https://arxiv.org/abs/2410.02396",
        {"coefficient": 1.2, "keep": 0.1},
    ),
    "lines": Method(
        "LiNeS",
        "task arithmetic with a coefficient that grows from block to block",
        "layers:lines",
        "https://arxiv.org/abs/2410.17146",
        {"first": None, "slope": 0.3},
    ),
    "model_stock": Method(
        "Model Stock",
        "per tensor as far towards the average as the angle between task vectors says",
        "layers:model_stock",
        "https://arxiv.org/abs/2403.19522",
        experts=(2, None),
    ),
    "slerp": Method(
        "SLERP",
        "two experts, along the arc between their weights",
        "layers:slerp",
        "https://doi.org/10.1145/325334.325242",
        {"share": 0.5},
        experts=(2, 2),
    ),
    "tsv_m": Method(
        "TSV-M",
        "leading singular vectors of every task, made orthogonal",
        "spectral:tsv_m",
        "https://arxiv.org/abs/2412.00081",
        {"coefficient": 1.0},
    ),
    "iso_c": Method(
        "Iso-C",
        "the sum of task vectors with all singular values alike",
        "spectral:iso_c",
        ISO,
        {"coefficient": 1.3},
    ),
    "iso_cts": Method(
        "Iso-CTS",
        "the same, with directions of single tasks beside the common ones",
        "spectral:iso_cts",
        ISO,
        {"coefficient": 1.3, "common": 0.8},
    ),
    "wudi": Method(
        "WUDI-merging",
        "linear layers that interfere least with every task vector",
        "interference:wudi",
        "https://arxiv.org/abs/2503.08099",
        {"solve": "adam", "steps": 300, "lr": 1e-5},
    ),
    "awd": Method(
        "AWD",
        "task vectors less a shared part that makes them orthogonal, then task arithmetic",
        "interference:awd",
        AWD,
        {"coefficient": 0.3, "weight": 0.1, "rate": 0.01, "steps": 300},
    ),
    "fisher": Method(
        "Fisher merging",
        "mean of the experts, weighted by the Fisher information of every entry",
        "fisher:fisher",
        "https://arxiv.org/abs/2111.09832",
        {"images": 256},
        frozenset({"images", "experts"}),
    ),
    "regmean": Method(
        "RegMean",
        "linear layers that answer as every expert's do on its own images",
        "regmean:regmean",
        "https://arxiv.org/abs/2212.09849",
        {"images": 256, "shrink": 0.95},
        frozenset({"images", "experts"}),
    ),
    "regmean_plus_plus": Method(
        "RegMean++",
        "the same on the activations of the model merged so far",
        "regmean:regmean_plus_plus",
        "https://arxiv.org/abs/2508.03121",
        {"images": 256, "shrink": 0.95},
        frozenset({"images", "experts"}),
    ),
    "adamerging_taskwise": _adamerging(
        "AdaMerging (task-wise)", "one coefficient a task, by entropy", "task"
    ),
    "adamerging_taskwise_pp": _adamerging(
        "AdaMerging++ (task-wise)", "the same on TIES-processed task vectors", "task", "ties"
    ),
    "adamerging_blockwise": _adamerging(
        "AdaMerging (block-wise)", "one coefficient a block and task, by entropy", "block"
    ),
    "adamerging_layerwise": _adamerging(
        "AdaMerging (layer-wise)", "one coefficient a tensor and task, by entropy", "layer"
    ),
    "adamerging_layerwise_pp": _adamerging(
        "AdaMerging++ (layer-wise)", "the same on TIES-processed task vectors", "layer", "ties"
    ),
    "adamerging_layerwise_awd": _adamerging(
        "AWD AdaMerging (layer-wise)", "the same on AWD-processed task vectors", "layer", "awd"
    ),
    "tall_mask": Method(
        "TALL masks",
        "the sum of task vectors behind one mask per task",
        "masks:tall_mask",
        TALL_MASKS,
        {"mask": 0.4},
        frozenset({"task_identity", "extra_parameters"}),
    ),
    "emr": Method(
        "EMR-merging",
        "one unified task vector, a mask and a scale per task",
        "masks:emr",
        "https://arxiv.org/abs/2405.17461",
        needs=frozenset({"task_identity", "extra_parameters"}),
    ),
    "experts": Method(
        "Experts (upper bound)",
        "no merging: each task's own fine-tuned model",
        "arithmetic:experts",
        "https://arxiv.org/abs/2109.01903",
        needs=frozenset({"task_identity", "extra_parameters"}),
    ),
}
