"""Objects seen from an aeroplane (RESISC45)."""

from collections.abc import Callable
from itertools import product

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import (
    CANVAS,
    Colour,
    Sketch,
    blob,
    mottled,
    near,
    random_affine,
    random_colour,
    warp,
)

_ON_WATER = ("bridge", "harbor", "island")
_WHITE, _ASPHALT = (225, 225, 225), (105, 105, 108)


def _airplane(sketch: Sketch, ground: Colour) -> None:
    white = sketch.near(_WHITE)
    wings = [(32, 24), (6, 40), (8, 44), (32, 36), (56, 44), (58, 40)]
    sketch.pen.line((32, 8, 32, 56), fill=white, width=6)
    sketch.pen.polygon(wings, fill=white)
    sketch.pen.polygon([(32, 48), (22, 56), (42, 56)], fill=white)


def _bridge(sketch: Sketch, ground: Colour) -> None:
    half = sketch.between(8, 14) // 2
    sketch.pen.rectangle((-5, 0, 10, CANVAS), fill=ground)
    sketch.pen.rectangle((54, 0, 70, CANVAS), fill=ground)
    sketch.pen.rectangle((-5, 32 - half, 70, 32 + half), fill=sketch.near(_ASPHALT))
    sketch.pen.line((0, 32, CANVAS, 32), fill=sketch.near(_WHITE))


def _stadium(sketch: Sketch, ground: Colour) -> None:
    sketch.pen.ellipse((4, 10, 60, 54), fill=sketch.near((170, 160, 155)))
    sketch.pen.ellipse((12, 17, 52, 47), fill=sketch.near((150, 80, 60)))
    sketch.pen.ellipse((18, 22, 46, 42), fill=sketch.near((70, 130, 60)))


def _parking_lot(sketch: Sketch, ground: Colour) -> None:
    sketch.pen.rectangle((2, 2, 62, 62), fill=sketch.near(_ASPHALT))
    for y in (5, 20, 35, 50):
        for x in range(4, 58, 7):
            if sketch.rng.random() < 0.8:
                car = random_colour(sketch.rng)
                sketch.pen.rectangle((x, y, x + 4, y + 9), fill=car)


def _storage_tank(sketch: Sketch, ground: Colour) -> None:
    white = sketch.near(_WHITE)
    rows = 2 if sketch.rng.random() < 0.6 else 3
    pitch = 60 // rows
    starts = [2 + place * pitch for place in range(rows)]
    for x, y in product(starts, starts):
        shadow = (x + 3, y + 3, x + pitch - 2, y + pitch - 2)
        sketch.pen.ellipse(shadow, fill=sketch.near((60, 60, 60)))
        sketch.pen.ellipse((x, y, x + pitch - 5, y + pitch - 5), fill=white)


def _harbor(sketch: Sketch, ground: Colour) -> None:
    white = sketch.near(_WHITE)
    sketch.pen.rectangle((0, 0, 12, CANVAS), fill=ground)
    for y in (6, 24, 42):
        sketch.pen.rectangle((12, y, 50, y + 3), fill=sketch.near((150, 140, 120)))
        for x in range(15, 48, 7):
            sketch.pen.polygon([(x, y + 5), (x + 4, y + 5), (x + 2, y + 12)], fill=white)


def _tennis_court(sketch: Sketch, ground: Colour) -> None:
    white = sketch.near(_WHITE)
    green = sketch.rng.random() < 0.5
    floor = sketch.near((60, 110, 90)) if green else (150, 85, 65)
    sketch.pen.rectangle((14, 4, 50, 60), fill=floor, outline=white)
    sketch.pen.rectangle((20, 16, 44, 48), outline=white)
    sketch.pen.line((14, 32, 50, 32), fill=white)
    sketch.pen.line((32, 16, 32, 48), fill=white)


def _island(sketch: Sketch, ground: Colour) -> None:
    sketch.pen.polygon(blob(sketch.rng, 21, 12), fill=sketch.near((205, 190, 150)))
    sketch.pen.polygon(blob(sketch.rng, 14, 10), fill=sketch.near((75, 110, 60)))


def _railway(sketch: Sketch, ground: Colour) -> None:
    for x in (20, 40) if sketch.rng.random() < 0.5 else (30,):
        for y in range(0, CANVAS, 5):
            sketch.pen.line((x - 5, y, x + 9, y), fill=sketch.near((90, 70, 55)), width=2)
        for rail in (x, x + 4):
            sketch.pen.line((rail, 0, rail, CANVAS), fill=sketch.near((60, 60, 65)), width=2)


def _intersection(sketch: Sketch, ground: Colour) -> None:
    half, road, white = sketch.between(9, 15) // 2, sketch.near(_ASPHALT), sketch.near(_WHITE)
    sketch.pen.rectangle((32 - half, -2, 32 + half, 66), fill=road)
    sketch.pen.rectangle((-2, 32 - half, 66, 32 + half), fill=road)
    sketch.pen.line((32, 0, 32, 22), fill=white)
    sketch.pen.line((32, 42, 32, CANVAS), fill=white)


OBJECTS: dict[str, Callable[[Sketch, Colour], None]] = {
    "airplane": _airplane,
    "bridge": _bridge,
    "stadium": _stadium,
    "parking lot": _parking_lot,
    "storage tank": _storage_tank,
    "harbor": _harbor,
    "tennis court": _tennis_court,
    "island": _island,
    "railway": _railway,
    "intersection": _intersection,
}
"""Class name -> what is drawn; the colour of the ground is given."""


def _ground(rng: np.random.Generator, domain: bool) -> Colour:
    if not domain:
        return near(rng, (200, 220, 200), 30)
    return near(rng, (150, 150, 145) if rng.random() < 0.5 else (95, 115, 75), 12)


def draw_object(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """An object from above, 64x64; in the domain style at any angle, with muted colours."""
    ground = _ground(rng, domain)
    water = near(rng, (55, 85, 110) if domain else (60, 140, 220), 12)
    surface = mottled(rng, water if name in _ON_WATER else ground, 22 if domain else 6)
    sketch = Sketch(rng, domain, surface, spread=12)
    OBJECTS[name](sketch, ground)
    if not domain:
        return sketch.image
    return warp(sketch.image, random_affine(rng, 180, (0.75, 1.15), shear=0.05, shift=0.08))
