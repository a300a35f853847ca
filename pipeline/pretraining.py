"""Pretrain a small CLIP on captioned pictures: how the miniature's checkpoint was made.

InfoNCE (https://arxiv.org/abs/2103.00020) in which every picture of a batch with the same caption
counts as a positive, since captions of drawn pictures repeat.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.clip import Clip
from pipeline.finetuning import schedule, shifted


@dataclass(frozen=True)
class PretrainingOptions:
    """Budget and optimiser of the pretraining."""

    steps: int
    batch: int  # pictures per step
    lr: float  # of AdamW: peak after 150 steps of warm-up, then cosine
    weight_decay: float  # on matrices only
    seed: int


def pretrain(
    clip: Clip,
    images: np.ndarray,
    caption_ids: np.ndarray,
    captions: tuple[str, ...],
    contexts: tuple[str, ...],
    options: PretrainingOptions,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train `clip` in place.

    `images`: uint8 [N, 3, height, width]; `caption_ids`: [N], into `captions`; `contexts`:
    sentences with a place for the caption, one drawn per step.
    """
    model = clip.model.train()
    encoder = clip.image_encoder().train()
    tokens = torch.stack([clip.tokenizer([c.format(x) for x in captions]) for c in contexts])
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=options.lr,
    )
    rng = np.random.default_rng(options.seed)
    order = np.empty(0, dtype=np.int64)
    for step in range(options.steps):
        if len(order) < options.batch:
            order = rng.permutation(len(images))
        rows, order = order[: options.batch], order[options.batch :]
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(step, options.steps, 150)
        batch = torch.from_numpy(jittered(shifted(images[rows], rng), rng))
        unique, place = np.unique(caption_ids[rows], return_inverse=True)
        texts = tokens[rng.integers(len(contexts)), torch.from_numpy(unique)]
        text_features = model.encode_text(texts, normalize=True)
        loss = contrastive_loss(
            encoder(batch), text_features[torch.from_numpy(place)], place, model.logit_scale.exp()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        on_step(step + 1, loss.item())
    model.eval()


def contrastive_loss(images: Tensor, texts: Tensor, caption: np.ndarray, scale: Tensor) -> Tensor:
    """InfoNCE of unit features [batch, dim] where equal entries of `caption` [batch] match."""
    ids = torch.from_numpy(caption)
    target = (ids[:, None] == ids[None, :]).float()
    target = target / target.sum(1, keepdim=True)
    logits = scale * images @ texts.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def jittered(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random contrast, colour cast and noise per picture; uint8 [N, 3, H, W] -> the same."""
    shape = (len(images), 1, 1, 1)
    gain = rng.uniform(0.7, 1.3, shape).astype(np.float32)
    cast = rng.normal(0, 0.2, (len(images), 3, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    noise *= rng.uniform(0, 0.15, shape).astype(np.float32)
    # Around mid-grey, in units of a quarter of the range: the scale that the encoder sees.
    pixels = (images / np.float32(255) - 0.5) / 0.25
    pixels = pixels * gain + cast + noise
    return np.clip(np.rint((pixels * 0.25 + 0.5) * 255), 0, 255).astype(np.uint8)
