"""Sample images with what was said about them before and after merging.

Nobody chose them: for every task and outcome an image is drawn by the profile's first seed from all
that had this outcome, and beside it stands how many had.
"""

import base64
import io
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from PIL import Image

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation import Predictions
from pipeline.layout import Layout
from pipeline.report.predicted import read_classes, read_predictions
from pipeline.report.stages import stage_command

BEFORE = "pretrained"
# (correct before merging, correct after) -> what to call it
OUTCOMES = {
    (False, True): "Mended",
    (True, False): "Broken",
    (False, False): "Wrong twice",
    (True, True): "Right twice",
}
SMALL = 64  # pixels: images of at most that side are shown with their very pixels
SIDE = 128  # pixels of a larger image's thumbnail


@dataclass(frozen=True)
class Sample:
    """An image, and what it is and was taken for."""

    address: str  # a data URI
    small: bool  # whether its pixels are to be seen as squares
    label: str
    before: str
    after: str
    sure_before: float  # probability of the answer, in percent
    sure_after: float


@dataclass(frozen=True)
class Outcome:
    """What became of a share of a task's images, and one of them, if there is any."""

    title: str
    share: float  # of all images, in percent
    sample: Sample | None


@dataclass(frozen=True)
class TaskSamples:
    """The four outcomes of a task."""

    task: str
    outcomes: tuple[Outcome, ...]


def read_samples(config: Config, layout: Layout, method: str) -> tuple[TaskSamples, ...] | None:
    """Samples of every task before merging and after it by `method`; None if files are missing."""
    found = []
    for task in config.profile.tasks:
        before = read_predictions(config, layout, BEFORE, task)
        after = read_predictions(config, layout, method, task)
        path = layout.images(config.profile.seeds[0], task, "eval")
        if before is None or after is None or not path.exists():
            return None
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            made_by = stage_command("fetch")
            raise UserError(f"{path} is damaged ({error}). Run '{made_by}' again.") from None
        found.append(_of_task(config, layout, task, images, before, after))
    return tuple(found)


def _of_task(
    config: Config,
    layout: Layout,
    task: str,
    images: np.ndarray,
    before: list[Predictions],
    after: list[Predictions],
) -> TaskSamples:
    """Shares are over all seeds; the images are those of the first one."""
    words = read_classes(config, layout, task, 1 + max(int(one.top.max()) for one in before))
    rng = np.random.default_rng([config.profile.seeds[0], crc32(task.encode())])
    pairs = [
        (one.correct, other.correct) for one, other in zip(before, after, strict=True)
    ]  # bool [N] each
    outcomes = []
    for (first, second), title in OUTCOMES.items():
        masks = [(one == first) & (other == second) for one, other in pairs]
        places = np.flatnonzero(masks[0])
        sample = None
        if len(places):
            place = int(rng.choice(places))
            pixels = np.asarray(images[before[0].index[place]])
            sample = _sample(pixels, words, before[0], after[0], place)
        share = 100 * float(np.concatenate(masks).mean())
        outcomes.append(Outcome(title, share, sample))
    return TaskSamples(task, tuple(outcomes))


def _sample(
    pixels: np.ndarray,
    words: tuple[str, ...],
    before: Predictions,
    after: Predictions,
    place: int,
) -> Sample:
    return Sample(
        address=data_uri(pixels),
        small=max(pixels.shape) <= SMALL,
        label=words[int(before.label[place])],
        before=words[int(before.top[place, 0])],
        after=words[int(after.top[place, 0])],
        sure_before=100 * float(before.p_top1[place]),
        sure_after=100 * float(after.p_top1[place]),
    )


def data_uri(pixels: np.ndarray) -> str:
    """A uint8 image [3, height, width] as a data URI: a PNG if it is small, a JPEG thumbnail."""
    image, sink = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(sink, "png", optimize=True)
        kind = "png"
    else:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image.save(sink, "jpeg", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"
