"""Run a model over images and keep what its metrics need."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.evaluation import Predictions

if TYPE_CHECKING:
    from pipeline.joint import Joint

BATCH = 128  # images; of more, activations of a CPU leave its caches


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of softmax(logits) [batch, classes] -> [batch]."""
    logs = logits.log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1)


@torch.inference_mode()
def probabilities(
    encoder: ImageEncoder, head: Tensor, logit_scale: float, images: np.ndarray
) -> Tensor:
    """softmax of the logits [N, classes] for uint8 images [N, 3, height, width]."""
    device = next(encoder.parameters()).device
    parts = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(device)
        parts.append((logit_scale * encoder(batch) @ head.to(device).T).softmax(dim=1))
    return torch.cat(parts)


@torch.inference_mode()
def predict(
    encoder: ImageEncoder,
    head: Tensor,
    logit_scale: float,
    images: np.ndarray,
    labels: np.ndarray,
    joint: "Joint | None" = None,
) -> Predictions:
    """Classify uint8 images [N, 3, height, width] with a zero-shot head [classes, dim].

    `joint`: the classes of all tasks as this task sees them; each image's features serve both.
    """
    device = next(encoder.parameters()).device
    head = head.to(device)
    joint = joint and joint.to(device)
    parts = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(device)
        target = torch.from_numpy(np.array(labels[start : start + BATCH])).to(device)
        features = encoder(batch)
        parts.append(
            _figures(logit_scale * features @ head.T, target)
            | ({} if joint is None else joint.judge(features, target))
        )
    arrays = {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}
    return Predictions(np.arange(len(images), dtype=np.int32), np.array(labels), **arrays)


def _figures(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What `Predictions` keeps of logits [batch, classes] and labels [batch]."""
    probabilities = logits.softmax(dim=1)
    best = probabilities.topk(min(5, logits.shape[1]), dim=1)
    place = target[:, None]
    error = probabilities.scatter_add(1, place, -torch.ones_like(place, dtype=logits.dtype))
    return {
        "top": best.indices.short(),
        "p_top1": best.values[:, 0],
        "p_label": probabilities.gather(1, place)[:, 0],
        "entropy": entropy(logits),
        "brier": error.square().sum(dim=1),
    }
