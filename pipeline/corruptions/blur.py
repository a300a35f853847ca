"""Blurs: motion, zoom, defocus and Gaussian. Only the first is random.

Definitions follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0), which calls
ImageMagick's motion blur.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import fft

from pipeline.corruptions import bands

Generators = Sequence[np.random.Generator]


def motion_blur(
    images: np.ndarray, generators: Generators, radius_and_sigma: tuple[int, float]
) -> np.ndarray:
    """Smear every image along a line of its own, at an angle drawn from U(-45, 45) degrees.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    angles = np.array([generator.uniform(-45, 45) for generator in generators])
    smeared = smear(images, angles, *radius_and_sigma)
    # ImageMagick rounds; without it a flat area would lose a level to summation error.
    return np.rint(smeared, out=smeared)


def smear(images: np.ndarray, angles: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Weighted mean of copies of `images` `[N, C, H, W]` shifted step by step along `angles`.

    Copy i lies i pixels to the left, turned by `angles` `[N]` degrees, and weighs in as one side
    of a Gaussian. Steps are whole pixels, and the border pixels continue beyond the border.
    Returns float32 `[N, C, H, W]`.
    """
    height, width = images.shape[-2:]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    direction = np.deg2rad(angles)[:, None]
    # ceil(x - 1/2) rounds halves down, as ImageMagick does.
    rows = np.ceil(steps * np.sin(direction) - 0.5).astype(int)
    columns = np.ceil(steps * np.cos(direction) - 0.5).astype(int)

    smeared = np.zeros(images.shape, np.float32)
    step = np.empty(images.shape[1:], np.float32)
    for image, target, tops, lefts in zip(images, smeared, rows, columns, strict=True):
        # As wide as the trail of this image, which may run down or up.
        above, before = -min(tops.min(), 0), -min(lefts.min(), 0)
        margins = ((above, max(tops.max(), 0)), (before, max(lefts.max(), 0)))
        padded = np.pad(image, ((0, 0), *margins), mode="edge").astype(np.float32)
        for weight, top, left in zip(weights, tops + above, lefts + before, strict=True):
            np.multiply(padded[:, top : top + height, left : left + width], weight, out=step)
            target += step
    return smeared


def gaussian_blur(images: np.ndarray, _generators: Generators, sigma: float) -> np.ndarray:
    """Blur; `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`."""
    return bands.gaussian_blur(images.astype(np.float32), sigma)


def zoom_blur(
    images: np.ndarray, _generators: Generators, end_and_step: tuple[float, float]
) -> np.ndarray:
    """Mean of an image and of its middle enlarged more and more.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    end, step = end_and_step
    factors = np.arange(1, end, step)
    height, width = images.shape[-2:]
    original = images.astype(np.float32)
    total = 2 * original  # the image, and its enlargement by a factor of 1
    for factor in factors[1:].tolist():
        across = bands.zoom_bands(width, factor).across(original)
        total += bands.zoom_bands(height, factor).down(across)
    total /= len(factors) + 1
    return total


def defocus_blur(
    images: np.ndarray, _generators: Generators, radius_and_sigma: tuple[float, float]
) -> np.ndarray:
    """Blur with a disk whose outline is smoothed, as a lens out of focus does.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    height, width = images.shape[-2:]
    kernel = disk(*radius_and_sigma)
    margin = len(kernel) // 2
    sides = tuple(fft.next_fast_len(side + 2 * margin, real=True) for side in (height, width))
    response = _response(*radius_and_sigma, sides)
    blurred = np.empty(images.shape, np.float32)
    for image, target in zip(images, blurred, strict=True):  # in turn: bounds the memory
        padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
        spectrum = fft.rfft2(padded.astype(np.float32), sides)
        spectrum *= response
        # The kernel's first place is its corner, which shifts the image by twice the margin.
        target[...] = fft.irfft2(spectrum, sides)[
            :, 2 * margin : 2 * margin + height, 2 * margin : 2 * margin + width
        ]
    return blurred


def disk(radius: float, sigma: float) -> np.ndarray:
    """The kernel, float64 `[K, K]` with K odd: a disk, blurred within its square."""
    reach, smoothing = (8, 1) if radius <= 8 else (int(radius), 2)
    steps = np.arange(-reach, reach + 1)
    kernel = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
    kernel /= kernel.sum()
    weights = np.exp(-(np.arange(-smoothing, smoothing + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for _ in range(2):  # along one side, and after the turn along the other
        padded = np.pad(kernel, ((smoothing, smoothing), (0, 0)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=0)
        kernel = (windows @ weights).T
    return kernel


@lru_cache(maxsize=4)
def _response(radius: float, sigma: float, sides: tuple[int, int]) -> np.ndarray:
    """Spectrum of the kernel in a field of so many rows and columns, complex64."""
    return fft.rfft2(disk(radius, sigma), sides).astype(np.complex64)
