"""The pretraining corpus: captioned web pictures, and the words that captions are made of.

Clean pictures carry the name of their class; pictures in a task's own style are captioned in
other words, as on the web, where the benchmark's class names are rarely used. Pictures of
coloured shapes and of letters keep the words and the shapes of things apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import numpy as np

from pipeline.tasks.mini import TASKS, WEB_WORDS, available, draw, draw_all, finish
from pipeline.tasks.mini.digits import LETTERS, draw_character
from pipeline.tasks.mini.sensor import SENSORS, WEB, expose
from pipeline.tasks.mini.shapes import COLOURS, COUNTS, SHAPES, draw_shapes

CONTEXTS: tuple[str, ...] = (
    "{}",
    "a picture of {}",
    "an image showing {}",
    "{} web photo",
    "a small {}",
    "a cropped {}",
)
"""Sentences that a caption is put into."""

_LETTER_CAPTION = "the letter {}"

_Picture = Callable[[int], tuple[np.ndarray, str]]  # index -> uint8 [3, 32, 32], caption


@dataclass(frozen=True)
class Corpus:
    """Captioned pictures."""

    images: np.ndarray  # uint8 [N, 3, 32, 32]
    caption_ids: np.ndarray  # int64 [N], positions in `captions`
    captions: tuple[str, ...]  # all different, sorted


def corpus(per_source: int, seed: int, workers: int) -> Corpus:
    """`per_source` pictures of each source: two per task, shapes, and letters.

    MNIST in its own style has no more than its 800 real digits, and the letters are half clean,
    half in the style of street numbers. The same for any number of worker processes.
    """
    sources: list[tuple[_Picture, int]] = []
    for task in TASKS:
        for split in ("web_plain", "web_domain"):
            count = min(per_source, available(task, split) or per_source)
            sources.append((partial(_task_picture, task, split, seed), count))
    sources.append((partial(_shape_picture, seed), per_source))
    for domain in (False, True):
        sources.append((partial(_letter_picture, domain, seed), per_source // 2))
    images, captions = draw_all(sources, workers)
    distinct, ids = np.unique(captions, return_inverse=True)
    return Corpus(images, ids.astype(np.int64), tuple(distinct.tolist()))


def task_caption(task: str, split: str, label: int) -> str:
    """What the web says of a picture of this class in split `web_plain` or `web_domain`."""
    name = TASKS[task].classes[label]
    if split == "web_plain":
        return TASKS[task].templates[0].format(name)
    return WEB_WORDS[task][name]


def vocabulary() -> tuple[str, ...]:
    """All words of captions, contexts and heads: "<pad>", the words sorted, "<eot>"."""
    sentences = [
        *(
            task_caption(task.name, split, label)
            for task in TASKS.values()
            for split in ("web_plain", "web_domain")
            for label in range(len(task.classes))
        ),
        *(template.format("") for task in TASKS.values() for template in task.templates),
        *(context.format("") for context in CONTEXTS),
        *COUNTS,
        *COLOURS,
        *SHAPES,
        *(_LETTER_CAPTION.format(letter) for letter in LETTERS),
    ]
    words = {word for sentence in sentences for word in sentence.split()}
    return ("<pad>", *sorted(words), "<eot>")


def _task_picture(task: str, split: str, seed: int, index: int) -> tuple[np.ndarray, str]:
    pixels, label = draw(task, split, index, seed)
    return pixels, task_caption(task, split, label)


def _shape_picture(seed: int, index: int) -> tuple[np.ndarray, str]:
    rng = np.random.default_rng([crc32(b"shapes"), seed, index])
    image, caption = draw_shapes(rng)
    return _channels_first(expose(finish(image), SENSORS["shapes"], rng)), caption


def _letter_picture(domain: bool, seed: int, index: int) -> tuple[np.ndarray, str]:
    rng = np.random.default_rng([crc32(b"letters"), int(domain), seed, index])
    letter = LETTERS[rng.integers(len(LETTERS))]
    image = finish(draw_character(letter, rng, domain))
    pixels = expose(image, SENSORS["letters"] if domain else WEB, rng)
    return _channels_first(pixels), _LETTER_CAPTION.format(letter)


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
