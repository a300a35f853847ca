"""Pictures of frost on a window, drawn from a seed: feathers of ice over clouded glass.

ImageNet-C lays crops of five photographs over its images, whose licences are not known; these are
none of them. Mean color, contrast and the power of each octave of detail are near theirs.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDES = (480, 720)  # height and width of a full picture, in pixels
FINER = 2  # times that feathers are drawn finer, so that their lines have smooth edges
ENLARGED = 1.1  # times that a picture is larger than an image that none would cover


@dataclass(frozen=True)
class Frost:
    """A picture: its mean color (RGB, 0 to 255), its contrast, and its feathers.

    `contrast` is the standard deviation; `crystals` is the share of feathers in it, the rest is
    clouded glass. `feathers` are drawn, of `length` pixels on average.
    """

    color: tuple[float, float, float]
    contrast: float
    crystals: float
    feathers: int
    length: float


STYLES = (
    Frost((78, 149, 166), 20, 0.35, 500, 30),
    Frost((201, 205, 214), 22, 0.8, 1400, 42),
    Frost((200, 206, 212), 22, 0.85, 900, 60),
    Frost((138, 153, 165), 29, 0.85, 3000, 14),
    Frost((112, 123, 135), 43, 0.75, 1500, 28),
)
PICTURES = len(STYLES)


def picture_sides(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of a picture, `scale` times the full one, or larger to exceed an image."""
    tall, wide = (round(side * scale) for side in SIDES)
    if tall > height and wide > width:
        return tall, wide
    larger = ENLARGED * max(height / tall, width / wide)
    return max(round(tall * larger), height + 1), max(round(wide * larger), width + 1)


def crop(
    number: int,
    scale: float,
    sides: tuple[int, int],
    corner: tuple[int, int],
    size: tuple[int, int],
) -> np.ndarray:
    """Part of a picture, uint8 `[3, *size]`.

    `number` names the picture, which is `sides` (height, width) large; `corner` (row, column) is
    where the part begins.
    """
    (top, left), (height, width) = corner, size
    picture = scaled(number, scale)
    if picture.shape[1:] == sides:
        return picture[:, top : top + height, left : left + width]
    # Only the part is made, since whole pictures for large photographs would fill the memory.
    tall, wide = picture.shape[1:]
    down, right = tall / sides[0], wide / sides[1]
    end = (min((left + width) * right, wide), min((top + height) * down, tall))
    box = (left * right, top * down, *end)
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    part = image.resize((width, height), Image.Resampling.BICUBIC, box)
    return np.asarray(part).transpose(2, 0, 1)


@lru_cache(maxsize=3 * PICTURES)
def scaled(number: int, scale: float) -> np.ndarray:
    """Picture `number`, reduced to a share `scale` of its sides, uint8 `[3, H, W]`."""
    tall, wide = (round(side * scale) for side in SIDES)
    # Bilinear between four pixels, without smoothing: so the published pictures were reduced.
    rows, columns = (
        np.minimum(((np.arange(count) + 0.5) * (side / count)).astype(int), side - 1)
        for count, side in zip((tall, wide), SIDES, strict=True)
    )
    return np.ascontiguousarray(drawn(number)[:, rows[:, None], columns])


@lru_cache(maxsize=PICTURES)
def drawn(number: int) -> np.ndarray:
    """Picture `number` in full, uint8 `[3, *SIDES]`; always the same."""
    style, rng = STYLES[number], np.random.default_rng((20, number))
    glass, tint = _clouds(rng, 1.3), _clouds(rng, 1.8)
    light = style.crystals * _feathers(style, rng) + (1 - style.crystals) * glass
    light = (light - light.mean()) / light.std()
    hue = np.array([-0.15, 0.0, 0.1])[:, None, None] * tint
    color = np.array(style.color)[:, None, None] + style.contrast * (light + hue)
    return np.clip(color, 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, slope: float) -> np.ndarray:
    """A random field of `SIDES` whose amplitude falls with frequency to the power of `slope`.

    Mean 0 and standard deviation 1.
    """
    rows, columns = (np.fft.fftfreq(side) for side in SIDES)
    frequency = np.hypot(rows[:, None], columns)
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal(SIDES)) * frequency**-slope
    field = np.fft.ifft2(spectrum).real
    return (field - field.mean()) / field.std()


def _feathers(style: Frost, rng: np.random.Generator) -> np.ndarray:
    """Feathers over one another, float `SIDES`, with mean 0 and standard deviation 1.

    Each is a shaft with barbs on both sides at 60 degrees, as ice grows, that shorten to its tip.
    """
    height, width = (FINER * side for side in SIDES)
    image = Image.new("L", (width, height), 70)
    pen = ImageDraw.Draw(image)
    # Neighbors grow alike: a smooth field turns the feathers.
    flow = np.pi * _clouds(rng, 2.0)
    for _ in range(style.feathers):
        root = rng.uniform((0, 0), SIDES)
        angle = flow[tuple(root.astype(int))] + rng.normal(0, 0.6)
        length = FINER * style.length * rng.lognormal(0, 0.5)
        shade = rng.uniform(20, 240)
        _draw_feather(pen, FINER * root, angle, length, shade, rng)
    small = image.resize(SIDES[::-1], Image.Resampling.BOX)
    light = np.asarray(small, np.float32)
    return (light - light.mean()) / light.std()


def _draw_feather(
    pen: ImageDraw.ImageDraw,
    root: np.ndarray,
    angle: float,
    length: float,
    shade: float,
    rng: np.random.Generator,
) -> None:
    """Draw one from `root` (row, column) on; lengths are in pixels of the finer drawing."""
    barbs = max(int(length / 6), 3)
    along = np.linspace(0, 0.95, barbs)
    reach = 0.45 * length * (1 - along) * rng.uniform(0.6, 1, barbs)
    direction = np.array([np.sin(angle), np.cos(angle)])
    starts = root + (length * along)[:, None] * direction
    for side in (-np.pi / 3, np.pi / 3):
        ends = starts + reach[:, None] * [np.sin(angle + side), np.cos(angle + side)]
        light = shade + rng.normal(0, 25, barbs)
        for start, end, fill in zip(starts, ends, light, strict=True):
            pen.line((*start[::-1], *end[::-1]), fill=int(np.clip(fill, 0, 255)), width=3)
    tip = root + length * direction
    pen.line((*root[::-1], *tip[::-1]), fill=int(min(shade + 50, 255)), width=3)
