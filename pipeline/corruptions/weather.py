"""Spatter: drops of water or mud on the lens.

Definition and constants follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

# (mean, deviation) of the liquid before it is blurred with sigma, the level above which it stays,
# and then, for water (0), its opacity; for mud (1), the sigma that rounds its outlines.
SPATTER = {
    "imagenet": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "tiny": (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ),
    "cifar": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
}
WATER = (175, 238, 238)  # pale turquoise, RGB
MUD = (63, 42, 20)

# Light falls on the drops from the lower right.
RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)


def spatter(
    images: np.ndarray,
    generators: Sequence[np.random.Generator],
    constant: tuple[float, float, float, float, float, int],
) -> np.ndarray:
    """Add translucent water (light to medium) or cover with mud (heavy).

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    """
    mean, deviation, sigma, level, opacity_or_outline, is_mud = constant
    shape = images.shape[-2:]
    noise = np.stack([generator.standard_normal(shape, np.float32) for generator in generators])
    liquid = _blur(mean + deviation * noise, sigma)
    liquid[liquid < level] = 0
    if is_mud:
        cover = _blur((liquid > level).astype(np.float32), opacity_or_outline)
        cover[cover < 0.8] = 0
        return _over(images * (1 - cover[:, None]), cover, MUD)
    return _over(images, opacity_or_outline * _drops(liquid), WATER)


def _over(images: np.ndarray, layer: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """`images` `[N, 3, H, W]` plus a `color` in the amounts `layer` `[N, H, W]`."""
    return images + layer[:, None] * np.array(color, np.float32)[:, None, None]


def _blur(fields: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of each field of `[N, H, W]`."""
    return ndimage.gaussian_filter(fields, (0, sigma, sigma), mode="nearest")


def _drops(liquid: np.ndarray) -> np.ndarray:
    """Amount of water in [0, 1], lit as a relief over the distance to the outline of the drops.

    `liquid` is float32 `[N, H, W]` with zeros between the drops; the result has the same shape.
    """
    gray = np.minimum(255 * liquid, 255).astype(np.uint8)
    distance = np.minimum(_distance_to(_canny(gray, 50, 150)), 20)
    # float32 absorbs the summation error, or the cut to whole numbers would lose a level.
    height = _equalize(_box(distance).astype(np.uint8))
    lit = ndimage.correlate(height.astype(np.float32), RELIEF[None], mode="mirror")
    lit = np.rint(_box(np.clip(lit, 0, 255)))
    water = gray * lit
    brightest = water.max(axis=(1, 2), keepdims=True)
    return water / np.maximum(brightest, 1)


def _box(fields: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 pixels of each field of `[N, H, W]`."""
    return ndimage.uniform_filter(fields, (1, 3, 3), mode="mirror")


def _distance_to(marks: np.ndarray) -> np.ndarray:
    """Distance in pixels to the nearest mark of the same field; `marks` is bool `[N, H, W]`.

    Lengths are those of the 5 x 5 chamfer mask (steps of 1, 1.4 and 2.1969) behind the published
    images, within 2 % of the Euclidean length. Returns float32 `[N, H, W]`, infinite in a field
    without marks.
    """
    nearest = np.stack(
        [
            ndimage.distance_transform_edt(~field, return_distances=False, return_indices=True)
            for field in marks
        ]
    )
    sides = np.abs(nearest - np.indices(marks.shape[1:]))
    long, short = sides.max(axis=1), sides.min(axis=1)
    distance = np.maximum(long + 0.1969 * short, 0.7969 * long + 0.6031 * short)
    distance = np.where(marks.any(axis=(1, 2), keepdims=True), distance, np.inf)
    return distance.astype(np.float32)


def _equalize(fields: np.ndarray) -> np.ndarray:
    """Histogram equalization of each field of uint8 `[N, H, W]`; a constant field stays."""
    count, size = len(fields), fields[0].size
    values = fields.reshape(count, size).astype(np.int64)
    offsets = 256 * np.arange(count)[:, None]
    histogram = np.bincount((values + offsets).ravel(), minlength=256 * count).reshape(count, 256)
    lowest = values.min(axis=1, keepdims=True)
    darkest = np.take_along_axis(histogram, lowest, axis=1)
    scale = 255 / np.maximum(size - darkest, 1)
    table = np.rint((histogram.cumsum(axis=1) - darkest) * scale)
    table = np.where(darkest == size, np.arange(256), table)
    return np.take_along_axis(table, values, axis=1).astype(np.uint8).reshape(fields.shape)


def _canny(fields: np.ndarray, low: int, high: int) -> np.ndarray:
    """Canny edges of each field of uint8 `[N, H, W]`, as bool `[N, H, W]`.

    3 x 3 Sobel gradients with the L1 norm, thinned across the nearest of four directions; edges
    above `low` count where they touch one above `high`.
    """
    padded = np.pad(fields, ((0, 0), (1, 1), (1, 1)), mode="edge").astype(np.int16)
    upright = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    level = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    across = upright[:, :, 2:] - upright[:, :, :-2]
    down = level[:, 2:] - level[:, :-2]
    strength = np.abs(across) + np.abs(down)

    rows, columns = fields.shape[1:]
    around = np.pad(strength, ((0, 0), (1, 1), (1, 1)))

    def neighbor(row: int, column: int) -> np.ndarray:
        return around[:, 1 + row : 1 + row + rows, 1 + column : 1 + column + columns]

    tangent = np.tan(np.pi / 8)
    peak = np.select(
        [
            np.abs(down) < tangent * np.abs(across),
            np.abs(across) < tangent * np.abs(down),
            (across < 0) == (down < 0),
        ],
        [
            (strength > neighbor(0, -1)) & (strength >= neighbor(0, 1)),
            (strength > neighbor(-1, 0)) & (strength >= neighbor(1, 0)),
            (strength > neighbor(-1, -1)) & (strength > neighbor(1, 1)),
        ],
        (strength > neighbor(-1, 1)) & (strength > neighbor(1, -1)),
    )
    candidates = peak & (strength > low)
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # within a field, diagonals included; never from field to field
    segments, count = ndimage.label(candidates, touching)
    kept = np.zeros(count + 1, bool)
    kept[segments[candidates & (strength > high)]] = True
    return kept[segments]
