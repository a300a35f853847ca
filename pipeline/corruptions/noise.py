"""Noise of a sensor: Gaussian, shot, impulse and speckle.

Definitions follow ImageNet-C (https://arxiv.org/abs/1903.12261; Apache-2.0).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Generators = Sequence[np.random.Generator]
SLOTS = 256  # of a table to draw from: as many as there are intensities


def gaussian_noise(images: np.ndarray, generators: Generators, sigma: float) -> np.ndarray:
    """Add independent normal noise to every channel of every pixel.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    """
    noise = _normal(images.shape, generators)
    noise *= np.float32(255 * sigma)
    noise += images
    return noise


def speckle_noise(images: np.ndarray, generators: Generators, sigma: float) -> np.ndarray:
    """Add independent normal noise in proportion to the value.

    `images` is uint8 `[N, 3, H, W]`; returns float32 `[N, 3, H, W]`, not yet clipped to [0, 255].
    """
    noise = _normal(images.shape, generators)
    noise *= np.float32(sigma)
    noise += 1
    noise *= images
    return noise


def _normal(shape: tuple[int, ...], generators: Generators) -> np.ndarray:
    """A standard normal field per image, float32 `[N, 3, H, W]`."""
    return np.stack([generator.standard_normal(shape[1:], np.float32) for generator in generators])


def impulse_noise(images: np.ndarray, generators: Generators, amount: float) -> np.ndarray:
    """Replace a share of the values by 0 or 255 with equal odds: colored salt and pepper.

    `images` is uint8 `[N, 3, H, W]`, and so is the result. Channels are hit independently.
    """
    shape = images.shape[1:]
    chance = np.stack([generator.random(shape, np.float32) for generator in generators])
    peppered = np.where(chance < amount / 2, np.uint8(0), images)
    return np.where(chance >= 1 - amount / 2, np.uint8(255), peppered)


def shot_noise(images: np.ndarray, generators: Generators, photons: int) -> np.ndarray:
    """Replace every value by a count of photons, Poisson with the value as its mean.

    `photons` is the mean count of the brightest value. `images` is uint8 `[N, 3, H, W]`, and so is
    the result. Drawn from tables: one number per value, of which 8 bits choose a slot and 24 bits
    between the slot's two intensities.
    """
    odds, first, second = _shot_tables(photons)
    drawn = np.empty_like(images)
    for image, target, generator in zip(images, drawn, generators, strict=True):
        number = generator.integers(0, 1 << 32, image.shape, np.uint32)
        slot = image.astype(np.int32)
        slot <<= 8
        slot |= (number & 255).astype(np.int32)
        number >>= 8
        chosen = number < odds.take(slot)
        np.copyto(target, second.take(slot))
        np.copyto(target, first.take(slot), where=chosen)
    return drawn


@lru_cache(maxsize=16)
def _shot_tables(photons: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slot -> (how often of 2^24 it means its first intensity, first and second intensity).

    Slot 256 v + i is the i-th of the value v. All have the same odds (Walker's alias method).
    """
    from scipy.stats import poisson

    counts = np.arange(photons + 1)
    # A hair, so that counts which stand for whole intensities are not cut to the one below.
    level = np.minimum((counts * (255 / photons) + 1e-6).astype(int), SLOTS - 1)
    chance = poisson.pmf(counts, np.arange(SLOTS)[:, None] * (photons / 255))
    chance[:, -1] = poisson.sf(photons - 1, np.arange(SLOTS) * (photons / 255))
    mass = np.zeros((SLOTS, SLOTS))
    np.add.at(mass.T, level, chance.T)

    odds = np.ones((SLOTS, SLOTS))
    second = np.tile(np.arange(SLOTS), (SLOTS, 1))
    for value in range(SLOTS):
        left = mass[value] * (SLOTS / mass[value].sum())
        poor, rich = list(np.flatnonzero(left < 1)), list(np.flatnonzero(left >= 1))
        while poor and rich:
            slot, giver = poor.pop(), rich[-1]
            odds[value, slot], second[value, slot] = left[slot], giver
            left[giver] -= 1 - left[slot]
            if left[giver] < 1:
                poor.append(rich.pop())
    first = np.tile(np.arange(SLOTS, dtype=np.uint8), SLOTS)
    return (
        np.rint(odds.ravel() * (1 << 24)).astype(np.uint32),
        first,
        second.astype(np.uint8).ravel(),
    )
