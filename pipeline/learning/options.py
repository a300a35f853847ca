"""What coefficient learning is given: images and heads, and how to learn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.learning.feeding import Order
from pipeline.learning.granularity import Granularity
from pipeline.learning.schedules import Schedule, schedule_named


@dataclass(frozen=True)
class FitData:
    """What a merge may read beside weights: images, heads, and labels where a choice needs them."""

    encoder: ImageEncoder  # its parameters are overwritten
    logit_scale: float
    heads: Mapping[str, Tensor]  # task -> unit rows [classes, dim]
    images: Mapping[str, np.ndarray]  # task -> uint8 [N, 3, height, width]
    labels: Mapping[str, np.ndarray] | None = None  # task -> int64 [N]
    experts: Callable[[str], Mapping[str, Tensor]] | None = None  # task -> its expert's weights


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """The published hyper-parameters by default (one batch a step: FusionBench's reading)."""

    granularity: Granularity = "layer"
    schedule: str = "paper"  # of SCHEDULES
    steps: int | None = None  # at most; None: the schedule's own
    lr: float | None = None  # None: the schedule's own
    batch: int = 16  # images per task
    batches_per_task: int = 1  # in a step; the authors' code takes 2
    order: Order = "random"  # of images; a stream takes as many steps as its images give
    initial: float = 0.3
    clamp: bool = True  # to [0, 1]
    objective: str = "entropy"  # of OBJECTIVES
    on_collapse: Literal["warn", "restore"] = "warn"
    memory_gb: float | None = None  # weights, task vectors and activations; None: what is free

    @property
    def resolved(self) -> Schedule:
        """The schedule with these steps and this rate. Raises `UserError` for an unknown name."""
        found = schedule_named(self.schedule, self.steps, self.lr)
        return replace(found, plateau=0.0) if self.order == "stream" else found


PUBLISHED = LearningOptions()
