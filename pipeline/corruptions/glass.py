"""Glass blur: pixels change places with their neighbors, as behind a frosted pane.

Definition follows ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0). Its loop means to swap
pixels, but copies: both sides of the assignment are views of one array, so that the pixel takes its
neighbor's value and the neighbor keeps it. The published images were made so, and so are these.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.corruptions.bands import gaussian_blur

HAIR = 1e-3  # so that summation error costs no whole level


def glass_blur(
    images: np.ndarray,
    generators: Sequence[np.random.Generator],
    constant: tuple[float, int, int],
) -> np.ndarray:
    """Blur, let every pixel take a near one's value, in turn, and blur again.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    sigma, reach, rounds = constant
    height, width = images.shape[-2:]
    inner = (max(height - 2 * reach, 0), max(width - 2 * reach, 0))
    blurred = gaussian_blur(images.astype(np.float32), sigma)
    blurred += HAIR
    np.floor(blurred, out=blurred)
    shuffled = np.empty_like(blurred)
    for image, target, generator in zip(blurred, shuffled, generators, strict=True):
        # (column, row) steps in the order of the published loop: from the last pixel to the first.
        steps = generator.integers(-reach, reach, (rounds, *inner, 2), np.int8)
        sources = np.arange(height * width, dtype=np.int32)
        for moves in steps[:, ::-1, ::-1]:
            sources = sources.take(_sources(moves, reach, height, width))
        np.take(image.reshape(3, -1), sources, axis=1, out=target.reshape(3, -1))
    return gaussian_blur(shuffled, sigma)


def _sources(moves: np.ndarray, reach: int, height: int, width: int) -> np.ndarray:
    """Where every pixel's value comes from after one round, int32 `[H * W]`.

    `moves` `[rows, columns, 2]` are the (column, row) steps of the pixels from row and column
    `reach + 1` on. The loop visits them from the last to the first. A pixel that takes the value of
    one visited before it takes what that one has taken; all such chains are followed at once, in
    doubling strides.
    """
    count = height * width
    inside = np.zeros((height, width), bool)
    inner = tuple(slice(reach + 1, reach + 1 + side) for side in moves.shape[:2])
    inside[inner] = True
    places = np.arange(count, dtype=np.int32)
    aims = places.reshape(height, width).copy()
    aims[inner] += moves[..., 0] + moves[..., 1].astype(np.int32) * width
    aim = aims.ravel()
    # Numbers below H * W: what the pixel has after its turn; from there on: what it had before.
    visited = (aim > places) & inside.ravel().take(aim)
    links = np.concatenate([np.where(visited, aim, aim + count), places + count])
    followed = links[:count]
    while (followed < count).any():
        followed = links.take(followed)
        links[:count] = followed
    return followed - count
