"""Changes of color: contrast, brightness and saturation. None of them is random.

Definitions follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0). In HSV, with the hue
kept, every channel lies between V (the largest) and V (1 - S) in the same proportion as before, so
that new values follow from V, S and the channel itself; V and V (1 - S) are whole numbers, and so
what depends on them is looked up.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Generators = Sequence[np.random.Generator]


def contrast(images: np.ndarray, _generators: Generators, share: float) -> np.ndarray:
    """Pull every channel towards its mean over the image.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    means = images.mean(axis=(2, 3), keepdims=True)
    pulled = images * np.float32(share)
    pulled += ((1 - share) * means).astype(np.float32)
    return pulled


def brightness(images: np.ndarray, _generators: Generators, added: float) -> np.ndarray:
    """Add to V; `images` is uint8 `[N, 3, H, W]`, and so is the result."""
    place = images.max(axis=1, keepdims=True).astype(np.uint16)
    place <<= 8
    return _brightened(added).take(place | images)


@lru_cache(maxsize=16)
def _brightened(added: float) -> np.ndarray:
    """256 V + value of a channel -> new value, uint8 `[65536]`."""
    levels = np.arange(256) / 255
    value = levels[:, None]
    lighter = np.minimum(value + added, 1)
    # Black has no color: its channels all become V.
    scaled = np.where(value > 0, levels * lighter / np.maximum(value, 1 / 255), lighter)
    return (np.clip(255 * scaled, 0, 255) + 1e-6).astype(np.uint8).ravel()


def saturate(
    images: np.ndarray, _generators: Generators, constant: tuple[float, float]
) -> np.ndarray:
    """Multiply S and add to it.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`. Gray counts as red without
    saturation, and so turns red where something is added.
    """
    largest = images.max(axis=1)
    place = largest.astype(np.uint16)
    place <<= 8
    place |= images.min(axis=1)
    stretch, reddened = _saturated(*constant)
    below = largest[:, None] - images  # uint8: none is above the largest
    changed = below * -stretch.take(place)[:, None]
    changed += largest[:, None]
    if constant[1]:
        changed[:, 1:] -= reddened.take(place)[:, None]
    return changed


@lru_cache(maxsize=16)
def _saturated(factor: float, added: float) -> tuple[np.ndarray, np.ndarray]:
    """256 V + V (1 - S) -> (new S as a multiple of S, what gray loses in green and blue).

    Two arrays of float32 `[65536]`; V and V (1 - S) are intensities from 0 to 255.
    """
    largest, smallest = np.indices((256, 256))
    saturation = (largest - smallest) / np.maximum(largest, 1)
    gray = largest <= smallest
    changed = np.clip(saturation * factor + added, 0, 1)
    stretch = np.where(gray, 0, changed / np.where(gray, 1, saturation))
    reddened = np.where(gray, largest * min(added, 1), 0)
    return stretch.astype(np.float32).ravel(), reddened.astype(np.float32).ravel()
