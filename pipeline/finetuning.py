"""Experts: fine-tune the image encoder on one task with its zero-shot head frozen."""

import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.clip import ImageEncoder
from pipeline.config import Experts
from pipeline.data import check_labels


def finetune(
    encoder: ImageEncoder,
    head: Tensor,
    logit_scale: float,
    images: np.ndarray,
    labels: np.ndarray,
    options: Experts,
    *,
    task: str,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> dict[str, Tensor]:
    """Train `encoder` in place with cross-entropy and return its weights.

    `images`: uint8 [N, 3, height, width]; `labels`: int64 [N], below the number of rows of
    `head` [classes, dim]. AdamW; the rate rises over the first tenth of the steps and falls as a
    cosine. Raises `UserError` where there are no images or labels and classes do not match.
    """
    check_labels(task, images, labels, head.shape[0])
    device = next(encoder.parameters()).device
    head = head.to(device)
    rng = np.random.default_rng([seed, zlib.crc32(task.encode()), 1])
    optimizer = torch.optim.AdamW(
        encoder.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )
    encoder.train()
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(step, options.steps, options.steps / 10)
        rows = rng.integers(len(images), size=options.batch)
        batch = torch.from_numpy(shifted(images[rows], rng)).to(device)
        target = torch.from_numpy(labels[rows]).to(device)
        loss = F.cross_entropy(logit_scale * encoder(batch) @ head.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step + 1, loss.item())
    encoder.eval()
    return encoder.weights()


def schedule(step: int, steps: int, warm_up: float) -> float:
    """Factor of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    return min(1.0, (step + 1) / max(1.0, warm_up)) * (1 + math.cos(math.pi * step / steps)) / 2


def shifted(images: np.ndarray, rng: np.random.Generator, most: int = 2) -> np.ndarray:
    """The batch [N, 3, height, width] moved by up to `most` pixels, edges repeated."""
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    down, right = rng.integers(2 * most + 1, size=2)
    height, width = images.shape[2:]
    return np.ascontiguousarray(padded[:, :, down : down + height, right : right + width])
