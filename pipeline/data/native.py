"""Images decoded again at their own size, corrupted there, and only then made a model's input.

That is how the published robustness tables were made (docs/real-suites.md): noise on a photograph
of 2000 pixels is not noise on the 224 that the model sees. Nothing is stored: images come out a few
at a time, in the order in which their source is read.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from pipeline.conditions import task_seed
from pipeline.data.decoding import (
    Broken,
    BrokenImage,
    Encoded,
    batches_of,
    cropped,
    named,
    opened,
    preprocessed,
    take_room,
)
from pipeline.errors import UserError

BATCH = 8  # images that a worker is given at a time, at most
FLYING = 192  # images that wait, are worked on, or are done and not yet asked for
CHUNK = 64  # images that come out at a time
MOST_PIXELS = 50 * 10**6  # of a picture to corrupt: each takes up to 50 bytes then

# One picture, uint8 [1, 3, H, W] in RGB, and the number of its image -> uint8 [1, 3, h, w].
Change = Callable[[np.ndarray, int], np.ndarray]
# (indices int64 [n], images uint8 [n, 3, size, size])
Chunk = tuple[np.ndarray, np.ndarray]


class Images(Protocol):
    """What lies in files: `pipeline.data.folders.Folder`, `pipeline.fetching.images.OpenShards`."""

    def __len__(self) -> int: ...

    def images(self) -> Iterator[Encoded]:
        """All of them, encoded, one after the other in an order that does not change."""
        ...


@dataclass(frozen=True)
class Wanted:
    """Images of a task: index k means number `rows[k]` of `source`."""

    source: Images
    rows: np.ndarray  # int64 [N], distinct


class _Row(NamedTuple):
    place: int  # among those wanted
    number: int  # in the source
    where: str
    content: bytes


def streamed_chunks(
    wanted: Mapping[tuple[str, str], Wanted],
    size: int,
    pool: Executor,
    scale: str | None,
    seed: int = 0,
) -> Callable[[str, str, int], Iterator[Chunk]]:
    """The function (task, corruption, severity) -> chunks of corrupted images.

    `wanted`: by task and corruption. `scale`: as of `pipeline.corruptions.corrupt`; None: they come
    corrupted, all at one severity. What is corrupted here depends on the task, the image's number
    in its source, corruption, severity and seed: not on what else is asked for. `pool`: of
    `pipeline.data.decoding.worker_pool`.
    """

    def chunks(task: str, corruption: str, severity: int, /) -> Iterator[Chunk]:
        change = None
        if scale is not None:
            change = partial(
                corrupted,
                name=corruption,
                severity=severity,
                seed=task_seed(seed, task),
                scale=scale,
            )
        return native_images(wanted[task, corruption], size, pool, change)

    return chunks


def corrupted(
    picture: np.ndarray, number: int, *, name: str, severity: int, seed: int, scale: str
) -> np.ndarray:
    """One picture, uint8 [1, 3, H, W], corrupted as image `number` of a data set."""
    from pipeline.corruptions import corrupt

    return corrupt(picture, name, severity, indices=[number], seed=seed, scale=scale)


def same_place(labels: np.ndarray, rows: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Rows of another copy of a data set, for images that are rows `rows` of the one, int64 [N].

    Image k has the label `labels[k]`, and `rows` are all rows of the one. An image of a class there
    is the image of that class here that has as many others of the class before it: the same image,
    if both copies have their classes' images in the same order. `theirs`: labels of the other
    copy's rows. Raises `UserError` if it has not as many images of every class.
    """
    ours = np.empty_like(labels)
    ours[rows] = labels
    here, there = (np.argsort(some, kind="stable") for some in (ours, theirs))
    if len(ours) != len(theirs) or (ours[here] != theirs[there]).any():
        raise UserError("it has other numbers of images of the classes than the test split")
    place = np.empty(len(ours), np.int64)
    place[here] = there
    return place[rows]


@contextmanager
def unnamed_array(folder: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A uint8 array in a file in `folder` that is gone with this process, however that ends.

    Raises `UserError` where there is no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        size = int(np.prod(shape))
        try:
            take_room(file.fileno(), size)
        except OSError as error:
            raise UserError(
                f"{size / 1e9:.2f} GB of images cannot be kept in {folder} for a while "
                f"({error.strerror}): free some space and run again."
            ) from None
        yield np.memmap(file, np.uint8, mode="r+", shape=shape)


def native_images(
    wanted: Wanted, size: int, pool: Executor, change: Change | None
) -> Iterator[Chunk]:
    """The images, `change`d at their own size and preprocessed; each is there once.

    `change` gets a picture as RGB (PIL's conversion) and may return another size; it must be known
    by its name to a new process. None: as `pipeline.data.decoding` makes them. At most some hundred
    images are in memory. Raises `UserError`: broken images, or too large to corrupt, by name; the
    source ends before all are there.
    """
    jobs: deque[Future[tuple[np.ndarray, list[Broken]]]] = deque()
    indices: deque[list[int]] = deque()
    batches = iter(batches_of(_rows(wanted), BATCH))
    kept: list[Chunk] = []
    try:
        for batch in islice(batches, FLYING // BATCH):
            jobs.append(pool.submit(_changed, batch, size, change))
            indices.append([row.place for row in batch])
        while jobs:
            images, broken = jobs.popleft().result()
            if broken:
                raise UserError(named(broken))
            kept.append((np.array(indices.popleft(), np.int64), images))
            for batch in islice(batches, 1):
                jobs.append(pool.submit(_changed, batch, size, change))
                indices.append([row.place for row in batch])
            if sum(len(some) for some, _ in kept) >= CHUNK or not jobs:
                yield _joined(kept)
                kept = []
    finally:
        for job in jobs:
            job.cancel()


def _joined(parts: Sequence[Chunk]) -> Chunk:
    return np.concatenate([some for some, _ in parts]), np.concatenate([more for _, more in parts])


def _rows(wanted: Wanted) -> Iterator[_Row]:
    places = {number: place for place, number in enumerate(wanted.rows.tolist())}
    if len(places) < len(wanted.rows):
        raise ValueError("an image has two places")
    # Nothing is read behind the last image that is wanted.
    images = islice(wanted.source.images(), max(places, default=-1) + 1)
    for number, image in enumerate(images):
        if number in places:
            yield _Row(places.pop(number), number, image.where, image.content)
    if places:
        raise UserError(
            f"{len(places)} images of {len(wanted.rows)} are not there any longer: fetch the data "
            "again with 'dvc repro --force fetch'."
        )


def _changed(
    batch: Sequence[_Row], size: int, change: Change | None
) -> tuple[np.ndarray, list[Broken]]:
    """uint8 [n, 3, size, size], and the images that are broken."""
    images, broken = np.zeros((len(batch), 3, size, size), np.uint8), []
    for place, row in enumerate(batch):
        try:
            if change is None:
                images[place] = preprocessed(row.content, size)
            else:
                images[place] = _changed_one(row, size, change)
        except BrokenImage as error:
            broken.append(Broken(row.number, row.where, str(error)))
    return images, broken


def _changed_one(row: _Row, size: int, change: Change) -> np.ndarray:
    image = opened(row.content)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise BrokenImage(
            f"{width} x {height} pixels are too many to be corrupted, the most are {MOST_PIXELS:,}"
        )
    picture = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None])
    try:
        changed = change(picture, row.number)[0]
    except UserError as error:
        raise BrokenImage(str(error).rstrip(".")) from error
    return cropped(Image.fromarray(np.ascontiguousarray(changed.transpose(1, 2, 0))), size)
