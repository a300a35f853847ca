"""Vehicles from the side (Cars)."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.tasks.mini.canvas import (
    Point,
    Sketch,
    mottled,
    near,
    photo_crop,
    plain,
    random_affine,
    random_colour,
    warp,
)


class Vehicle(Sketch):
    """A sketch of a vehicle, with its paint, glass and rubber."""

    def __init__(self, rng: np.random.Generator, domain: bool) -> None:
        super().__init__(rng, domain, _backdrop(rng, domain), spread=14)
        if domain:
            self.pen.rectangle((-5, 44, 70, 70), fill=self.near((90, 88, 88), 20))  # the road
        self.paint = random_colour(rng, 20, 230)
        self.glass = self.near((70, 90, 105) if domain else (150, 185, 205))
        self.rubber = self.near((25, 25, 25), 6)

    def body(self, *corners: Point) -> None:
        """A painted polygon."""
        self.pen.polygon(corners, fill=self.paint)

    def bars(self, *points: Point) -> None:
        """Painted tubes from point to point."""
        self.pen.line(points, fill=self.paint, width=3)

    def wheels(self, y: float, radius: float, *xs: float) -> None:
        """Wheels at height `y`, one at every x."""
        for x in xs:
            self.disc(x, y, radius, self.rubber)
            self.disc(x, y, radius / 3, (170, 170, 170))


def _backdrop(rng: np.random.Generator, domain: bool) -> np.ndarray:
    if not domain:
        return plain(random_colour(rng, 170))
    if rng.random() < 0.6:
        return photo_crop(rng)
    return mottled(rng, near(rng, (140, 145, 150), 40), 25)


def _sedan(car: Vehicle) -> None:
    cabin = [(14, 34), (22, 24), (42, 24), (50, 34)]
    car.body((4, 46), (4, 36), *cabin, (60, 37), (60, 46))
    car.pen.polygon([(18, 34), (24, 27), (40, 27), (46, 34)], fill=car.glass)
    car.wheels(46, 6, 16, 48)


def _bus(car: Vehicle) -> None:
    car.pen.rectangle((3, 16, 61, 48), fill=car.paint)
    for x in range(6, 58, 11):
        car.pen.rectangle((x, 21, x + 8, 31), fill=car.glass)
    car.wheels(48, 5, 15, 49)


def _truck(car: Vehicle) -> None:
    car.pen.rectangle((3, 14, 42, 46), fill=car.near((210, 210, 205)))
    car.body((44, 46), (44, 22), (54, 22), (60, 34), (60, 46))
    car.pen.rectangle((47, 25, 53, 33), fill=car.glass)
    car.wheels(48, 5, 13, 28, 52)


def _bicycle(car: Vehicle) -> None:
    for x in (16, 48):
        car.pen.ellipse((x - 11, 30, x + 11, 52), outline=car.rubber, width=2)
    car.bars((16, 41), (28, 28), (44, 28), (32, 41), (16, 41))
    car.bars((32, 41), (26, 24))
    car.bars((48, 41), (43, 22), (48, 20))


def _tractor(car: Vehicle) -> None:
    car.body((28, 42), (28, 32), (58, 32), (58, 42))
    car.pen.rectangle((10, 14, 30, 36), outline=car.paint, width=3)
    car.wheels(42, 12, 18)
    car.wheels(46, 7, 52)
    car.pen.line((46, 32, 46, 20), fill=car.rubber, width=2)


def _convertible(car: Vehicle) -> None:
    car.body((4, 46), (4, 36), (60, 36), (60, 46))
    car.pen.line((40, 36, 32, 26), fill=car.rubber, width=2)
    car.pen.rectangle((22, 31, 28, 36), fill=car.rubber)
    car.wheels(46, 6, 16, 48)


def _tank(car: Vehicle) -> None:
    car.body((6, 40), (10, 32), (54, 32), (58, 40))
    car.body((22, 32), (24, 22), (42, 22), (44, 32))
    car.bars((42, 26), (62, 23))
    car.pen.rounded_rectangle((4, 39, 60, 52), 6, fill=car.rubber)
    for x in range(8, 52, 10):
        car.pen.ellipse((x, 41, x + 8, 49), fill=(110, 110, 110))


def _train(car: Vehicle) -> None:
    car.body((0, 46), (0, 20), (48, 20), (62, 38), (62, 46))
    for x in range(3, 44, 10):
        car.pen.rectangle((x, 25, x + 6, 33), fill=car.glass)
    car.pen.rectangle((0, 37, 58, 39), fill=(230, 230, 230))
    car.pen.line((0, 50, 64, 50), fill=car.rubber, width=3)


VEHICLES: dict[str, Callable[[Vehicle], None]] = {
    "sedan": _sedan,
    "bus": _bus,
    "truck": _truck,
    "bicycle": _bicycle,
    "tractor": _tractor,
    "convertible": _convertible,
    "tank": _tank,
    "train": _train,
}


def draw_vehicle(name: str, rng: np.random.Generator, domain: bool) -> Image.Image:
    """A vehicle, 64x64: heading right on a plain ground or, in the domain style, on a road."""
    vehicle = Vehicle(rng, domain)
    VEHICLES[name](vehicle)
    if not domain:
        return vehicle.image
    image = vehicle.image
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return warp(image, random_affine(rng, 6, (0.8, 1.15), shear=0.06, shift=0.06))
