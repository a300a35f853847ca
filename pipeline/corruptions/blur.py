"""Motion blur.

Definition and constants follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0), which
calls ImageMagick's motion blur.
"""

from collections.abc import Sequence

import numpy as np

# (radius, sigma) in pixels: the trail is 2 * radius + 1 pixels long and decays with sigma.
MOTION_BLUR = {
    "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "tiny": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
}


def motion_blur(
    images: np.ndarray,
    generators: Sequence[np.random.Generator],
    radius_and_sigma: tuple[int, float],
) -> np.ndarray:
    """Smear every image along a line of its own, at an angle drawn from U(-45, 45) degrees.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`.
    """
    angles = np.array([generator.uniform(-45, 45) for generator in generators])
    # ImageMagick rounds; without it a flat area would lose a level to summation error.
    return np.rint(smear(images, angles, *radius_and_sigma))


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
    rows = radius * 2 + np.ceil(steps * np.sin(direction) - 0.5).astype(int)
    columns = radius * 2 + np.ceil(steps * np.cos(direction) - 0.5).astype(int)

    margin = (2 * radius, 2 * radius)
    smeared = np.zeros(images.shape, np.float32)
    for image, target, tops, lefts in zip(images, smeared, rows, columns, strict=True):
        padded = np.pad(image, ((0, 0), margin, margin), mode="edge").astype(np.float32)
        for weight, top, left in zip(weights, tops, lefts, strict=True):
            target += weight * padded[:, top : top + height, left : left + width]
    return smeared
