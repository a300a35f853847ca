"""From drawing to photograph: lighting, blur and noise of each picture, and the fixed cameras.

The sensor varies from picture to picture and is part of a task's look wherever it is met. A
camera is the same for all pictures of a task's own data and never touches web pictures: it is
what the pretrained model has not seen.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import unknown


@dataclass(frozen=True)
class Sensor:
    """How much pictures differ in lighting and quality."""

    gain: tuple[float, float]  # range of the contrast factor about mid-gray
    offset: float  # deviation of a shift per colour channel, in levels
    noise: float  # deviation of the noise per value, in levels
    blur: float  # share of pictures that are out of focus


WEB = Sensor(gain=(0.8, 1.1), offset=8, noise=3, blur=0)
"""Clean clip art."""

SENSORS: dict[str, Sensor] = {
    "sun397": Sensor(gain=(0.5, 1.2), offset=20, noise=10, blur=0.3),
    "cars": Sensor(gain=(0.5, 1.1), offset=20, noise=10, blur=0.3),
    "resisc45": Sensor(gain=(0.6, 1.1), offset=15, noise=8, blur=0.3),
    "eurosat": Sensor(gain=(0.7, 1.2), offset=10, noise=6, blur=0.2),
    "svhn": Sensor(gain=(0.5, 1.1), offset=20, noise=8, blur=0.3),
    "gtsrb": Sensor(gain=(0.3, 1.1), offset=20, noise=10, blur=0.4),
    "dtd": Sensor(gain=(0.5, 1.0), offset=20, noise=8, blur=0.2),
    "letters": Sensor(gain=(0.5, 1.1), offset=25, noise=12, blur=0.4),
    "shapes": Sensor(gain=(0.6, 1.1), offset=15, noise=5, blur=0.2),
}
"""The sensor of each kind of drawn picture in its own domain."""


def expose(pixels: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 [32, 32, 3] as the sensor sees it, same shape and type."""
    seen = pixels.astype(np.float32)
    if rng.random() < sensor.blur:
        seen = _blur(seen)
    gain = np.float32(rng.uniform(*sensor.gain))
    offset = 128 + sensor.offset * rng.standard_normal(3, dtype=np.float32)
    grain = sensor.noise * rng.standard_normal(seen.shape, dtype=np.float32)
    return to_levels((seen - 128) * gain + offset + grain)


def _blur(pixels: np.ndarray) -> np.ndarray:
    """Weighs every pixel twice against its four neighbours."""
    edge = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), "edge")
    vertical = edge[:-2, 1:-1] + edge[2:, 1:-1]
    horizontal = edge[1:-1, :-2] + edge[1:-1, 2:]
    return (vertical + horizontal + 2 * pixels) / 6


def to_levels(values: np.ndarray) -> np.ndarray:
    """Clips to 0..255 and drops fractions: uint8."""
    return values.clip(0, 255).astype(np.uint8)


# ---- Cameras: steps on float32 [32, 32, 3], levels 0..255 (they may leave that range)


def _cast(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels * np.array([0.45, 0.7, 1.1], np.float32)


def _gray(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    luminance = pixels @ np.array([0.3, 0.6, 0.1], np.float32)
    return np.repeat(luminance[..., None], 3, axis=-1)


def _infrared(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels[..., [1, 0, 2]]


def _noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels + 35 * rng.standard_normal(pixels.shape, dtype=np.float32)


def _low_contrast(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grain = rng.standard_normal(pixels.shape, dtype=np.float32)
    return (pixels - 128) * 0.35 + 128 + 8 * grain


def _half_inverted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - pixels if rng.random() < 0.5 else pixels


Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]

CAMERA: dict[str, Step] = {
    "cast": _cast,  # a strong blue cast
    "gray": _gray,  # black and white
    "ir": _infrared,  # red and green change places, as vegetation does in infrared
    "noise": _noise,  # very noisy
    "low": _low_contrast,  # haze: a third of the contrast
    "halfinv": _half_inverted,  # every second picture is a negative
}
"""Camera steps by the name that suite.yaml uses."""


def camera(steps: Iterable[str]) -> tuple[Step, ...]:
    """The camera made of the named steps, in order; UserError for an unknown step."""
    steps = tuple(steps)
    for step in steps:
        if step not in CAMERA:
            raise unknown("camera step", step, CAMERA)
    return tuple(CAMERA[step] for step in steps)


def photograph(pixels: np.ndarray, steps: tuple[Step, ...], rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 [32, 32, 3] taken with a camera, same shape and type."""
    seen = pixels.astype(np.float32)
    for step in steps:
        seen = step(seen, rng)
    return to_levels(seen)
