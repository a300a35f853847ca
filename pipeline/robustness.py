"""Many models on corrupted images: images in chunks, each made once for all models.

Corruptions: https://arxiv.org/abs/1903.12261. No more corrupted images are in memory than those of
a chunk, whatever the size of a data set.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.conditions import CorruptedImages
from pipeline.learning.memory import GB, free_bytes
from pipeline.predictions import predict

CHUNK = 128  # corrupted images that are in memory; on a CPU more at a time would be slower
SHARE = 0.5  # of memory that encoders may be kept in: passes over images need some as well

Chunk = tuple[np.ndarray, np.ndarray]
Key = TypeVar("Key")


class Chunks(Protocol):
    """Where corrupted images come from."""

    def __call__(self, task: str, corruption: str, severity: int, /) -> Iterator[Chunk]:
        """A task's corrupted images, a few hundred at a time: each image once, in any order.

        Yields the images' numbers, int [n], and the images, uint8 [n, 3, height, width].
        """
        ...


def stored_chunks(images: Mapping[str, np.ndarray], seed: int, scale: str) -> Chunks:
    """Chunks of stored images: task -> uint8 [N, 3, height, width], in memory or mapped.

    An image's pixels follow from task, number, corruption, severity and seed, not from its chunk.
    """

    def chunks(task: str, corruption: str, severity: int, /) -> Iterator[Chunk]:
        changed = CorruptedImages(
            images[task], task, [corruption], severity, seed=seed, scale=scale
        )
        for start in range(0, len(changed), CHUNK):
            indices = np.arange(start, min(start + CHUNK, len(changed)))
            yield indices, changed[indices]

    return chunks


class Encoders(Generic[Key]):
    """Encoders by key, as many of them kept as there is memory; the rest is read at each use.

    `read(key)`: an encoder's weights. `budget_gb`: memory for encoders and passes over images, in
    GB (1e9 bytes); None: what is free now.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        read: Callable[[Key], Mapping[str, Tensor]],
        budget_gb: float | None = None,
    ) -> None:
        self._spare, self._read = encoder, read
        self._in_spare: Key | None = None
        self._kept: dict[Key, ImageEncoder] = {}
        weights = list(encoder.parameters())
        room = free_bytes(weights[0].device) if budget_gb is None else budget_gb * GB
        size = sum(weight.nbytes for weight in weights)
        # Where nobody knows what is free, none is kept.
        self._most = 0 if room is None else int(SHARE * room // size)

    def get(self, key: Key, used: Collection[Key]) -> ImageEncoder:
        """The encoder of `key`, valid until the next call; `used`: keys that are asked for again.

        Where there is no room, it takes the place of one that is not used any more.
        """
        if key in self._kept:
            return self._kept[key]
        if len(self._kept) >= self._most:
            idle = next((other for other in self._kept if other not in used), None)
            if idle is None:
                if self._in_spare != key:
                    self._spare.load(self._read(key), f"the weights of {key}")
                    self._in_spare = key
                return self._spare
            encoder = self._kept.pop(idle)
        else:
            encoder = deepcopy(self._spare)
        self._kept[key] = encoder.load(self._read(key), f"the weights of {key}")
        return encoder


def classify(
    encoders: Encoders[Key],
    keys: Sequence[Key],
    chunks: Iterator[Chunk],
    head: Tensor,
    logit_scale: float,
    labels: np.ndarray,
) -> np.ndarray:
    """bool [keys, N]: which of a task's images each encoder classifies correctly.

    `labels`: int64 [N]; `head` [classes, dim]. Raises `ValueError` where the chunks do not hold
    every image once.
    """
    correct = np.zeros((len(keys), len(labels)), bool)
    times = np.zeros(len(labels), int)
    for indices, images in chunks:
        times[indices] += 1
        for row, key in enumerate(keys):
            encoder = encoders.get(key, keys)
            found = predict(encoder, head, logit_scale, images, labels[indices])
            correct[row, indices] = found.correct
    if not (times == 1).all():
        raise ValueError("chunks of corrupted images must hold every image once")
    return correct
