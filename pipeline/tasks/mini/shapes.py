"""Pictures of one to three coloured shapes, for pretraining only: they teach words apart."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import Colour, Sketch, mottled, near, regular, star

COLOURS: dict[str, Colour] = {
    "red": (215, 40, 40),
    "green": (45, 170, 60),
    "blue": (45, 80, 215),
    "yellow": (235, 215, 50),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
    "purple": (140, 50, 170),
    "orange": (240, 140, 35),
}

COUNTS: dict[str, tuple[tuple[int, int], ...]] = {
    "one": ((32, 32),),
    "two": ((18, 32), (46, 32)),
    "three": ((17, 18), (46, 22), (32, 47)),
}
"""How many shapes -> where their centres lie."""


def _box(x: float, y: float, half_width: float, half_height: float) -> tuple[float, ...]:
    return (x - half_width, y - half_height, x + half_width, y + half_height)


def _circle(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.disc(x, y, r, fill)


def _square(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.rectangle(_box(x, y, r * 0.85, r * 0.85), fill=fill)


def _triangle(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.polygon(regular(3, (x, y), r), fill=fill)


def _star(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.polygon(star(10, (x, y), r, waist=0.4), fill=fill)


def _cross(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.rectangle(_box(x, y, r, r / 4), fill=fill)
    sketch.pen.rectangle(_box(x, y, r / 4, r), fill=fill)


def _ring(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.ellipse(_box(x, y, r, r), outline=fill, width=max(3, int(r / 3)))


def _bar(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.rectangle(_box(x, y, r, r / 3.5), fill=fill)


def _diamond(sketch: Sketch, x: float, y: float, r: float, fill: Colour) -> None:
    sketch.pen.polygon(regular(4, (x, y), r), fill=fill)


SHAPES: dict[str, Callable[[Sketch, float, float, float, Colour], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "bar": _bar,
    "diamond": _diamond,
}
"""Name of a shape -> how it is drawn around (x, y) with radius r."""


def draw_shapes(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """A picture, 64x64, and its caption, such as "two red circle"."""
    colours = list(COLOURS)
    count = list(COUNTS)[rng.integers(len(COUNTS))]
    shape = list(SHAPES)[rng.integers(len(SHAPES))]
    first, other = rng.choice(len(colours), 2, replace=False).tolist()
    ground = near(rng, COLOURS[colours[other]], 15)
    unevenness = 25 if rng.random() < 0.5 else 5
    sketch = Sketch(rng, True, mottled(rng, ground, unevenness), spread=15)
    fill = sketch.near(COLOURS[colours[first]])
    for x, y in COUNTS[count]:
        radius = (22 if count == "one" else 13) * rng.uniform(0.75, 1.1)
        x, y = x + sketch.between(-3, 4), y + sketch.between(-3, 4)
        SHAPES[shape](sketch, x, y, radius, fill)
    return sketch.image, f"{count} {colours[first]} {shape}"
