"""Merges by what the experts do with images: Fisher information, and regression of their layers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from pipeline.blocks import output
from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.clip import ImageEncoder
from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.learning.feeding import draw
from pipeline.merging import Merged
from pipeline.merging.arithmetic import uniform
from pipeline.merging.grams import Gram, Regression
from pipeline.merging.limits import check_share
from pipeline.tower import pools_class_token
from pipeline.vectors import TaskVectors

FLOOR = 1e-6  # added to Fisher information of norm 1
DIRECTIONS = 10  # in which an image's Fisher information is taken exactly
BATCH = 32  # images in one forward pass
PROJECTION = "visual.proj"  # [in, out], other than the matrices of linear layers

Forward = Callable[[Tensor, Callable[[str, Tensor], None]], Tensor]


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
    drawn = _drawn(vectors, data, seed, images)
    if missing := [task for task in vectors.tasks if task not in data.heads]:
        raise UserError(f"fisher needs a head for {missing[0]}: add it to data.heads.")
    encoder = data.encoder
    weights = {n: weight for n, weight in encoder.named_parameters() if n in vectors.deltas}
    total, moved = ({n: torch.zeros_like(w) for n, w in weights.items()} for _ in range(2))
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
            moved[name] += importance * (weight.detach() - vectors.pretrained[name].to(weight))
    return _moved(vectors, {name: moved.pop(name) / total.pop(name) for name in weights})


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


def regmean(vectors: TaskVectors, data: FitData, seed: int, images: int, shrink: float) -> Merged:
    """Layers that answer as every expert's does on its own images (https://arxiv.org/abs/2212.09849).

        W = (sum of W_t G_t) (sum of G_t)^-1,   G_t = mean of x x^T, off-diagonal entries x `shrink`

    for every matrix that multiplies tokens: in_proj, out_proj, c_fc, c_proj of each block, and the
    projection of features. x: what it is multiplied with in expert t, for all tokens of `images`
    images of task t (at most; drawn by `seed`). All other tensors: the mean of the experts.

    As published; means over tokens, as in the authors' code, so that tasks with fewer images count
    alike. Not as published: 1e-6 is added to the diagonal of every G_t, on both sides, so that the
    experts' mean decides where no image does; and published figures for CLIP leave visual.proj out,
    which in their experts is that of the pretrained model or no linear module. Memory: the task
    vectors and Gram matrices of one block, and the tokens of all images. Raises `UserError`:
    `shrink` outside 0 to 1, a task without images, an image tower of another kind.
    """
    return _regression(vectors, data, seed, images, shrink, on_merged=False)


def regmean_plus_plus(
    vectors: TaskVectors, data: FitData, seed: int, images: int, shrink: float
) -> Merged:
    """RegMean on activations of the model merged so far (https://arxiv.org/abs/2508.03121).

    `regmean`, but that what goes into a block of expert t comes from the merged blocks before it,
    beginning with the mean of the experts' embeddings; within the block it goes through expert t's
    own layers, as in the authors' code. Not as published: their code leaves ln_post of the
    pretrained model, here it is the mean of the experts'. Otherwise as for `regmean`.
    """
    return _regression(vectors, data, seed, images, shrink, on_merged=True)


@torch.no_grad()
def _regression(
    vectors: TaskVectors, data: FitData, seed: int, images: int, shrink: float, on_merged: bool
) -> Merged:
    """Part after part of the tower, so that each task vector is read once."""
    check_share("shrink", shrink)
    drawn = _drawn(vectors, data, seed, images)
    encoder = data.encoder
    device = next(encoder.parameters()).device
    flows = [list(torch.from_numpy(drawn[task]).to(device).split(BATCH)) for task in vectors.tasks]
    found: dict[str, Tensor] = {}
    for names, forward in _parts(encoder, vectors.layers):
        starts = {name: vectors.pretrained[name] for name in names}
        deltas = {name: vectors.deltas[name].to(starts[name]) for name in names}
        collected: dict[str, Regression] = {}
        for row, flow in enumerate(flows):
            own = {name: delta[row] for name, delta in deltas.items()}
            _put(encoder, {name: starts[name] + own[name] for name in names})
            through = _collect(forward, flow, own, shrink, collected)
            if not on_merged:
                flow[:] = through
        solved = {name: _turned(name, of_name.solved()) for name, of_name in collected.items()}
        if on_merged:
            mean = {name: solved.get(name, delta.mean(dim=0)) for name, delta in deltas.items()}
            _put(encoder, {name: starts[name] + mean[name].to(starts[name]) for name in names})
            for flow in flows:
                flow[:] = [forward(batch, lambda name, inputs: None) for batch in flow]
        found |= solved
    return _moved(vectors, found)


def _collect(
    forward: Forward,
    flow: Sequence[Tensor],
    deltas: Mapping[str, Tensor],
    shrink: float,
    collected: dict[str, Regression],
) -> list[Tensor]:
    """Count a task in the regressions of its matrices; returns what `forward` makes of `flow`."""
    grams: dict[str, Gram] = {}
    through = [forward(batch, partial(_note, grams)) for batch in flow]
    for name, gram in grams.items():
        delta = _turned(name, deltas[name]).to(gram.total)
        if name not in collected:
            collected[name] = Regression(delta)
        collected[name].add(delta, gram.shrunk(shrink))
    return through


def _turned(name: str, matrix: Tensor) -> Tensor:
    """From [out, in] to the way that the tower has it, and back."""
    return matrix.T if name == PROJECTION else matrix


def _parts(encoder: ImageEncoder, names: Sequence[str]) -> Iterator[tuple[list[str], Forward]]:
    """The tower's embedding, its blocks and its head: the names of tensors, and what they compute.

    `forward(inputs, record)`: from uint8 images to tokens, to tokens, ..., to features; `record` is
    told the name of every matrix and its inputs.
    """
    visual: Any = encoder.visual
    if not pools_class_token(visual):
        raise UserError("RegMean is for CLIP's usual image tower: this one pools otherwise.")
    blocks = visual.transformer.resblocks
    prefixes = [f"visual.transformer.resblocks.{place}." for place in range(len(blocks))]
    last = [name for name in names if name.startswith(("visual.ln_post.", PROJECTION))]
    inside = {name for name in names if name.startswith(tuple(prefixes))}
    yield [n for n in names if n not in inside and n not in last], partial(_embedded, encoder)
    for prefix, block in zip(prefixes, blocks, strict=True):
        yield [n for n in names if n.startswith(prefix)], partial(_through, block, prefix)
    yield last, partial(_projected, visual)


def _embedded(
    encoder: ImageEncoder, images: Tensor, record: Callable[[str, Tensor], None]
) -> Tensor:
    pixels = (images.to(encoder.mean.dtype) / 255 - encoder.mean) / encoder.std
    visual: Any = encoder.visual
    return visual._embeds(pixels)


def _through(
    block: ResidualAttentionBlock,
    prefix: str,
    tokens: Tensor,
    record: Callable[[str, Tensor], None],
) -> Tensor:
    return output(block, tokens, record=lambda name, inputs: record(prefix + name, inputs))


def _projected(visual: Any, tokens: Tensor, record: Callable[[str, Tensor], None]) -> Tensor:
    pooled = visual.ln_post(tokens[:, 0])
    if visual.proj is not None:
        record(PROJECTION, pooled)
    return pooled


def _note(grams: dict[str, Gram], name: str, inputs: Tensor) -> None:
    rows = inputs.flatten(0, -2)
    if name not in grams:
        grams[name] = Gram(rows)
    grams[name].add(rows)


def _drawn(vectors: TaskVectors, data: FitData, seed: int, images: int) -> dict[str, np.ndarray]:
    """task -> uint8 images, at most `images` of them. Raises `UserError` where there are none."""
    if images < 1:
        raise UserError(f"images is {images}: give at least one image for every task.")
    found = {}
    for task in vectors.tasks:
        if task not in data.images or not len(data.images[task]):
            raise UserError(f"There are no images of {task}: add them to data.images.")
        rows = draw(seed, task, len(data.images[task]), 1, images)[0]
        found[task] = data.images[task][np.sort(rows)]
    return found


def _put(encoder: ImageEncoder, weights: Mapping[str, Tensor]) -> None:
    held = encoder.state_dict()
    for name, weight in weights.items():
        held[name].copy_(weight)


def _moved(vectors: TaskVectors, change: Mapping[str, Tensor]) -> Merged:
    """pretrained + `change`; the mean of the experts where there is none."""
    mean = uniform(vectors, 1 / len(vectors.tasks)).shared

    def make(name: str) -> Tensor:
        if name not in change:
            return mean[name]
        start = vectors.pretrained[name]
        return start + change[name].to(start)

    return Merged(Lazy(kinds_of(vectors.pretrained), make))
