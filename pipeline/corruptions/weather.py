"""Weather before the lens: snow, frost and fog.

Definitions follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Sequence

import numpy as np

from pipeline.corruptions.bands import zoom_bands
from pipeline.corruptions.blur import smear
from pipeline.corruptions.ice import PICTURES, crop, picture_sides

Generators = Sequence[np.random.Generator]
LARGEST_CLOUD = 2048  # pixels a side: it continues itself over larger images
GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue


def snow(
    images: np.ndarray,
    generators: Generators,
    constant: tuple[float, float, float, float, int, float, float],
) -> np.ndarray:
    """Whiten, and let flakes fall with trails of their own direction in every image.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    """
    mean, deviation, factor, level, radius, sigma, kept = constant
    height, width = images.shape[-2:]
    noise = np.stack([g.standard_normal((height, width), np.float32) for g in generators])
    angles = np.array([generator.uniform(-135, -45) for generator in generators])
    noise *= np.float32(deviation)
    noise += np.float32(mean)
    flakes = zoom_bands(height, factor).down(zoom_bands(width, factor).across(noise))
    flakes[flakes < level] = 0
    flakes = smear(np.minimum(flakes, 1)[:, None], angles, radius, sigma)
    flakes = np.rint(255 * flakes)
    flakes += flakes[..., ::-1, ::-1].copy()

    whitened = np.einsum("nchw,c->nhw", images.astype(np.float32), 1.5 * GRAY)[:, None] + 127.5
    snowy = np.maximum(images, whitened)
    snowy *= np.float32(1 - kept)
    snowy += np.float32(kept) * images
    snowy += flakes
    return snowy


def frost(
    images: np.ndarray, generators: Generators, constant: tuple[float, float, float]
) -> np.ndarray:
    """Lay part of a picture of frost over every image.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    The pictures are drawn (see `ice`), not those of the published images.
    """
    share, frosted, scale = constant
    height, width = images.shape[-2:]
    tall, wide = picture_sides(height, width, scale)
    icy = images * np.float32(share)
    for target, generator in zip(icy, generators, strict=True):
        number = int(generator.integers(PICTURES))
        top, left = (int(generator.integers(0, end)) for end in (tall - height, wide - width))
        part = crop(number, scale, (tall, wide), (top, left), (height, width))
        target += np.float32(frosted) * part
    return icy


def fog(images: np.ndarray, generators: Generators, constant: tuple[float, float]) -> np.ndarray:
    """Add a cloud, and darken the whole so that its brightest value stays.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    """
    amount, decay = constant
    height, width = images.shape[-2:]
    side = 1 << max((max(height, width) - 1).bit_length(), 1)
    side = min(side, LARGEST_CLOUD)
    rows, columns = (np.arange(length) % side for length in (height, width))
    foggy = np.empty(images.shape, np.float32)
    at_once = max(1, LARGEST_CLOUD**2 // (8 * side**2))
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        cloud = plasma(generators[part], side, decay)[:, None, rows[:, None], columns]
        brightest = images[part].max(axis=(1, 2, 3), keepdims=True) / np.float32(255)
        np.add(images[part], np.float32(255 * amount) * cloud, out=foggy[part])
        foggy[part] *= brightest / (brightest + np.float32(amount))
    return foggy


def plasma(generators: Generators, side: int, decay: float) -> np.ndarray:
    """Random clouds by the diamond-square algorithm, float32 `[N, side, side]` from 0 to 1.

    `side` is a power of two from 2; the field continues itself at its borders. The deviation of
    the random numbers falls by `decay` from octave to octave.
    """
    drawn = np.stack([g.random(side * side - 1, np.float32) for g in generators])
    drawn = 2 * drawn - 1
    field = np.zeros((len(drawn), side, side), np.float32)
    step, used = side, 0
    amplitude = 100.0

    def fill(target: np.ndarray, total: np.ndarray) -> None:
        nonlocal used
        count = total[0].size
        numbers = drawn[:, used : used + count].reshape(total.shape)
        used += count
        # As published: the numbers grow with the square of what falls by `decay`.
        target[...] = total / 4 + np.float32(amplitude**2) * numbers

    while step >= 2:
        half = step // 2
        corners, centers = field[:, ::step, ::step], field[:, half::step, half::step]
        pairs = _pairs(corners, 1, -1)
        fill(centers, _pairs(pairs, 2, -1))
        fill(field[:, ::step, half::step], _pairs(centers, 1, 1) + _pairs(corners, 2, -1))
        fill(field[:, half::step, ::step], _pairs(centers, 2, 1) + pairs)
        step //= 2
        amplitude /= decay
    field -= field.min(axis=(1, 2), keepdims=True)
    # The numbers of an octave are not all equal but by a chance that never comes.
    field /= field.max(axis=(1, 2), keepdims=True)
    return field


def _pairs(fields: np.ndarray, axis: int, shift: int) -> np.ndarray:
    """Every value plus its neighbor's, of which the last and the first are neighbors as well."""
    return fields + np.roll(fields, shift, axis)
