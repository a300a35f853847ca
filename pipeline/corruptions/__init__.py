"""Image corruptions of the ImageNet-C family for batches of uint8 images.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, https://arxiv.org/abs/1903.12261. Definitions and constants are theirs (Apache-2.0),
for three image sizes: `imagenet` (224 pixels), `tiny` (64) and `cifar` (32).

    corrupted = corrupt(images, "motion_blur", severity=3, indices=indices)

A corruption is a function `(images, generators, constant) -> images` with one random generator per
image and the constant of a severity. `CORRUPTIONS` holds each with its constants.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from pipeline.corruptions import blur, digital, noise, weather
from pipeline.errors import UserError, unknown

SCALES = ("imagenet", "tiny", "cifar")
SEVERITIES = (1, 2, 3, 4, 5)

# Pixels handled at a time: bounds the temporary arrays to some tens of megabytes.
CHUNK_PIXELS = 1 << 19


@dataclass(frozen=True)
class Corruption:
    """A corruption and what it is called with.

    `apply(images, generators, constant)` takes uint8 `[N, 3, H, W]`, N generators and one of the
    constants; it returns `[N, 3, H, W]` in any number type, on the scale of 0 to 255.
    `constants[scale]` holds one constant per severity.
    """

    apply: Callable[[np.ndarray, Sequence[np.random.Generator], Any], np.ndarray]
    constants: Mapping[str, Sequence[Any]]


CORRUPTIONS: dict[str, Corruption] = {
    "motion_blur": Corruption(blur.motion_blur, blur.MOTION_BLUR),
    "impulse_noise": Corruption(noise.impulse_noise, noise.IMPULSE_NOISE),
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.GAUSSIAN_NOISE),
    "pixelate": Corruption(digital.pixelate, digital.PIXELATE),
    "spatter": Corruption(weather.spatter, weather.SPATTER),
    "contrast": Corruption(digital.contrast, digital.CONTRAST),
    "jpeg_compression": Corruption(digital.jpeg_compression, digital.JPEG_COMPRESSION),
}


def corrupt(
    images: np.ndarray,
    name: str,
    severity: int,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
    scale: str = "imagenet",
) -> np.ndarray:
    """Corrupt `images`, uint8 `[N, 3, H, W]` in RGB; returns a new array of the same kind.

    Image i draws from a generator seeded by (`seed`, `name`, `severity`, `indices[i]`), so that its
    pixels depend neither on the rest of the batch nor on the order. `indices` defaults to
    0, 1, ..., N - 1; give the position in the data set where a batch is only a part of it.
    `severity` runs from 1 to 5 and `scale` picks the constants made for an image size.

    Raises `UserError` on an unknown name or scale, and on arguments of the wrong kind.
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if scale not in SCALES:
        raise unknown("corruption scale", scale, SCALES)
    _check(images, severity, seed)
    indices = _checked_indices(indices, len(images))

    if not images.size:
        return images.copy()
    corruption = CORRUPTIONS[name]
    constant = corruption.constants[scale][severity - 1]
    corrupted = np.empty_like(images)
    chunk = max(1, CHUNK_PIXELS // images[0, 0].size)
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        generators = [
            np.random.default_rng((seed, crc32(name.encode()), severity, index))
            for index in indices[part]
        ]
        result = corruption.apply(images[part], generators, constant)
        # ImageNet-C stores whole intensities by cutting off the fraction.
        corrupted[part] = np.clip(result, 0, 255)
    return corrupted


def _check(images: np.ndarray, severity: int, seed: int) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise UserError(
            f"Images to corrupt must be a NumPy array of uint8, found {found}. "
            "Corrupt the stored images, before they are scaled and normalized."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"Images to corrupt must have the shape [N, 3, H, W], found {list(images.shape)}. "
            "Put the channels before height and width, and give gray images three equal channels."
        )
    if not isinstance(severity, (int, np.integer)) or severity not in SEVERITIES:
        raise UserError(f"Severity {severity!r} does not exist: choose a whole number from 1 to 5.")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"Seed {seed!r} cannot be used: choose a whole number from 0.")


def _checked_indices(indices: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    """`indices` as int64 `[count]`."""
    found = np.arange(count) if indices is None else np.asarray(indices)
    if found.shape != (count,):
        raise UserError(
            f"{count} images were given with indices of the shape {list(found.shape)}: "
            "give one index per image."
        )
    if count and (not np.issubdtype(found.dtype, np.integer) or found.min() < 0):
        raise UserError(
            "Indices of images must be whole numbers from 0: "
            "give the position of each image in its data set."
        )
    return found
