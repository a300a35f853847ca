"""Elastic transform: the image on a rubber sheet that is pulled at its corners and in its middle.

Definition follows ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import grid_sample

from pipeline.corruptions.bands import gaussian_blur

Generators = Sequence[np.random.Generator]


def elastic_transform(
    images: np.ndarray, generators: Generators, constant: tuple[float, float, float]
) -> np.ndarray:
    """Move three corners of a square at random, then every pixel by a smooth random field.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    moved, sigma, corner = constant
    height, width = images.shape[-2:]
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    warped = np.empty(images.shape, np.float32)
    for image, target, generator in zip(images, warped, generators, strict=True):
        back = _affine(generator.uniform(-corner, corner, (3, 2)), height, width)
        x, y = (turn[0] * columns + turn[1] * rows + turn[2] for turn in back)
        pulled = sample(image.astype(np.float32), y, x, mirrored_at_centers=True)
        if moved:
            noise = 2 * generator.random((2, height, width), np.float32) - 1
            across, down = moved * gaussian_blur(noise, sigma, "reflect", truncate=3)
            pulled = sample(pulled, rows + down, columns + across, mirrored_at_centers=False)
        target[...] = pulled
    return warped


def _affine(moves: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where pixels come from, float32 `[2, 3]`: (x, y) from (x, y, 1), in pixels.

    `moves` `[3, 2]` are those of three corners of a square of a third of the image around its
    center.
    """
    half = max(min(height, width) // 3, 1)
    corners = np.array([width // 2, height // 2]) + half * np.array([[1, 1], [1, -1], [-1, -1]])
    after = np.column_stack([corners + moves, np.ones(3)])
    return np.linalg.solve(after, corners).T.astype(np.float32)


def sample(
    image: np.ndarray, rows: np.ndarray, columns: np.ndarray, mirrored_at_centers: bool
) -> np.ndarray:
    """Values of float32 `[C, H, W]` between its pixels, at `rows` and `columns` `[H, W]`.

    Beyond the border the image continues mirrored: at the centers of the border pixels, or at
    their outer edges.
    """
    height, width = image.shape[-2:]
    if mirrored_at_centers:
        places = (2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1)
    else:
        places = ((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1)
    grid = torch.from_numpy(np.stack(places, axis=-1))
    return grid_sample(
        torch.from_numpy(image)[None],
        grid[None],
        padding_mode="reflection",
        align_corners=mirrored_at_centers,
    )[0].numpy()
