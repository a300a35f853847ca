"""What the independent package made, and the images and random numbers that it made it of."""

import runpy
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.corruptions import CORRUPTIONS, HAIR

FIXTURES = Path(__file__).parents[1] / "fixtures"
MAKER = runpy.run_path(str(FIXTURES / "make_corruptions_oracle.py"))
DETERMINISTIC = set(MAKER["EXACT"])
RANDOM = sorted(CORRUPTIONS.keys() - DETERMINISTIC)


@cache
def oracle() -> dict[str, np.ndarray]:
    """The arrays of corruptions_oracle.npz."""
    with np.load(FIXTURES / "corruptions_oracle.npz") as arrays:
        return dict(arrays)


def scenes(count: int, size: int = 32) -> np.ndarray:
    """Different crops of a drawn scene, uint8 `[count, 3, size, size]`."""
    scene = MAKER["drawn_scene"](size + 2 * count, size + 3 * count)
    return np.stack([scene[:, 2 * i : 2 * i + size, 3 * i : 3 * i + size] for i in range(count)])


def sampled(image: np.ndarray) -> np.ndarray:
    """`[3, H, W]` at the places where the oracle has values, float64, clipped to 0 to 255."""
    return np.clip(image.ravel()[MAKER["places"](image.size)].astype(float), 0, 255)


def cut(values: np.ndarray) -> np.ndarray:
    """Whole intensities, as they are stored."""
    return np.floor(np.clip(values, 0, 255) + HAIR)


class Given:
    """A generator whose numbers are those that the package was given."""

    def __init__(self, severity: int = 1) -> None:
        self.severity = severity

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        field = MAKER["given"]("normal", (3, *shape[-2:]))
        return (field if len(shape) == 3 else field[0]).astype(dtype)

    def random(self, shape: int | tuple[int, ...], dtype: type) -> np.ndarray:
        return MAKER["given"]("uniform", shape).astype(dtype)

    def uniform(self, low: float, high: float, shape: tuple[int, ...] | None = None):
        if shape is not None:
            return low + (high - low) * MAKER["given"]("uniform", shape)
        return MAKER["ANGLES"][self.severity - 1] + (low + high) / 2

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        moves = oracle()[f"given/moves/{self.severity}"]
        assert moves.shape == shape
        assert moves.min() == low
        assert moves.max() == high - 1
        return moves
