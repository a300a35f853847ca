"""Scenes (SUN397): a sky and a ground that meet at a horizon, and what stands there."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import (
    CANVAS,
    Colour,
    Sketch,
    mottled,
    near,
    random_affine,
    random_colour,
    warp,
)

_GROUNDS: dict[str, Colour] = {
    "mountain": (90, 110, 80),
    "skyline": (90, 90, 95),
    "desert": (215, 175, 115),
    "woodland": (60, 80, 45),
    "bedroom": (150, 115, 90),
    "ocean": (45, 85, 125),
    "street": (105, 105, 105),
    "night sky": (15, 18, 25),
    "waterfall": (75, 95, 75),
    "farm": (150, 150, 75),
}
_DAY, _DUSK, _NIGHT = (150, 185, 220), (225, 160, 120), (12, 15, 45)


def _mountain(sketch: Sketch, horizon: int) -> None:
    for x, y in sketch.scatter(3, (5, 60), (4, 16)):
        foot = horizon + 4
        slope = [(x - 24, foot), (x, y), (x + 24, foot)]
        sketch.pen.polygon(slope, fill=sketch.near((110, 110, 125)))
        sketch.pen.polygon([(x - 7, y + 8), (x, y), (x + 7, y + 8)], fill=(240, 240, 245))


def _skyline(sketch: Sketch, horizon: int) -> None:
    for x in range(0, CANVAS, 8):
        tower = (x, sketch.between(6, horizon), x + 7, horizon + 10)
        sketch.pen.rectangle(tower, fill=sketch.near((85, 90, 110), 20 if sketch.domain else 8))
    sketch.pen.point(sketch.scatter(25, (20, 48), (20, 48)), fill=(250, 230, 140))


def _desert(sketch: Sketch, horizon: int) -> None:
    crest = [(x, horizon + 6 * np.sin(x / 9 + sketch.rng.uniform(0, 0.8))) for x in range(0, 72, 6)]
    dune = [(-5, 70), (-5, horizon + 8), *crest, (70, 70)]
    sketch.pen.polygon(dune, fill=sketch.near((225, 185, 120)))
    sketch.pen.ellipse((44, 6, 54, 16), fill=(255, 240, 190))


def _woodland(sketch: Sketch, horizon: int) -> None:
    for x in sketch.rng.integers(0, 60, 7).tolist():
        trunk = (x, 10, x + sketch.between(2, 5), 60)
        sketch.pen.rectangle(trunk, fill=sketch.near((75, 55, 40)))
    for x, y in sketch.scatter(12, (0, CANVAS), (0, 22)):
        sketch.pen.ellipse((x - 7, y - 6, x + 7, y + 6), fill=sketch.near((50, 95, 45)))


def _bedroom(sketch: Sketch, horizon: int) -> None:
    sketch.pen.rectangle((0, 0, CANVAS, horizon), fill=sketch.near((205, 195, 180)))
    blanket = sketch.near(random_colour(sketch.rng, 60, 220))
    sketch.pen.rectangle((8, 34, 56, 54), fill=blanket)
    sketch.pen.rectangle((8, 28, 26, 36), fill=(240, 240, 240))  # the pillow
    sketch.pen.rectangle((6, 20, 9, 60), fill=sketch.near((95, 65, 45)))  # the head of the bed
    window = sketch.near((170, 205, 235))
    sketch.pen.rectangle((40, 6, 56, 22), fill=window, outline=(90, 70, 50))


def _ocean(sketch: Sketch, horizon: int) -> None:
    for x, y in sketch.scatter(14, (0, 54), (horizon, CANVAS)):
        wave = (x, y, x + sketch.between(6, 16), y)
        sketch.pen.line(wave, fill=sketch.near((170, 195, 215)))
    if sketch.rng.random() < 0.5:
        sail = [(40, horizon + 3), (52, horizon + 3), (46, horizon - 12)]
        sketch.pen.polygon(sail, fill=(245, 245, 245))


def _street(sketch: Sketch, horizon: int) -> None:
    spread = 25 if sketch.domain else 8
    left, right = sketch.near((150, 105, 90), spread), sketch.near((135, 115, 110), spread)
    top, foot = horizon - 4, horizon + 2
    sketch.pen.polygon([(0, 4), (22, top), (22, foot), (0, 60)], fill=left)
    sketch.pen.polygon([(64, 4), (42, top), (42, foot), (64, 60)], fill=right)
    road = [(12, 66), (29, horizon), (35, horizon), (52, 66)]
    sketch.pen.polygon(road, fill=sketch.near((75, 75, 78)))
    sketch.pen.line((32, CANVAS, 32, horizon), fill=(230, 230, 200))


def _night_sky(sketch: Sketch, horizon: int) -> None:
    sketch.pen.point(sketch.scatter(30, (0, CANVAS), (0, 40)), fill=(250, 250, 230))
    if sketch.rng.random() < 0.7:
        sketch.pen.ellipse((44, 6, 54, 16), fill=(245, 240, 210))


def _waterfall(sketch: Sketch, horizon: int) -> None:
    sketch.pen.rectangle((0, 8, CANVAS, 52), fill=sketch.near((80, 75, 70)))
    x = sketch.between(20, 38)
    sketch.pen.rectangle((x, 6, x + 10, 52), fill=sketch.near((225, 235, 240)))
    for strand in (x + 2, x + 5, x + 8):
        sketch.pen.line((strand, 8, strand, 50), fill=sketch.near((185, 205, 220)))
    sketch.pen.rectangle((0, 52, CANVAS, CANVAS), fill=sketch.near((70, 115, 130)))


def _farm(sketch: Sketch, horizon: int) -> None:
    x, eaves = sketch.between(8, 30), horizon - 10
    barn, roof = sketch.near((165, 45, 40)), sketch.near((90, 60, 55))
    sketch.pen.rectangle((x, eaves, x + 20, horizon + 6), fill=barn)
    sketch.pen.polygon([(x - 3, eaves), (x + 10, eaves - 10), (x + 23, eaves)], fill=roof)
    for y in range(horizon + 8, CANVAS, 5):
        sketch.pen.line((0, y, CANVAS, y), fill=sketch.near((120, 125, 55)))


SCENES: dict[str, Callable[[Sketch, int], None]] = {
    "mountain": _mountain,
    "skyline": _skyline,
    "desert": _desert,
    "woodland": _woodland,
    "bedroom": _bedroom,
    "ocean": _ocean,
    "street": _street,
    "night sky": _night_sky,
    "waterfall": _waterfall,
    "farm": _farm,
}
"""Class name -> what is drawn; the row of the horizon is given."""


def _sky(name: str, rng: np.random.Generator, domain: bool) -> Colour:
    if name == "night sky":
        return near(rng, _NIGHT, 8)
    dusk = domain and rng.random() < 0.4
    return near(rng, _DUSK if dusk else _DAY, 16 if domain else 8)


def draw_scene(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A scene, 64x64; in the domain style with varied horizon, light and framing."""
    spread = 16 if domain else 8
    horizon = int(rng.integers(24, 40)) if domain else 32
    sky = mottled(rng, _sky(name, rng, domain), 20 if domain else 5)
    ground = mottled(rng, near(rng, _GROUNDS[name], spread), 24 if domain else 6)
    view = np.concatenate([sky[:horizon], ground[horizon:]])
    sketch = Sketch(rng, domain, view, spread)
    SCENES[name](sketch, horizon)
    if not domain:
        return sketch.image
    return warp(sketch.image, random_affine(rng, 5, (1.05, 1.3), shear=0.03, shift=0.06))
