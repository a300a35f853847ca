"""Digital corruptions: contrast, pixelate and JPEG compression. None of them is random.

Definitions and constants follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

# Share of the contrast that is left.
CONTRAST = {
    "imagenet": (0.4, 0.3, 0.2, 0.1, 0.05),
    "tiny": (0.4, 0.3, 0.2, 0.1, 0.05),
    "cifar": (0.75, 0.5, 0.4, 0.3, 0.15),
}


def contrast(
    images: np.ndarray, _generators: Sequence[np.random.Generator], share: float
) -> np.ndarray:
    """Pull every channel towards its mean over the image.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    means = images.mean(axis=(2, 3), keepdims=True)
    return ((images - means) * share + means).astype(np.float32)


# Side of the reduced image as a share of the original.
PIXELATE = {
    "imagenet": (0.6, 0.5, 0.4, 0.3, 0.25),
    "tiny": (0.9, 0.8, 0.7, 0.6, 0.5),
    "cifar": (0.95, 0.9, 0.85, 0.75, 0.65),
}


def pixelate(
    images: np.ndarray, _generators: Sequence[np.random.Generator], share: float
) -> np.ndarray:
    """Shrink with a box filter and enlarge again by repeating pixels.

    `images` is uint8 `[N, 3, H, W]`, and so is the result.
    """
    height, width = images.shape[-2:]
    small = (max(1, int(width * share)), max(1, int(height * share)))

    def reduced(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize(
            (width, height), Image.Resampling.NEAREST
        )

    return _each(images, reduced)


# Quality of the JPEG encoder, in percent.
JPEG_COMPRESSION = {
    "imagenet": (25, 18, 15, 10, 7),
    "tiny": (65, 58, 50, 40, 25),
    "cifar": (80, 65, 58, 50, 40),
}


def jpeg_compression(
    images: np.ndarray, _generators: Sequence[np.random.Generator], quality: int
) -> np.ndarray:
    """Encode as JPEG with halved color resolution and decode again.

    `images` is uint8 `[N, 3, H, W]`, and so is the result.
    """

    def compressed(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(images, compressed)


def _each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Apply a Pillow operation that keeps the size to each of uint8 `[N, 3, H, W]`."""
    pictures = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    return np.stack([np.asarray(change(picture)).transpose(2, 0, 1) for picture in pictures])
