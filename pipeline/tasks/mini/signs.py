"""Traffic signs (GTSRB): each drawn as a board with its symbol, then put before a background."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from pipeline.tasks.mini.canvas import (
    CANVAS,
    Colour,
    near,
    photo_crop,
    plain,
    random_affine,
    random_colour,
    regular,
    warp,
    write,
)

_BOLD = "DejaVuSans-Bold"
_MIDDLE = (32, 32)
_ROUND = (6, 6, 58, 58)  # box of a round board


class Sign:
    """A sign in the making: its face, and the mask of its board."""

    def __init__(self, rng: np.random.Generator, spread: float) -> None:
        """`spread`: deviation of the colours from the standard ones, in levels."""
        self.rng = rng
        self.face = Image.new("RGB", (CANVAS, CANVAS))
        self.mask = Image.new("L", (CANVAS, CANVAS))
        self.pen, self._stencil = ImageDraw.Draw(self.face), ImageDraw.Draw(self.mask)
        self.red = near(rng, (200, 25, 35), spread)
        self.white = near(rng, (240, 240, 240), spread)
        self.blue = near(rng, (25, 70, 180), spread)
        self.yellow = near(rng, (245, 195, 40), spread)
        self.black = near(rng, (20, 20, 20), spread)

    def round_board(self, fill: Colour) -> None:
        """A disc."""
        self.pen.ellipse(_ROUND, fill=fill)
        self._stencil.ellipse(_ROUND, fill=255)

    def board(self, corners: list[tuple[float, float]], fill: Colour) -> None:
        """A polygon."""
        self.pen.polygon(corners, fill=fill)
        self._stencil.polygon(corners, fill=255)


def _stop(sign: Sign) -> None:
    sign.board(regular(8, _MIDDLE, 28, np.pi / 8), sign.red)
    write(sign.pen, "STOP", (_BOLD, 16), _MIDDLE, sign.white)


def _no_entry(sign: Sign) -> None:
    sign.round_board(sign.red)
    sign.pen.rectangle((15, 27, 49, 37), fill=sign.white)


def _red_triangle(sign: Sign, turn: float) -> None:
    sign.board(regular(3, (34, 34), 32, turn), sign.red)
    sign.pen.polygon(regular(3, (34, 34), 19, turn), fill=sign.white)


def _yield(sign: Sign) -> None:
    _red_triangle(sign, np.pi)


def _danger(sign: Sign) -> None:
    _red_triangle(sign, 0)
    sign.pen.line((32, 24, 32, 38), fill=sign.black, width=5)
    sign.pen.ellipse((30, 41, 35, 46), fill=sign.black)


def _priority_road(sign: Sign) -> None:
    sign.board(regular(4, _MIDDLE, 30), sign.white)
    sign.pen.polygon(regular(4, _MIDDLE, 22), fill=sign.yellow)


def _speed_limit(sign: Sign) -> None:
    sign.round_board(sign.red)
    sign.pen.ellipse((13, 13, 51, 51), fill=sign.white)
    limit = ("30", "50", "60", "70", "80")[sign.rng.integers(5)]
    write(sign.pen, limit, (_BOLD, 20), _MIDDLE, sign.black)


def _sideways(sign: Sign, way: int) -> None:
    """An arrow to the left (`way` = -1) or to the right (1)."""
    sign.round_board(sign.blue)
    sign.pen.line((32 - 16 * way, 32, 32 + 8 * way, 32), fill=sign.white, width=7)
    head = [(32 + 20 * way, 32), (32 + 4 * way, 20), (32 + 4 * way, 44)]
    sign.pen.polygon(head, fill=sign.white)


def _turn_left(sign: Sign) -> None:
    _sideways(sign, -1)


def _turn_right(sign: Sign) -> None:
    _sideways(sign, 1)


def _straight_ahead(sign: Sign) -> None:
    sign.round_board(sign.blue)
    sign.pen.line((32, 50, 32, 20), fill=sign.white, width=7)
    sign.pen.polygon([(32, 12), (20, 28), (44, 28)], fill=sign.white)


def _roundabout(sign: Sign) -> None:
    sign.round_board(sign.blue)
    for start in (20, 140, 260):
        sign.pen.arc((14, 14, 50, 50), start, start + 90, fill=sign.white, width=6)


def _parking(sign: Sign) -> None:
    sign.board([(8, 8), (56, 8), (56, 56), (8, 56)], sign.blue)
    write(sign.pen, "P", (_BOLD, 40), _MIDDLE, sign.white)


def _end_of_limit(sign: Sign) -> None:
    sign.round_board(sign.white)
    for shift in (-3, 1, 5):
        sign.pen.line((16 + shift, 50, 44 + shift, 14), fill=sign.black, width=2)


SIGNS: dict[str, Callable[[Sign], None]] = {
    "stop": _stop,
    "no entry": _no_entry,
    "yield": _yield,
    "priority road": _priority_road,
    "speed limit": _speed_limit,
    "turn left": _turn_left,
    "turn right": _turn_right,
    "straight ahead": _straight_ahead,
    "roundabout": _roundabout,
    "danger": _danger,
    "parking": _parking,
    "end of limit": _end_of_limit,
}


def draw_sign(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A traffic sign, 64x64: on a plain ground or, in the domain style, before a photograph."""
    scene = Image.fromarray(photo_crop(rng) if domain else plain(random_colour(rng)))
    sign = Sign(rng, spread=18 if domain else 8)
    SIGNS[name](sign)
    if domain:
        affine = random_affine(rng, 12, (0.65, 1.0), shear=0.15, shift=0.08)
    else:
        affine = random_affine(rng, 5, (0.85, 1.05))
    scene.paste(warp(sign.face, affine), (0, 0), warp(sign.mask, affine))
    return scene
