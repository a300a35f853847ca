"""Traces of digital processing: pixelate and JPEG compression. Neither is random.

Definitions follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.errors import UserError

JPEG_SIDE = 65_500  # pixels: the most that the library encodes

Generators = Sequence[np.random.Generator]


def pixelate(
    images: np.ndarray,
    _generators: Generators,
    share: float,
    sides: tuple[int, int] | None = None,
) -> np.ndarray:
    """Shrink with a box filter and enlarge again by repeating pixels.

    `images` is uint8 `[N, 3, H, W]`, and so is the result. `sides` (H, W) are those of the result,
    and `share` of them those of the shrunken image; the images' own unless given.
    """
    height, width = sides or images.shape[-2:]
    small = (max(1, int(width * share)), max(1, int(height * share)))

    def reduced(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize(
            (width, height), Image.Resampling.NEAREST
        )

    return _each(images, reduced, (height, width))


def jpeg_compression(images: np.ndarray, _generators: Generators, quality: int) -> np.ndarray:
    """Encode as JPEG with halved color resolution and decode again.

    `images` is uint8 `[N, 3, H, W]`, and so is the result. Raises `UserError` for a side that the
    format has no number for.
    """
    if max(images.shape[-2:]) > JPEG_SIDE:
        height, width = images.shape[-2:]
        raise UserError(
            f"An image of {width} x {height} pixels has no JPEG: {JPEG_SIDE} a side are the most. "
            "Make it smaller, or leave out jpeg_compression."
        )

    def compressed(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file, formats=("JPEG",))

    return _each(images, compressed, images.shape[-2:])


def _each(
    images: np.ndarray, change: Callable[[Image.Image], Image.Image], sides: tuple[int, ...]
) -> np.ndarray:
    """What a Pillow operation makes of each of uint8 `[N, 3, H, W]`, `sides` (H, W) large."""
    changed = np.empty((*images.shape[:2], *sides), np.uint8)
    for image, target in zip(images, changed, strict=True):
        picture = Image.merge("RGB", [Image.fromarray(channel) for channel in image])
        result = change(picture)
        for band, plane in zip("RGB", target, strict=True):
            # A band's bytes straight from the picture: faster than to split it first.
            plane[...] = np.frombuffer(result.tobytes("raw", band), np.uint8).reshape(sides)
    return changed
