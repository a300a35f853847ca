"""RegMean: layers by regression on what goes into them, and RegMean++."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from pipeline.blocks import output
from pipeline.clip import ImageEncoder
from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.merging import Merged
from pipeline.merging.by_images import drawn_images, moved
from pipeline.merging.grams import Gram, Regression
from pipeline.merging.limits import check_share
from pipeline.tower import pools_class_token
from pipeline.vectors import TaskVectors

BATCH = 32  # images in one forward pass
PROJECTION = "visual.proj"  # [in, out], other than the matrices of linear layers

Forward = Callable[[Tensor, Callable[[str, Tensor], None]], Tensor]


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
    drawn = drawn_images(vectors, data, seed, images)
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
    return moved(vectors, found)


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


def _put(encoder: ImageEncoder, weights: Mapping[str, Tensor]) -> None:
    held = encoder.state_dict()
    for name, weight in weights.items():
        held[name].copy_(weight)
