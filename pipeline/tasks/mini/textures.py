"""Textures (DTD): two-colour patterns computed from a rotated grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import (
    CANVAS,
    contrasting,
    near,
    noise,
    ramp,
    random_colour,
    smooth_noise,
)

_ROWS, _COLUMNS = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) / CANVAS - 0.5


@dataclass(frozen=True)
class Grid:
    """Coordinates of all pixels, each [64, 64], and how fine the pattern is."""

    x: np.ndarray  # across the picture, -0.5..0.5
    y: np.ndarray  # down the picture, -0.5..0.5
    u: np.ndarray  # along the pattern, one unit per repeat, random origin
    v: np.ndarray  # across the pattern, likewise
    repeats: float  # of the pattern across the picture


def _grid(rng: np.random.Generator, domain: bool) -> Grid:
    """A grid that is upright or diagonal; in the domain style, at any angle and uneven."""
    x, y = _COLUMNS, _ROWS
    if domain:
        angle, repeats = rng.uniform(0, np.pi), rng.uniform(3, 5)
        bump = 0.05 * (noise(rng) - 0.5)
        x, y = x + bump, y + bump
    else:
        angle, repeats = (0, np.pi / 2, 0.78)[rng.integers(3)], rng.uniform(3, 4.5)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    origin = rng.random(2, dtype=np.float32)
    u = (x * cos + y * sin + origin[0]) * np.float32(repeats)
    v = (-x * sin + y * cos + origin[1]) * np.float32(repeats)
    return Grid(x, y, u, v, repeats)


def _wave(values: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1, in 0..1."""
    return np.abs(values % 1 - 0.5) * 2


def _striped(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    return _wave(grid.u) > rng.uniform(0.4, 0.6)


def _dotted(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    staggered = grid.v + 0.5 * (np.floor(grid.u) % 2)
    return np.hypot(grid.u % 1 - 0.5, staggered % 1 - 0.5) < rng.uniform(0.25, 0.38)


def _checkered(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    return (np.floor(grid.u) + np.floor(grid.v)) % 2


def _zigzagged(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    return (grid.v + 0.8 * _wave(grid.u)) % 1 < 0.5


def _spiralled(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    centre = rng.uniform(-0.15, 0.15, 2).astype(np.float32)
    x, y = grid.x - centre[0], grid.y - centre[1]
    turns = np.arctan2(y, x) / (2 * np.pi) * (-1, 1)[rng.integers(2)]
    return np.sin(2 * np.pi * (np.hypot(x, y) * grid.repeats * 1.2 + turns)) > 0


def _cracked(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Cells around random points; a crack is where two points are about equally near."""
    points = rng.uniform(-0.7, 0.7, (14, 2)).astype(np.float32)
    first = second = np.full_like(grid.x, np.inf)
    for px, py in points:
        distance = (grid.x - px) ** 2 + (grid.y - py) ** 2
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return np.sqrt(second) - np.sqrt(first) > 0.05


def _marbled(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    veins = smooth_noise(rng) * rng.uniform(1.5, 2.5)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (veins + grid.u * 0.3))


TEXTURES: dict[str, Callable[[Grid, np.random.Generator], np.ndarray]] = {
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
    "zigzagged": _zigzagged,
    "spiralled": _spiralled,
    "cracked": _cracked,
    "marbled": _marbled,
}
"""Class name -> pattern [64, 64] with values in 0..1."""


def draw_texture(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A two-colour texture, 64x64; in the domain style it is mottled."""
    pattern: np.ndarray = TEXTURES[name](_grid(rng, domain), rng).astype(np.float32)
    first = random_colour(rng)
    last = contrasting(rng, first)
    if domain:
        pattern = pattern * 0.8 + 0.2 * noise(rng)
        last = near(rng, last, 20)
    return Image.fromarray(ramp(pattern, first, last))
