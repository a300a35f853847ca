"""Encoded images -> rows of uint8 .npy files, decoded by a pool of processes.

The pixels are those that open_clip's own preprocessing of PIL images feeds to its normalisation:
shortest edge resized (bicubic), centre cropped, and only then converted to RGB. As there, an EXIF
orientation is not applied. The module that starts the pool must be importable without running.
"""

import errno
import io
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from PIL import Image

from pipeline.data import save_array
from pipeline.errors import UserError
from pipeline.files import replacing

# Others are refused: PIL hands some of them, such as PostScript, to other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
BATCH = 32  # images that a worker is given at a time, at most,
BATCH_BYTES = 1 << 20  # and the encoded bytes from which a batch is full
AHEAD = 3  # batches per worker that wait or are worked on
NAMED = 3  # broken images that a message names
MOST_PIXELS = 10**8  # of an image once resized, before it is cropped


class BrokenImage(Exception):
    """Bytes that are no image, or only a part of one; the message says why."""


class HasContent(Protocol):
    """An image as its file has it."""

    @property
    def content(self) -> bytes: ...


OnItsWay = TypeVar("OnItsWay", bound=HasContent)


class Encoded(NamedTuple):
    """An image as it was stored."""

    where: str  # as a message names it: "test-00000-of-00001.parquet row 17"
    content: bytes
    label: int


@dataclass(frozen=True)
class Target:
    """The files of a split: row k of both holds image number `rows[k]` of the source."""

    rows: np.ndarray  # int64 [N], distinct
    images: Path
    labels: Path | None  # none for a split without labels

    @property
    def complete(self) -> bool:
        """Whether the files are there."""
        return self.images.exists() and (self.labels is None or self.labels.exists())


class _Row(NamedTuple):
    """An image on its way: its place is `offset` bytes into `file`."""

    number: int  # in the source
    where: str
    content: bytes
    file: Path
    offset: int


class Broken(NamedTuple):
    """An image that cannot be used."""

    number: int
    where: str
    reason: str


def preprocessed(encoded: bytes, size: int) -> np.ndarray:
    """The pixels of an encoded image, uint8 [3, size, size].

    Bit-equal to `open_clip.image_transform(size, is_train=False)` before its normalisation
    (open_clip 3.3, torchvision 0.29). Raises `BrokenImage`.
    """
    return cropped(opened(encoded), size)


def cropped(image: Image.Image, size: int) -> np.ndarray:
    """What a model with images of that size sees of a picture, uint8 [3, size, size].

    Raises `BrokenImage` where so narrow a picture would become too large on the way.
    """
    width, height = image.size
    # Rounded down, as by torchvision.
    long = int(size * max(width, height) / min(width, height))
    resized = (size, long) if width <= height else (long, size)
    if size * long > MOST_PIXELS:
        raise BrokenImage(f"{width} x {height} pixels are too narrow to be resized and cropped")
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    # Halves go to the even number, as by torchvision.
    left, top = (round((length - size) / 2) for length in resized)
    image = image.crop((left, top, left + size, top + size))
    if image.mode != "RGB":
        image = image.convert("RGB")
    channels = b"".join(channel.tobytes() for channel in image.split())
    return np.frombuffer(channels, np.uint8).reshape(3, size, size)


def opened(encoded: bytes) -> Image.Image:
    """The picture, of an animation the first, at its own size and in its own mode.

    An EXIF orientation is not applied. Raises `BrokenImage`.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        image.load()
    except MemoryError:
        raise
    except Image.UnidentifiedImageError:
        raise BrokenImage(f"no image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BrokenImage(f"it unfolds to more than the {most:,} pixels that PIL takes") from None
    except Exception as error:  # PIL's readers raise whatever the bytes lead them to
        raise BrokenImage(str(error).rstrip(".") or type(error).__name__) from error
    return image


def decode(
    source: Iterable[Encoded],
    targets: Sequence[Target],
    size: int,
    workers: int,
    on_progress: Callable[[int], None],
) -> None:
    """Write the images of `source`, numbered from 0 in its order, to the files of the targets.

    What no target asks for is skipped. All files appear together, once all images are written.
    Memory is bounded: `source` is read no further than a few batches per worker ahead.
    `on_progress` is called with the number of images written so far. Raises `UserError`: broken
    images, by name; `source` ends before all are written; a worker ended; no room on the disk.
    """
    total = sum(len(target.rows) for target in targets)
    places = _places(targets)
    labels = [np.zeros(len(target.rows), np.int64) for target in targets]

    def rows() -> Iterator[_Row]:
        # Nothing is read behind the last image that has a place.
        for number, ((target, row), image) in enumerate(zip(places, source, strict=False)):
            if target >= 0:
                labels[target][row] = image.label
                file, start = files[target]
                offset = start + int(row) * 3 * size * size
                yield _Row(number, image.where, image.content, file, offset)

    with ExitStack() as until:
        files = [_allocated(until, target, size) for target in targets]
        written = _in_pool(batches_of(rows(), BATCH), size, workers, on_progress)
        if written < total:
            raise UserError(f"Only {written} of {total} images are there: fetch the data again.")
        for target, values in zip(targets, labels, strict=True):
            if target.labels:
                save_array(target.labels, values)


def _places(targets: Sequence[Target]) -> np.ndarray:
    """int64 [images, 2]: the target of each image of the source, or -1, and its row there."""
    count = 1 + max((int(target.rows.max(initial=-1)) for target in targets), default=-1)
    places = np.full((count, 2), -1)
    for number, target in enumerate(targets):
        if (places[target.rows, 0] >= 0).any() or len(np.unique(target.rows)) < len(target.rows):
            raise ValueError("an image has two places")
        places[target.rows, 0] = number
        places[target.rows, 1] = np.arange(len(target.rows))
    return places


def _allocated(until: ExitStack, target: Target, size: int) -> tuple[Path, int]:
    """A temporary file with room for a target's images, and where its pixels begin.

    It gets its name when `until` is left in peace. The room is taken now, so that a full disk is
    found before the work is done.
    """
    path = until.enter_context(replacing(target.images))
    shape = (len(target.rows), 3, size, size)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    offset = int(array.offset)
    with path.open("r+b") as file:
        take_room(file.fileno(), offset + array.nbytes)
    return path, offset


def take_room(file: int, size: int) -> None:
    """Make a file `size` bytes long, on the disk where its system can; raises `OSError` if full."""
    os.truncate(file, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on every file system
                raise


def batches_of(rows: Iterable[OnItsWay], most: int) -> Iterator[list[OnItsWay]]:
    """What a worker is given at a time: `most` images, or fewer where their files are large."""
    batch: list[OnItsWay] = []
    weight = 0
    for row in rows:
        batch.append(row)
        weight += len(row.content)
        if len(batch) == most or weight >= BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def _in_pool(
    batches: Iterable[list[_Row]], size: int, workers: int, on_progress: Callable[[int], None]
) -> int:
    """Have workers write all batches, a limited number of them at a time; the images written."""
    pending: dict[Future[list[Broken]], int] = {}
    broken: list[Broken] = []
    done = 0

    def collect(until: int) -> None:
        nonlocal done
        while len(pending) > until:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                done += pending.pop(future)
                broken.extend(future.result())
            on_progress(done - len(broken))

    with worker_pool(workers) as pool:
        for batch in batches:
            pending[pool.submit(_write, batch, size)] = len(batch)
            collect(AHEAD * workers - 1)
        collect(0)
    if broken:
        raise UserError(named(broken))
    return done


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that decode. Raises `UserError` where one was ended."""
    # Fresh processes, whatever this one has loaded: they import neither torch nor pyarrow.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepare_worker) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(
                "A process that decodes images was ended, as happens where memory runs out. "
                "Close other programs and run again."
            ) from None


def named(broken: Sequence[Broken]) -> str:
    """One sentence that names broken images, the first few."""
    first = "; ".join(f"{where} ({reason})" for _, where, reason in sorted(broken)[:NAMED])
    more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    what = "1 image is" if len(broken) == 1 else f"{len(broken)} images are"
    return f"{what} broken: {first}{more}. Fetch or copy the data again, or leave these out."


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, end with it whatever ends it, and keep PIL's warnings quiet."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of libraries loaded from now on: each worker is one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _write(batch: Sequence[_Row], size: int) -> list[Broken]:
    """Decode a batch into its files; returns the broken images."""
    broken = []
    with ExitStack() as until:
        # Written, not mapped: that costs less, and a full disk is an error and no signal.
        names = dict.fromkeys(row.file for row in batch)
        files = {name: until.enter_context(name.open("r+b")) for name in names}
        for row in batch:
            try:
                pixels = preprocessed(row.content, size)
            except BrokenImage as error:
                broken.append(Broken(row.number, row.where, str(error)))
                continue
            files[row.file].seek(row.offset)
            files[row.file].write(pixels.data)
    return broken
