"""Unlabeled images on their way to the device: drawn up front, gathered ahead of their use."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.parallel import ALONE, Group

AHEAD = 2  # batches that are ready before they are asked for


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
    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
    size = min(batch, images)
    return np.stack([rng.permutation(images)[:size].copy() for _ in range(steps)])


class Feeder:
    """The batches of steps `start`, `start` + 1, ...: uint8 rows, through pinned memory to a GPU.

    `images`: task -> uint8 [N, 3, height, width], in memory or mapped; `draws`: task -> indices
    [steps, batch]. Processes of `group` share a step's images evenly, whatever the number of tasks.
    """

    def __init__(
        self,
        images: Mapping[str, np.ndarray],
        draws: Mapping[str, np.ndarray],
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        self._images, self._device = images, device
        self._totals = [rows.shape[1] for rows in draws.values()]
        self._draws = {
            task: rows[:, part]
            for (task, rows), part in zip(draws.items(), shares(self._totals, group), strict=True)
        }

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
        rows = [draws[step] for draws in self._draws.values()]
        parts = [self._images[task][where] for task, where in zip(self._draws, rows, strict=True)]
        whole = torch.from_numpy(np.concatenate(parts))
        if self._device.type == "cuda":
            whole = whole.pin_memory().to(self._device, non_blocking=True)
        images = list(whole.split([len(part) for part in parts]))
        return Batch(images, rows, self._totals)


def shares(totals: Sequence[int], group: Group) -> list[slice]:
    """Per task, the part of its images that is this process's: an even share of all together."""
    mine = group.span(sum(totals))
    parts, first = [], 0
    for total in totals:
        start = min(max(mine.start - first, 0), total)
        parts.append(slice(start, min(max(mine.stop - first, start), total)))
        first += total
    return parts
