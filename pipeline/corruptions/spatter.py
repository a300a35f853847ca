"""Spatter: drops of water or mud on the lens.

Definition follows ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pipeline.corruptions.bands import gaussian_blur

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
    liquid = gaussian_blur(mean + deviation * noise, sigma)
    liquid[liquid < level] = 0
    if is_mud:
        cover = gaussian_blur((liquid > level).astype(np.float32), opacity_or_outline)
        cover[cover < 0.8] = 0
        return _over(images * (1 - cover[:, None]), cover, MUD)
    return _over(images, opacity_or_outline * _drops(liquid), WATER)


def _over(images: np.ndarray, layer: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """`images` `[N, 3, H, W]` plus a `color` in the amounts `layer` `[N, H, W]`."""
    return images + layer[:, None] * np.array(color, np.float32)[:, None, None]


def _drops(liquid: np.ndarray) -> np.ndarray:
    """Amount of water in [0, 1], lit as a relief over the distance to the outline of the drops.

    `liquid` is float32 `[N, H, W]` with zeros between the drops; the result has the same shape.
    """
    gray = np.minimum(255 * liquid, 255).astype(np.uint8)
    distance = _distance_to(_canny(gray, 50, 150), 20)
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


def _distance_to(marks: np.ndarray, most: int) -> np.ndarray:
    """Distance in pixels to the nearest mark of the same field, at most `most`.

    `marks` is bool `[N, H, W]`; returns float32 `[N, H, W]`. Lengths are those of the 5 x 5 chamfer
    mask (steps of 1, 1.4 and 2.1969) behind the published images, within 2 % of the Euclidean.
    """
    upright = np.where(marks, np.uint8(0), np.uint8(most + 1))
    step = 1
    while step <= most:  # to the nearest mark in the column, at most `most + 1`
        for near, far in (
            (upright[:, step:], upright[:, :-step]),
            (upright[:, :-step], upright[:, step:]),
        ):
            np.minimum(near, far + np.uint8(step), out=near)
        step *= 2
    # Of the marks in a column only the nearest above or below can be the nearest of all.
    upright = upright.astype(np.intp)
    lengths = np.arange(most + 2, dtype=np.float64)
    distance = np.full(marks.shape, most, np.float32)
    for aside in range(min(most, marks.shape[2])):
        if aside >= distance.max(initial=0):
            break  # no column so far off can be nearer
        long, short = np.maximum(lengths, aside), np.minimum(lengths, aside)
        via = np.maximum(long + 0.1969 * short, 0.7969 * long + 0.6031 * short)
        found = via.astype(np.float32).take(upright)
        left, right = distance[:, :, aside:], distance[:, :, : marks.shape[2] - aside]
        np.minimum(left, found[:, :, : left.shape[2]], out=left)
        np.minimum(right, found[:, :, aside:], out=right)
    return distance


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
    # A border of zeros, so that every pixel has neighbors.
    strength = np.pad(np.abs(across) + np.abs(down), ((0, 0), (1, 1), (1, 1)))
    row = strength.shape[2]
    strength = strength.ravel()
    found = np.flatnonzero(strength > low)
    across, down = (
        np.pad(side, ((0, 0), (1, 1), (1, 1))).ravel()[found] for side in (across, down)
    )
    tangent = np.tan(np.pi / 8)
    level = np.abs(down) < tangent * np.abs(across)
    upright = np.abs(across) < tangent * np.abs(down)
    falling = (across < 0) == (down < 0)
    # To the neighbor before: left, above, or above on the side where the gradient comes from.
    step = np.array([row - 1, row + 1, row, row, 1, 1, 1, 1])[falling + 2 * upright + 4 * level]
    here = strength[found]
    peak = here > strength[found - step]
    # Of two equal ones the first counts; across the corners neither does.
    peak &= here + (level | upright) > strength[found + step]

    found = found[peak]

    candidates = np.zeros(strength.size, bool)
    candidates[found] = True
    # The borders keep the fields apart; diagonals touch.
    segments, count = ndimage.label(candidates.reshape(-1, row), np.ones((3, 3), bool))
    segments = segments.ravel()[found]
    kept = np.zeros(count + 1, bool)
    kept[segments[strength[found] > high]] = True
    candidates[found] = kept[segments]
    return candidates.reshape(len(fields), -1, row)[:, 1:-1, 1:-1]
