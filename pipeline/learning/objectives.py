"""What the coefficients minimise: the paper's entropy, and alternatives that need no labels either.

An objective gives one loss per image, so that a batch may be divided in any way among chunks of
memory and among processes. What it needs of other images (the mean prediction) or of other models
(the experts' predictions) comes in ready-made.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import unknown
from pipeline.predictions import entropy

ENTROPY_MARGIN = 0.4  # of log C: images above are unreliable (https://arxiv.org/abs/2204.02610)


@dataclass(frozen=True)
class Objective:
    """`losses(logits, reference)`: logits [images, classes] -> one loss per image, in nats.

    `reference`: what `needs` names: `mean`, the mean prediction of the task's batch [classes], or
    `experts`, the expert's predictions for the same images [images, classes].
    """

    summary: str
    paper: str
    losses: Callable[[Tensor, Tensor | None], Tensor]
    needs: Literal["", "mean", "experts"] = ""


def _entropy(logits: Tensor, reference: Tensor | None) -> Tensor:
    return entropy(logits)


def _normalized(logits: Tensor, reference: Tensor | None) -> Tensor:
    return entropy(logits) / math.log(max(2, logits.shape[1]))


def _diverse(logits: Tensor, mean: Tensor | None) -> Tensor:
    assert mean is not None
    # The mean over the batch is H(predictions) - H(mean prediction). The mean's own derivative is
    # this one's with the logarithm held fixed: what is left of it sums to zero over classes.
    surprise = -mean.detach().clamp_min(torch.finfo(mean.dtype).tiny).log()
    return entropy(logits) - logits.softmax(dim=1) @ surprise


def _gated(logits: Tensor, reference: Tensor | None) -> Tensor:
    nats = entropy(logits)
    margin = ENTROPY_MARGIN * math.log(max(2, logits.shape[1]))
    weight = (margin - nats.detach()).exp()
    return nats * torch.where(nats.detach() < margin, weight, 0.0)


def _distillation(logits: Tensor, experts: Tensor | None) -> Tensor:
    assert experts is not None
    return F.kl_div(logits.log_softmax(dim=1), experts, reduction="none").sum(dim=1)


OBJECTIVES: dict[str, Objective] = {
    "entropy": Objective(
        "the summed mean entropies of the paper", "https://arxiv.org/abs/2310.02575", _entropy
    ),
    "normalized_entropy": Objective(
        "each task's entropy divided by log of its number of classes",
        "https://arxiv.org/abs/2310.02575",
        _normalized,
    ),
    "diversity": Objective(
        "entropy minus the entropy of the batch's mean prediction",
        "https://arxiv.org/abs/2002.08546",
        _diverse,
        "mean",
    ),
    "gated_entropy": Objective(
        "entropy of reliable images only, the more certain the heavier",
        "https://arxiv.org/abs/2204.02610",
        _gated,
    ),
    "distillation": Objective(
        "divergence from the experts' predictions for the same images",
        "https://arxiv.org/abs/1503.02531",
        _distillation,
        "experts",
    ),
}


def objective_named(name: str) -> Objective:
    """The row of `OBJECTIVES`; raises `UserError` for an unknown name."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
