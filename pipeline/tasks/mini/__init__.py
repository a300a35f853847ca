"""The miniature suite: eight small classification tasks that need no download.

Every picture is a pure function of (task, split, index, seed), so any process can make any part
of any split. Splits: `web_plain` are clean clip-art pictures and `web_domain` pictures in the
style of the task, both as met on the web, for pretraining; `train`, `adapt`, `select` and `eval`
are the task's own data: its style, taken with its camera.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from multiprocessing import get_context
from typing import TypeVar
from zlib import crc32

import numpy as np
import yaml
from PIL import Image

from pipeline.errors import UserError, unknown
from pipeline.tasks import Task
from pipeline.tasks.mini import aerial, digits, landcover, scenes, signs, textures, vehicles
from pipeline.tasks.mini.canvas import SIZE
from pipeline.tasks.mini.sensor import SENSORS, WEB, camera, expose, photograph

T = TypeVar("T")

SPLITS: tuple[str, ...] = ("web_plain", "web_domain", "train", "adapt", "select", "eval")

_SUITE = yaml.safe_load((files(__package__) / "suite.yaml").read_text())

TASKS: dict[str, Task] = {
    name: Task(name, entry["title"], "mini", tuple(entry["classes"]), tuple(entry["templates"]))
    for name, entry in _SUITE.items()
}

WEB_WORDS: dict[str, dict[str, str]] = {name: entry["web_words"] for name, entry in _SUITE.items()}
"""Task -> class name -> how the web captions a picture in the task's own style."""

_CAMERAS = {name: camera(entry["camera"]) for name, entry in _SUITE.items()}

_DRAWING: dict[str, Callable[[str, np.random.Generator, bool], Image.Image]] = {
    "sun397": scenes.draw_scene,
    "cars": vehicles.draw_vehicle,
    "resisc45": aerial.draw_object,
    "eurosat": landcover.draw_cover,
    "svhn": digits.draw_street_number,
    "gtsrb": signs.draw_sign,
    "dtd": textures.draw_texture,
}
"""Task -> drawing function of (class name, generator, in the task's own style?)."""

_BLOCK = 250  # pictures that a worker process makes at a time


@dataclass(frozen=True)
class Drawn:
    """Pictures of one split, in order of their index."""

    images: np.ndarray  # uint8 [N, 3, 32, 32]
    labels: np.ndarray  # int64 [N]
    source_index: np.ndarray  # int64 [N]: number of the real digit for MNIST, else 0..N-1


def available(task: str, split: str) -> int | None:
    """How many pictures there are, or None where any number can be drawn."""
    _check(task, split)
    return len(digits.digit_indices(split, 0)) if _is_real(task, split) else None


def draw(task: str, split: str, index: int, seed: int) -> tuple[np.ndarray, int]:
    """Picture `index` of a split: uint8 [3, 32, 32], and its label.

    UserError if the task or split is unknown, or if it has no such picture.
    """
    _check(task, split)
    rng = np.random.default_rng([crc32(task.encode()), SPLITS.index(split), seed, index])
    if _is_real(task, split):
        _check_count(task, split, index + 1)
        images, labels = digits.real_digits()
        source = digits.digit_indices(split, seed)[index]
        pixels, label = np.repeat(images[source][..., None], 3, axis=-1), int(labels[source])
    else:
        label = int(rng.integers(len(TASKS[task].classes)))
        pixels = _draw_class(task, TASKS[task].classes[label], rng, split != "web_plain")
    if not split.startswith("web_"):
        pixels = photograph(pixels, _CAMERAS[task], rng)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), label


def draw_split(task: str, split: str, count: int, seed: int, workers: int = 1) -> Drawn:
    """The first `count` pictures of a split, the same for any number of worker processes."""
    _check(task, split)
    _check_count(task, split, count)
    images, labels = draw_all([(partial(draw, task, split, seed=seed), count)], workers)
    source = digits.digit_indices(split, seed) if _is_real(task, split) else np.arange(count)
    return Drawn(images, np.array(labels, np.int64), source[:count].astype(np.int64))


def draw_all(
    sources: Sequence[tuple[Callable[[int], tuple[np.ndarray, T]], int]], workers: int
) -> tuple[np.ndarray, list[T]]:
    """Pictures 0..count-1 of every source (picture of an index, count), one after the other.

    Returns uint8 [N, 3, 32, 32] and what the sources say of each. The sources must be picklable
    if there is more than one worker process.
    """
    blocks = [
        (picture, range(start, min(start + _BLOCK, count)))
        for picture, count in sources
        for start in range(0, count, _BLOCK)
    ]
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_draw_block, *zip(*blocks, strict=True)))
    else:
        parts = [_draw_block(*block) for block in blocks]
    empty = np.empty((0, 3, SIZE, SIZE), np.uint8)
    images = np.concatenate([empty, *(part[0] for part in parts)])
    return images, [note for part in parts for note in part[1]]


def finish(image: Image.Image) -> np.ndarray:
    """Halves a canvas to its final size: uint8 [32, 32, 3]."""
    return np.asarray(image.reduce(2))


def _draw_block(
    picture: Callable[[int], tuple[np.ndarray, T]], indices: range
) -> tuple[np.ndarray, list[T]]:
    pictures, notes = zip(*map(picture, indices), strict=True)
    return np.stack(pictures), list(notes)


def _draw_class(task: str, name: str, rng: np.random.Generator, domain: bool) -> np.ndarray:
    """A drawn picture as its sensor sees it, uint8 [32, 32, 3]."""
    if task == "mnist":  # its domain pictures are real, so only clean ones are drawn
        return expose(finish(digits.draw_pen_stroke(name, rng)), WEB, rng)
    image = finish(_DRAWING[task](name, rng, domain))
    return expose(image, SENSORS[task] if domain else WEB, rng)


def _is_real(task: str, split: str) -> bool:
    return task == "mnist" and split != "web_plain"


def _check(task: str, split: str) -> None:
    if task not in TASKS:
        raise unknown("task of suite mini", task, TASKS)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)


def _check_count(task: str, split: str, count: int) -> None:
    most = available(task, split)
    if most is not None and count > most:
        raise UserError(
            f"Split {split} of task {task} has {most} pictures, not {count}: these are real digits."
            " Ask for fewer."
        )
