"""Run a model over images and keep what its metrics need."""

import numpy as np
import torch
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.evaluation import Predictions

BATCH = 256


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
) -> Predictions:
    """Classify uint8 images [N, 3, height, width] with a zero-shot head [classes, dim]."""
    device = next(encoder.parameters()).device
    head = head.to(device)
    parts = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(device)
        target = torch.from_numpy(np.array(labels[start : start + BATCH])).to(device)
        logits = logit_scale * encoder(batch) @ head.T
        probabilities = logits.softmax(dim=1)
        best = probabilities.topk(min(5, head.shape[0]), dim=1)
        parts.append(
            (
                best.indices.short(),
                best.values[:, 0],
                probabilities.gather(1, target[:, None])[:, 0],
                entropy(logits),
            )
        )
    top, p_top1, p_label, nats = (
        torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)
    )
    index = np.arange(len(images), dtype=np.int32)
    return Predictions(index, np.array(labels), top, p_top1, p_label, nats)
