"""Fisher merging: the experts' mean, each weight by how much predictions hang on it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.merging import Merged
from pipeline.merging.by_images import drawn_images, moved
from pipeline.vectors import TaskVectors

FLOOR = 1e-6  # added to Fisher information of norm 1
DIRECTIONS = 10  # in which an image's Fisher information is taken exactly


def fisher(vectors: TaskVectors, data: FitData, seed: int, images: int) -> Merged:
    """The experts' mean, each entry weighted by its importance (https://arxiv.org/abs/2111.09832).

        sum of w_t x expert_t / sum of w_t,   w_t = F_t / norm of F_t over all tensors + 1e-6,
        F_t = mean over images of E over y ~ p_t(y | image) [ (d log p_t(y | image) / d weight)^2 ]

    As published: the square of every single gradient, the expectation over the expert's own
    predictions, the norm; `images` (a task's, at most; drawn by `seed`, no labels). Not as
    published: the floor of 1e-6 holds for all models and comes after the norm, so that it means
    the same for an expert that is sure of everything; and for heads of more than `DIRECTIONS` + 1
    classes the expectation is estimated, without bias (see `fisher_diagonal`). Memory: five models,
    whatever the number of tasks. Raises `UserError` where a task has no images or no head.
    """
    drawn = drawn_images(vectors, data, seed, images)
    if missing := [task for task in vectors.tasks if task not in data.heads]:
        raise UserError(f"fisher needs a head for {missing[0]}: add it to data.heads.")
    encoder = data.encoder
    weights = {n: weight for n, weight in encoder.named_parameters() if n in vectors.deltas}
    total, change = ({n: torch.zeros_like(w) for n, w in weights.items()} for _ in range(2))
    for task in vectors.tasks:
        encoder.load(vectors.expert(task), f"the {task} expert")
        with _trainable(weights.values()):
            found = fisher_diagonal(
                encoder, weights, data.heads[task], data.logit_scale, drawn[task], seed
            )
        norm = _norm(found.values())
        for name, weight in weights.items():
            importance = found.pop(name) / (norm or 1.0) + FLOOR
            total[name] += importance
            change[name] += importance * (weight.detach() - vectors.pretrained[name].to(weight))
    return moved(vectors, {name: change.pop(name) / total.pop(name) for name in weights})


@contextmanager
def _trainable(weights: Iterable[Tensor]) -> Iterator[None]:
    """Gradients of these tensors, also of frozen ones and where a caller wants none."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        with torch.enable_grad():
            for weight in frozen:
                weight.requires_grad_(True)
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def _norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm of all together; squares of small numbers are lost in single precision."""
    double = torch.float64
    return math.hypot(*(torch.linalg.vector_norm(t, dtype=double).item() for t in tensors))


def fisher_diagonal(
    encoder: ImageEncoder,
    weights: Mapping[str, Tensor],
    head: Tensor,
    logit_scale: float,
    images: np.ndarray,
    seed: int,
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of `weights`, the mean over images; name -> tensor.

    `weights`: tensors of the encoder; `head`: unit rows [classes, dim]; `images`: uint8 [N, 3,
    height, width]. About an image's features, predictions hold the information A = E of g g^T, g =
    d log p(y) / d features, of rank classes - 1 at most; and diag(J^T A J) is the sum of (J^T b)^2
    over the columns b of any factor of A: a backward pass each. Exact up to `DIRECTIONS` columns.
    Of more, the longest are taken as they are and the rest added up with random signs (`seed`),
    which is right on average.
    """
    places, rng = list(weights.values()), np.random.default_rng(seed)
    total = [torch.zeros_like(weight) for weight in places]
    for image in images:
        features = encoder(torch.from_numpy(np.array(image[None])).to(places[0].device))
        columns = _factor(features.detach()[0], head.to(features), logit_scale)
        spare = columns.shape[1] - DIRECTIONS + 1
        if spare > 1:
            columns = fewer(columns, torch.from_numpy(rng.choice((-1.0, 1.0), spare)))
        for column in columns.T:
            gradients = torch.autograd.grad(
                features, places, column[None], retain_graph=True, materialize_grads=True
            )
            for diagonal, gradient in zip(total, gradients, strict=True):
                diagonal.addcmul_(gradient, gradient, value=1 / len(images))
    return dict(zip(weights, total, strict=True))


def _factor(feature: Tensor, head: Tensor, logit_scale: float) -> Tensor:
    """Orthogonal columns [dim, rank], the longest first, of the information about a feature [dim].

    Their outer products add up to E over classes y of g g^T, g = d log p(y) / d feature.
    """
    p = (logit_scale * head @ feature).softmax(dim=0)
    gradients = logit_scale * (head - p @ head)  # [classes, dim]
    left, size, _ = torch.linalg.svd((p.sqrt()[:, None] * gradients).T, full_matrices=False)
    rank = min(len(head) - 1, len(feature))  # the gradients' mean is zero
    return (left * size)[:, :rank]


def fewer(columns: Tensor, signs: Tensor) -> Tensor:
    """The last `len(signs)` of `columns` [dim, n] as one, their sum with these signs (1 or -1).

    Over random signs, the mean of the sum of outer products is what it was.
    """
    kept = columns.shape[1] - len(signs)
    rest = columns[:, kept:] @ signs.to(columns)
    return torch.cat([columns[:, :kept], rest[:, None]], dim=1)
