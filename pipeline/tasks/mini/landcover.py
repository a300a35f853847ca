"""Land cover seen by a satellite (EuroSAT)."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import CANVAS, Colour, Sketch, blob, mottled, near

_CLIP_ART: dict[str, Colour] = {
    "forest": (20, 110, 30),
    "river": (60, 160, 60),
    "highway": (120, 170, 80),
    "residential": (90, 150, 90),
    "industrial": (190, 190, 190),
    "sea": (20, 90, 200),
    "pasture": (130, 210, 90),
    "cropland": (210, 190, 90),
    "orchard": (170, 140, 90),
    "beach": (240, 220, 150),
}
_SATELLITE: dict[str, Colour] = {
    "forest": (30, 65, 45),
    "river": (70, 100, 65),
    "highway": (110, 115, 85),
    "residential": (125, 115, 105),
    "industrial": (150, 145, 140),
    "sea": (25, 50, 85),
    "pasture": (105, 130, 75),
    "cropland": (140, 125, 80),
    "orchard": (125, 120, 80),
    "beach": (200, 185, 140),
}


def _forest(sketch: Sketch, base: Colour) -> None:
    for x, y in sketch.scatter(sketch.between(15, 50), (0, CANVAS), (0, CANVAS)):
        sketch.disc(x, y, sketch.between(2, 5), sketch.near(base, 10))


def _river(sketch: Sketch, base: Colour) -> None:
    swing, phase = sketch.rng.uniform(5, 16), sketch.rng.uniform(0, 2 * np.pi)
    pace = sketch.rng.uniform(0.05, 0.12)
    course = [(32 + swing * np.sin(phase + pace * y), y) for y in range(-20, 85, 6)]
    water = sketch.near((40, 65, 95) if sketch.domain else (40, 100, 220))
    sketch.pen.line(course, fill=water, width=sketch.between(7, 16), joint="curve")


def _highway(sketch: Sketch, base: Colour) -> None:
    width, top = sketch.between(4, 9), sketch.between(10, 54)
    lane = (top, -5, top + sketch.between(-20, 20), 70)
    sketch.pen.line(lane, fill=sketch.near((150, 148, 150)), width=width)
    sketch.pen.line(lane, fill=sketch.near((220, 215, 190)), width=1)


def _residential(sketch: Sketch, base: Colour) -> None:
    pitch = sketch.between(9, 14)
    for y in range(sketch.between(0, 5), CANVAS, pitch):
        for x in range(sketch.between(0, 5), CANVAS, pitch):
            roof = sketch.near((165, 95, 80), 22)
            sketch.pen.rectangle((x, y, x + pitch - 4, y + pitch - 5), fill=roof)


def _industrial(sketch: Sketch, base: Colour) -> None:
    for x, y in sketch.scatter(sketch.between(3, 6), (-8, 50), (-8, 50)):
        hall = (x, y, x + sketch.between(16, 32), y + sketch.between(10, 22))
        roof, edge = sketch.near((205, 210, 220), 25), sketch.near((90, 90, 95))
        sketch.pen.rectangle(hall, fill=roof, outline=edge)


def _sea(sketch: Sketch, base: Colour) -> None:
    """Nothing but water: the ground itself."""


def _pasture(sketch: Sketch, base: Colour) -> None:
    for centre in sketch.scatter(3, (0, CANVAS), (0, CANVAS)):
        patch = blob(sketch.rng, sketch.rng.uniform(4, 9), 8, centre)
        sketch.pen.polygon(patch, fill=sketch.near(base, 10))


def _cropland(sketch: Sketch, base: Colour) -> None:
    crops = [(140, 125, 80), (95, 115, 60), (165, 145, 95)] if sketch.domain else [(220, 190, 80)]
    for x in range(-20, 80, 16):
        strip = [(x, -5), (x + 16, -5), (x + 28, 70), (x + 12, 70)]
        crop = crops[sketch.between(0, len(crops))]
        sketch.pen.polygon(strip, fill=sketch.near(crop, 10))


def _orchard(sketch: Sketch, base: Colour) -> None:
    green, pitch = (45, 85, 55) if sketch.domain else (50, 150, 50), sketch.between(8, 12)
    for y in range(0, CANVAS, pitch):
        for x in range(0, CANVAS, pitch):
            crown = (x, y, x + pitch - 4, y + pitch - 4)
            sketch.pen.ellipse(crown, fill=sketch.near(green, 8))


def _beach(sketch: Sketch, base: Colour) -> None:
    line = sketch.rng.uniform(22, 42)
    shore = [(x, line + sketch.rng.uniform(-3, 3)) for x in range(0, 70, 8)]
    water = sketch.near((40, 80, 120) if sketch.domain else (40, 120, 220))
    sketch.pen.polygon([(-9, 80), (-9, line), *shore, (80, 80)], fill=water)


COVERS: dict[str, Callable[[Sketch, Colour], None]] = {
    "forest": _forest,
    "river": _river,
    "highway": _highway,
    "residential": _residential,
    "industrial": _industrial,
    "sea": _sea,
    "pasture": _pasture,
    "cropland": _cropland,
    "orchard": _orchard,
    "beach": _beach,
}
"""Class name -> what is drawn on the ground, whose base colour is given."""


def draw_cover(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A patch of land, 64x64; in the domain style with muted colours and at any angle."""
    base = (_SATELLITE if domain else _CLIP_ART)[name]
    spread = rng.uniform(8, 28) if domain else 10
    sketch = Sketch(rng, domain, mottled(rng, near(rng, base, 14), spread), spread=14)
    COVERS[name](sketch, base)
    if not domain:
        return sketch.image
    turn = 90 * sketch.between(0, 4)
    tilt = 0.0 if name in ("forest", "sea") else rng.uniform(-20, 20)
    return sketch.image.rotate(turn + tilt, Image.Resampling.BILINEAR)
