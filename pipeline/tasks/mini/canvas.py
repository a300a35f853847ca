"""Drawing primitives: colours, fonts, clutter, noise fields and warps.

Pictures are drawn at twice their final size and then halved, which smooths all edges.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 32
"""Width and height of a finished picture, in pixels."""

CANVAS = 2 * SIZE
"""Width and height of the canvas it is drawn on; all drawing coordinates are in these pixels."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

_ROUGH_FIELDS = 64  # noise fields with much fine detail, for surfaces
_SMOOTH_FIELDS = 64  # noise fields of broad swirls, for marble


class Sketch:
    """A picture in the making, with the random generator that varies it.

    `domain` is False for clean clip art and True for the style of the task's own pictures.
    """

    def __init__(
        self, rng: np.random.Generator, domain: bool, background: np.ndarray, spread: float
    ) -> None:
        """`background`: uint8 [64, 64, 3]; `spread`: usual deviation of a colour, in levels."""
        self.rng = rng
        self.domain = domain
        self.spread = spread
        self.image = Image.fromarray(background)
        self.pen = ImageDraw.Draw(self.image)

    def near(self, colour: Colour, spread: float | None = None) -> Colour:
        """A colour like this one, varied by `spread` levels (default: the sketch's own)."""
        return near(self.rng, colour, self.spread if spread is None else spread)

    def between(self, low: int, high: int) -> int:
        """A random whole number, `low` <= number < `high`."""
        return int(self.rng.integers(low, high))

    def scatter(self, count: int, x: tuple[int, int], y: tuple[int, int]) -> list[Point]:
        """`count` random points with whole coordinates in the half-open ranges `x` and `y`."""
        points = self.rng.integers((x[0], y[0]), (x[1], y[1]), (count, 2))
        return [tuple(point) for point in points.tolist()]

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """A filled circle around (x, y)."""
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


@cache
def photos() -> list[np.ndarray]:
    """Real photographs, uint8 [h, w, 3], at full size and at a third of it."""
    from sklearn.datasets import load_sample_images  # slow to import, needed for clutter only

    images = [Image.fromarray(image) for image in load_sample_images().images]
    return [np.asarray(image.reduce(factor)) for image in images for factor in (1, 3)]


def photo_crop(rng: np.random.Generator) -> np.ndarray:
    """A random piece of a photograph, uint8 [64, 64, 3]."""
    photo = photos()[rng.integers(len(photos()))]
    top = rng.integers(photo.shape[0] - CANVAS)
    left = rng.integers(photo.shape[1] - CANVAS)
    return photo[top : top + CANVAS, left : left + CANVAS]


@cache
def _noise_bank() -> np.ndarray:
    """Fractal noise, float32 [128, 64, 64] in 0..1: first the rough fields, then the smooth."""
    rng = np.random.default_rng(7)
    rows, columns = np.fft.fftfreq(CANVAS), np.fft.rfftfreq(CANVAS)
    frequency = np.hypot(rows[:, None], columns[None]) + 1 / CANVAS
    fields = []
    for index in range(_ROUGH_FIELDS + _SMOOTH_FIELDS):
        slope = rng.uniform(0.8, 1.5) if index < _ROUGH_FIELDS else 2.0
        white = np.fft.rfft2(rng.normal(size=(CANVAS, CANVAS)))
        field = np.fft.irfft2(white / frequency**slope)
        field = (field - field.mean()) / field.std()
        fields.append(np.clip(field * 0.22 + 0.5, 0, 1).astype(np.float32))
    return np.stack(fields)


def noise(rng: np.random.Generator) -> np.ndarray:
    """A random field of fractal noise, float32 [64, 64] in 0..1, shifted at random."""
    field = _noise_bank()[rng.integers(len(_noise_bank()))]
    return np.roll(field, tuple(rng.integers(CANVAS, size=2)), axis=(0, 1))


def smooth_noise(rng: np.random.Generator) -> np.ndarray:
    """A random field of broad swirls, float32 [64, 64] in 0..1."""
    return _noise_bank()[_ROUGH_FIELDS + rng.integers(_SMOOTH_FIELDS)]


def ramp(field: np.ndarray, first: Sequence[float], last: Sequence[float]) -> np.ndarray:
    """Colours a field [64, 64]: 0 becomes `first`, 1 becomes `last`; uint8 [64, 64, 3]."""
    start, end = np.array(first, np.float32), np.array(last, np.float32)
    return (start + field[..., None] * (end - start)).clip(0, 255).astype(np.uint8)


def mottled(rng: np.random.Generator, colour: Colour, spread: float) -> np.ndarray:
    """An uneven surface within `spread` levels of `colour`, uint8 [64, 64, 3]."""
    darker = tuple(max(0, level - spread) for level in colour)
    lighter = tuple(min(255, level + spread) for level in colour)
    return ramp(noise(rng), darker, lighter)


def plain(colour: Colour) -> np.ndarray:
    """An even surface, uint8 [64, 64, 3]."""
    return np.full((CANVAS, CANVAS, 3), colour, np.uint8)


def random_colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> Colour:
    """A colour with every channel in `low` <= level < `high`."""
    return tuple(rng.integers(low, high, 3).tolist())


def near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """A colour like this one; every channel deviates normally by `spread` levels."""
    shifts = rng.standard_normal(3)
    levels = (level + spread * shift for level, shift in zip(colour, shifts, strict=True))
    red, green, blue = (int(min(255, max(0, level))) for level in levels)
    return (red, green, blue)


def contrasting(rng: np.random.Generator, background: Colour) -> Colour:
    """A random colour that is clearly lighter or darker than `background`."""
    for _ in range(20):
        colour = random_colour(rng)
        if abs(_luminance(colour) - _luminance(background)) > 70:
            return colour
    return (255, 255, 255) if _luminance(background) < 128 else (0, 0, 0)


def _luminance(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]


@cache
def _font_folder() -> Path:
    import matplotlib  # only for the fonts that it ships; pyplot stays unloaded

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A TrueType font by file stem, `size` pixels high."""
    return ImageFont.truetype(_font_folder() / f"{name}.ttf", size)


def write(
    pen: ImageDraw.ImageDraw, text: str, face: tuple[str, int], at: Point, fill: Colour
) -> None:
    """Writes `text`, centred on `at`, in the font `face` = (file stem, size)."""
    pen.text(at, text, font=font(*face), fill=fill, anchor="mm")


def random_affine(
    rng: np.random.Generator,
    rotation: float,
    scale: tuple[float, float],
    shear: float = 0.0,
    shift: float = 0.0,
) -> tuple[float, ...]:
    """A random affine map about the centre, as the six numbers that `warp` takes.

    Rotation is up to +-`rotation` degrees, enlargement within `scale`, shear up to +-`shear`,
    displacement up to +-`shift` of the canvas width.
    """
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    size, slant = rng.uniform(*scale), rng.uniform(-shear, shear)
    cos, sin = np.cos(angle), np.sin(angle)
    inverse = np.array([[cos, sin + slant], [-sin + slant, cos]]) / size
    centre = np.full(2, CANVAS / 2)
    offset = centre - inverse @ (centre + rng.uniform(-shift, shift, 2) * CANVAS)
    (a, b), (d, e) = inverse.tolist()
    return (a, b, float(offset[0]), d, e, float(offset[1]))


def warp(image: Image.Image, affine: tuple[float, ...]) -> Image.Image:
    """`image` under an affine map; what comes from outside is black."""
    size = (CANVAS, CANVAS)
    return image.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)


def regular(corners: int, centre: Point, radius: float, turn: float = 0.0) -> list[Point]:
    """A regular polygon with one corner at the top, turned clockwise by `turn` radians."""
    return star(corners, centre, radius, 1.0, turn)


def star(
    corners: int, centre: Point, radius: float, waist: float, turn: float = 0.0
) -> list[Point]:
    """A polygon whose every second corner lies at `waist` times the radius."""
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    reach = radius * np.where(np.arange(corners) % 2, waist, 1.0)
    xs, ys = centre[0] + reach * np.sin(angles), centre[1] - reach * np.cos(angles)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def blob(
    rng: np.random.Generator, radius: float, corners: int, centre: Point = (32, 32)
) -> list[Point]:
    """An irregular round polygon."""
    reach = radius * rng.uniform(0.7, 1.3, corners)
    angles = 2 * np.pi * np.arange(corners) / corners
    xs, ys = centre[0] + reach * np.cos(angles), centre[1] + reach * np.sin(angles)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))
