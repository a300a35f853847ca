"""Sensor noise: Gaussian and impulse.

Definitions and constants follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Sequence

import numpy as np

# Standard deviation on the intensity range [0, 1].
GAUSSIAN_NOISE = {
    "imagenet": (0.08, 0.12, 0.18, 0.26, 0.38),
    "tiny": (0.04, 0.08, 0.12, 0.15, 0.18),
    "cifar": (0.04, 0.06, 0.08, 0.09, 0.10),
}


def gaussian_noise(
    images: np.ndarray, generators: Sequence[np.random.Generator], sigma: float
) -> np.ndarray:
    """Add independent normal noise to every channel of every pixel.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    """
    shape = images.shape[1:]
    noise = np.stack([generator.standard_normal(shape, np.float32) for generator in generators])
    return images + np.float32(255 * sigma) * noise


# Share of the values that are replaced.
IMPULSE_NOISE = {
    "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
    "tiny": (0.01, 0.02, 0.05, 0.08, 0.14),
    "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
}


def impulse_noise(
    images: np.ndarray, generators: Sequence[np.random.Generator], amount: float
) -> np.ndarray:
    """Replace a share of the values by 0 or 255 with equal odds: colored salt and pepper.

    `images` is uint8 `[N, 3, H, W]`, and so is the result. Channels are hit independently.
    """
    shape = images.shape[1:]
    chance = np.stack([generator.random(shape, np.float32) for generator in generators])
    peppered = np.where(chance < amount / 2, np.uint8(0), images)
    return np.where(chance >= 1 - amount / 2, np.uint8(255), peppered)
