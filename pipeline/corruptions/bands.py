"""Linear maps along one side of images whose outputs each read a narrow range of inputs.

Blurs and enlargements are such maps. Cut into blocks of outputs, each is a few products of small
dense matrices, which is faster than one product with the whole map and than sums of shifted images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BLOCK = 32  # outputs per block


@dataclass(frozen=True)
class Bands:
    """A linear map from `inputs` values to `outputs`.

    Each of `blocks` is (where its outputs begin, where its inputs begin, float32 matrix
    `[its outputs, its inputs]`).
    """

    outputs: int
    blocks: tuple[tuple[int, int, np.ndarray], ...]

    def down(self, fields: np.ndarray) -> np.ndarray:
        """Map every column of float32 `[..., H, W]`."""
        mapped = np.empty((*fields.shape[:-2], self.outputs, fields.shape[-1]), np.float32)
        for row, first, matrix in self.blocks:
            rows, read = matrix.shape
            np.matmul(
                matrix, fields[..., first : first + read, :], out=mapped[..., row : row + rows, :]
            )
        return mapped

    def across(self, fields: np.ndarray) -> np.ndarray:
        """Map every row of float32 `[..., H, W]`."""
        mapped = np.empty((*fields.shape[:-1], self.outputs), np.float32)
        for column, first, matrix in self.blocks:
            columns, read = matrix.shape
            # One product per field, so that no digit depends on how many there are.
            np.matmul(
                fields[..., first : first + read],
                matrix.T,
                out=mapped[..., column : column + columns],
            )
        return mapped


def bands(outputs: int, taps: Iterable[tuple[np.ndarray, np.ndarray]]) -> Bands:
    """The map whose output i sums `weights[i] * input[places[i]]` over `taps`.

    Each tap is (places, weights), two arrays of `outputs` numbers; places lie within the inputs.
    """
    places, weights = (np.stack(side) for side in zip(*taps, strict=True))
    blocks = []
    for row in range(0, outputs, BLOCK):
        here, heavy = places[:, row : row + BLOCK], weights[:, row : row + BLOCK]
        first, count = here.min(), here.shape[1]
        matrix = np.zeros((count, here.max() - first + 1))
        np.add.at(matrix, (np.arange(count), here - first), heavy)
        blocks.append((row, int(first), matrix.astype(np.float32)))
    return Bands(outputs, tuple(blocks))


def gaussian_blur(
    fields: np.ndarray, sigma: float, mode: str = "nearest", truncate: float = 4
) -> np.ndarray:
    """Blur float32 `[..., H, W]`.

    The kernel ends at `truncate` sigmas. Beyond the border, values continue as the last one
    (`mode` nearest) or mirrored (`reflect`, the border value twice).
    """
    height, width = fields.shape[-2:]
    across = gaussian_bands(width, sigma, mode, truncate).across(fields)
    return gaussian_bands(height, sigma, mode, truncate).down(across)


@lru_cache(maxsize=32)
def gaussian_bands(size: int, sigma: float, mode: str, truncate: float) -> Bands:
    """The blur along a side of `size` pixels."""
    radius = int(truncate * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-(steps**2) / (2 * max(sigma, 1e-9) ** 2))
    places = np.arange(size) + steps[:, None]
    if mode == "nearest":
        places = np.clip(places, 0, size - 1)
    else:
        places = places % (2 * size)
        places = np.minimum(places, 2 * size - 1 - places)
    shares = np.broadcast_to((weights / weights.sum())[:, None], places.shape)
    return bands(size, zip(places, shares, strict=True))


@lru_cache(maxsize=64)
def zoom_bands(size: int, factor: float) -> Bands:
    """Enlarge the middle of a side of `size` pixels by `factor`, to the same size.

    Values between pixels are interpolated; the first and last pixel of the middle become the first
    and last of the enlarged, of which the middle is taken where it is longer than `size`.
    """
    kept = int(np.ceil(size / factor))
    first = (size - kept) // 2
    enlarged = max(round(kept * factor), 1)
    trimmed = (enlarged - size) // 2
    at = (np.arange(size) + trimmed) * ((kept - 1) / max(enlarged - 1, 1))
    below = np.minimum(at.astype(int), max(kept - 2, 0))
    beyond = at - below
    above = np.minimum(below + 1, kept - 1)
    return bands(size, [(first + below, 1 - beyond), (first + above, beyond)])
