"""Unlabeled images on their way to the device: drawn up front, gathered ahead of their use.

`ORDERS` of images: `random` draws anew at every step; `stream` shows each image once; `long_tail`
draws some classes far more often than others, as pictures in the world come.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pipeline.parallel import ALONE, Group

AHEAD = 2  # batches that are ready before they are asked for
# A long tail's most frequent class has so many times the rarest one's images
# (https://arxiv.org/abs/1901.05555).
IMBALANCE = 100

Order = Literal["random", "stream", "long_tail"]
ORDERS: tuple[str, ...] = get_args(Order)


@dataclass(frozen=True)
class Batch:
    """One step's images of this process."""

    images: list[Tensor]  # per task, uint8 [batch, 3, height, width] on the device
    rows: list[np.ndarray]  # per task, their places in the task's array
    totals: list[int]  # per task, the images of all processes


def draw(seed: int, task: str, images: int, steps: int, batch: int) -> np.ndarray:
    """Image indices [steps, batch], no image twice in a step; a task's draws are its own.

    A task with fewer images gives all of them at every step.
    """
    rng = _generator(seed, task)
    size = min(batch, images)
    return np.stack([rng.permutation(images)[:size].copy() for _ in range(steps)])


def draw_some(seed: int, task: str, images: int, count: int) -> np.ndarray:
    """Indices of `count` of a task's images, ascending, or of all where there are fewer.

    Drawn without a look at the images or their classes; a smaller draw is part of a larger one.
    """
    rng = np.random.default_rng([seed, zlib.crc32(task.encode()), 1])
    return np.sort(rng.permutation(images)[:count])


def draw_once(seed: int, images: Mapping[str, int], batch: int) -> dict[str, list[np.ndarray]]:
    """task -> image indices of every step: each of its images once, in one random order.

    There are as many steps as the task with the most images has batches, or as the one with the
    fewest has images where these are less. Every task's images are spread evenly over them, so that
    every step sees every task.
    """
    steps = min(-(-max(images.values()) // batch), min(images.values()))
    return {
        task: np.array_split(_generator(seed, task).permutation(count), steps)
        for task, count in images.items()
    }


def draw_long_tail(seed: int, task: str, classes: np.ndarray, steps: int, batch: int) -> np.ndarray:
    """As `draw`, but that classes [images] are drawn unevenly, the same ones often at every step.

    From the most frequent class to the rarest, in an order drawn for the task, the odds fall
    exponentially to 1 / IMBALANCE. A class has no more images in a step than there are.
    """
    rng = _generator(seed, task)
    found, of, counts = np.unique(classes, return_inverse=True, return_counts=True)
    ranks = rng.permutation(len(found)) / max(1, len(found) - 1)
    odds = (IMBALANCE**-ranks / counts)[of]
    size, odds = min(batch, len(classes)), odds / odds.sum()
    return np.stack([rng.choice(len(odds), size, replace=False, p=odds) for _ in range(steps)])


def _generator(seed: int, task: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(task.encode())])


class Feeder:
    """The batches of steps `start`, `start` + 1, ...: uint8 rows, through pinned memory to a GPU.

    `images`: task -> uint8 [N, 3, height, width], in memory, mapped, or made as rows are asked for;
    `draws`: task -> for every step the indices of its images. Processes of `group` share a step's
    images evenly, whatever the number of tasks.
    """

    def __init__(
        self,
        images: Mapping[str, np.ndarray],
        draws: Mapping[str, Sequence[np.ndarray] | np.ndarray],
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        self._images, self._draws = images, draws
        self._device, self._group = device, group

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps `start` to `stop`, gathered by a thread while others are used."""
        with ThreadPoolExecutor(1, "feeder") as thread:
            waiting: list[Future[Batch]] = []
            for step in range(start, stop):
                waiting += [
                    thread.submit(self._gather, later)
                    for later in range(step + len(waiting), min(step + AHEAD + 1, stop))
                ]
                yield waiting.pop(0).result()

    def _gather(self, step: int) -> Batch:
        every = [draws[step] for draws in self._draws.values()]
        totals = [len(rows) for rows in every]
        mine = shares(totals, self._group)
        rows = [rows[part] for rows, part in zip(every, mine, strict=True)]
        parts = [self._images[task][where] for task, where in zip(self._draws, rows, strict=True)]
        whole = torch.from_numpy(np.concatenate(parts))
        if self._device.type == "cuda":
            whole = whole.pin_memory().to(self._device, non_blocking=True)
        images = list(whole.split([len(part) for part in parts]))
        return Batch(images, rows, totals)


def shares(totals: Sequence[int], group: Group) -> list[slice]:
    """Per task, the part of its images that is this process's: an even share of all together."""
    mine = group.span(sum(totals))
    parts, first = [], 0
    for total in totals:
        start = min(max(mine.start - first, 0), total)
        parts.append(slice(start, min(max(mine.stop - first, start), total)))
        first += total
    return parts
