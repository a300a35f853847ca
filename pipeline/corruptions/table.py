"""The constants of ImageNet-C: `CONSTANTS[name][scale]` holds one per severity, 1 to 5.

Facts of the scripts that made ImageNet-C, Tiny ImageNet-C and CIFAR-10-C (Hendrycks and Dietterich,
https://arxiv.org/abs/1903.12261; Apache-2.0). `imagenet` is for 224 pixels, `tiny` for 64 and
`cifar` for 32. Lengths are in pixels, and intensities from 0 to 1, unless said otherwise.
"""

from typing import Any


def _elastic(pixels: int, shares: list[tuple[float, float, float]]) -> tuple[Any, ...]:
    return tuple(tuple(pixels * share for share in constant) for constant in shares)


CONSTANTS: dict[str, dict[str, tuple[Any, ...]]] = {
    # (radius, sigma): the trail is 2 * radius + 1 pixels long and decays with sigma.
    "motion_blur": {
        "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "tiny": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
    # Share of the values that are replaced.
    "impulse_noise": {
        "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
        "tiny": (0.01, 0.02, 0.05, 0.08, 0.14),
        "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
    },
    # Standard deviation.
    "gaussian_noise": {
        "imagenet": (0.08, 0.12, 0.18, 0.26, 0.38),
        "tiny": (0.04, 0.08, 0.12, 0.15, 0.18),
        "cifar": (0.04, 0.06, 0.08, 0.09, 0.10),
    },
    # Side of the reduced image as a share of the original.
    "pixelate": {
        "imagenet": (0.6, 0.5, 0.4, 0.3, 0.25),
        "tiny": (0.9, 0.8, 0.7, 0.6, 0.5),
        "cifar": (0.95, 0.9, 0.85, 0.75, 0.65),
    },
    # (mean, deviation) of the liquid before it is blurred with sigma, the level above which it
    # stays, and then, for water (0), its opacity; for mud (1), the sigma that rounds its outlines.
    "spatter": {
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
    },
    # Share of the contrast that is left.
    "contrast": {
        "imagenet": (0.4, 0.3, 0.2, 0.1, 0.05),
        "tiny": (0.4, 0.3, 0.2, 0.1, 0.05),
        "cifar": (0.75, 0.5, 0.4, 0.3, 0.15),
    },
    # Quality of the encoder, in percent.
    "jpeg_compression": {
        "imagenet": (25, 18, 15, 10, 7),
        "tiny": (65, 58, 50, 40, 25),
        "cifar": (80, 65, 58, 50, 40),
    },
    # Photons that the brightest value stands for.
    "shot_noise": {
        "imagenet": (60, 25, 12, 5, 3),
        "tiny": (250, 100, 50, 30, 15),
        "cifar": (500, 250, 100, 75, 50),
    },
    # Standard deviation, as a share of the value.
    "speckle_noise": {
        "imagenet": (0.15, 0.2, 0.35, 0.45, 0.6),
        "tiny": (0.15, 0.2, 0.25, 0.3, 0.35),
        "cifar": (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    # Radius of the disk, sigma that smooths its outline.
    "defocus_blur": {
        "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "tiny": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    # Sigma, farthest that a pixel comes from, times that pixels move.
    "glass_blur": {
        "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "tiny": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
    # Zoom factors from 1: where they end, and their step.
    "zoom_blur": {
        "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "tiny": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "cifar": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    },
    # Sigma.
    "gaussian_blur": {
        "imagenet": (1, 2, 3, 4, 6),
        "tiny": (0.5, 0.75, 1, 1.25, 1.5),
        "cifar": (0.4, 0.6, 0.7, 0.8, 1),
    },
    # (mean, deviation) of the flakes, how much they are enlarged, the level above which they stay,
    # (radius, sigma) of their trails, share of the image that is not whitened.
    "snow": {
        "imagenet": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "tiny": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "cifar": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    },
    # Weights of the image and of the frost, size of the picture of frost as a share of the full.
    "frost": {
        "imagenet": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        "tiny": (
            (1, 0.3, 0.3),
            (0.9, 0.4, 0.3),
            (0.8, 0.45, 0.3),
            (0.75, 0.5, 0.3),
            (0.7, 0.55, 0.3),
        ),
        "cifar": (
            (1, 0.2, 0.2),
            (1, 0.3, 0.2),
            (0.9, 0.4, 0.2),
            (0.85, 0.4, 0.2),
            (0.75, 0.45, 0.2),
        ),
    },
    # Brightness of the fog, and the factor by which its detail fades from octave to octave.
    "fog": {
        "imagenet": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "tiny": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "cifar": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
    # What is added to the value of HSV.
    "brightness": {
        "imagenet": (0.1, 0.2, 0.3, 0.4, 0.5),
        "tiny": (0.1, 0.2, 0.3, 0.4, 0.5),
        "cifar": (0.05, 0.1, 0.15, 0.2, 0.3),
    },
    # How far pixels are moved before that is smoothed, sigma, how far corners are moved.
    "elastic_transform": {
        "imagenet": _elastic(
            244,  # so the published script, for images of 224
            [
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            ],
        ),
        "tiny": _elastic(
            64,
            [
                (0, 0, 0.08),
                (0.05, 0.3, 0.06),
                (0.1, 0.08, 0.06),
                (0.1, 0.03, 0.03),
                (0.16, 0.03, 0.02),
            ],
        ),
        "cifar": _elastic(
            32,
            [
                (0, 0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            ],
        ),
    },
    # What the saturation of HSV is multiplied by, and then what is added.
    "saturate": {
        "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        "tiny": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
}
