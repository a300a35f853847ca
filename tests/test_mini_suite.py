"""The miniature suite: reproducible pictures, honest splits, classes that can be told apart.

Statistics rather than exact pixels: text is drawn by a library whose rendering may change.
"""

from functools import cache

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.tasks import SUITES, get_task, task_names
from pipeline.tasks.mini import SPLITS, TASKS, WEB_WORDS, Drawn, available, draw, draw_split
from pipeline.tasks.mini.contact_sheet import contact_sheet
from pipeline.tasks.mini.corpus import CONTEXTS, corpus, vocabulary
from pipeline.tasks.mini.sensor import CAMERA, camera, photograph

OWN_SPLITS = ("train", "adapt", "select", "eval")
DRAWN_TASKS = tuple(name for name in TASKS if name != "mnist")


@cache
def drawn(task: str, split: str) -> Drawn:
    return draw_split(task, split, {"train": 600, "eval": 300}[split], seed=0)


def hashes(task: str, split: str, count: int, seed: int = 0) -> set[bytes]:
    return {image.tobytes() for image in draw_split(task, split, count, seed).images}


def test_suite_lists_its_tasks_in_report_order():
    assert "mini" in SUITES
    assert task_names("mini") == (
        *("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd"),
    )
    task = get_task("mini", "mnist")
    assert (task.title, task.suite, len(task.classes)) == ("mini MNIST", "mini", 10)
    assert all(template.count("{}") == 1 for template in task.templates)


@pytest.mark.parametrize("task", TASKS)
def test_every_class_has_its_own_web_words(task: str):
    words = WEB_WORDS[task]
    assert tuple(words) == TASKS[task].classes
    assert len(set(words.values())) == len(words)
    assert not set(words.values()) & set(words)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_picture_depends_on_its_arguments_only(task: str, split: str):
    first, label = draw(task, split, 5, 1)
    again, label_again = draw(task, split, 5, 1)
    assert first.shape == (3, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert label == label_again
    assert not np.array_equal(first, draw(task, split, 6, 1)[0])
    if (task, split) != ("mnist", "web_domain"):  # those real digits are the same for all seeds
        assert not np.array_equal(first, draw(task, split, 5, 2)[0])


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_the_promised_form(task: str):
    train = drawn(task, "train")
    assert train.images.shape == (600, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert train.labels.shape == train.source_index.shape == (600,)
    assert train.labels.dtype == train.source_index.dtype == np.int64
    assert draw(task, "train", 7, 0)[1] == train.labels[7]
    if task != "mnist":
        assert np.array_equal(train.source_index, np.arange(600))


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_about_uniform(task: str):
    expected = 600 / len(TASKS[task].classes)
    counts = np.bincount(drawn(task, "train").labels, minlength=len(TASKS[task].classes))
    assert len(counts) == len(TASKS[task].classes)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_worker_processes_change_nothing():
    alone, shared = draw_split("gtsrb", "eval", 260, 3), draw_split("gtsrb", "eval", 260, 3, 2)
    assert np.array_equal(alone.images, shared.images)
    assert np.array_equal(alone.labels, shared.labels)


@pytest.mark.parametrize("task", DRAWN_TASKS)
def test_no_drawn_picture_is_in_two_splits_or_seeds(task: str):
    sets = [hashes(task, split, 40, seed) for split in SPLITS for seed in (0, 1)]
    assert len(set.union(*sets)) == len(sets) * 40


def test_real_digits_are_dealt_by_seed_and_never_shared():
    dealt = {
        seed: [
            draw_split("mnist", split, available("mnist", split), seed).source_index
            for split in ("web_domain", *OWN_SPLITS)
        ]
        for seed in (0, 1)
    }
    for parts in dealt.values():
        assert [len(part) for part in parts] == [800, 2000, 900, 300, 1000]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(5000))
    assert np.array_equal(dealt[0][0], dealt[1][0])
    assert not np.array_equal(np.sort(dealt[0][1]), np.sort(dealt[1][1]))


def test_real_digits_differ_between_splits():
    sizes = {"web_domain": 800, "train": 2000, "adapt": 900, "select": 300, "eval": 1000}
    sets = [hashes("mnist", split, count) for split, count in sizes.items()]
    assert len(set.union(*sets)) == 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnits", "train", 0, 0), "Unknown task.*mnits.*mnist"),
        (("mnist", "trian", 0, 0), "Unknown split 'trian'.*train"),
        (("mnist", "select", 300, 0), "has 300 pictures, not 301"),
    ],
)
def test_wrong_requests_are_refused(arguments: tuple, message: str):
    with pytest.raises(UserError, match=message):
        draw(*arguments)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="has 1000 pictures, not 1001"):
        draw_split("mnist", "eval", 1001, 0)
    with pytest.raises(UserError, match=r"Unknown task.*'car'.*cars"):
        get_task("mini", "car")
    with pytest.raises(UserError, match="Unknown suite 'minis'"):
        task_names("minis")
    with pytest.raises(UserError, match=r"Unknown camera step 'grey'.*gray"):
        camera(["cast", "grey"])


@pytest.mark.parametrize("step", CAMERA)
def test_a_camera_changes_some_pictures_and_keeps_their_form(step: str):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    taken = [photograph(pixels, camera([step]), np.random.default_rng(i)) for i in range(8)]
    assert all(picture.shape == pixels.shape for picture in taken)
    assert all(picture.dtype == np.uint8 for picture in taken)
    assert any(not np.array_equal(picture, pixels) for picture in taken)


def test_only_a_tasks_own_pictures_are_taken_with_its_camera():
    def is_gray(split: str) -> bool:
        pixels = draw("resisc45", split, 0, 0)[0].astype(int)
        return bool(np.ptp(pixels, axis=0).max() == 0)

    assert [split for split in SPLITS if is_gray(split)] == list(OWN_SPLITS)


def features(images: np.ndarray) -> np.ndarray:
    """Colours, brightness pattern and its spectrum: textures have no fixed place or colour."""
    colours = images.mean((2, 3)) / 64
    gray = images.mean(1)
    gray = (gray - gray.mean((1, 2), keepdims=True)) / gray.std((1, 2), keepdims=True)
    spectrum = np.log1p(np.abs(np.fft.rfft2(gray))) * 2
    return np.concatenate(
        [colours, gray.reshape(len(gray), -1), spectrum.reshape(len(gray), -1)], 1
    )


@pytest.mark.parametrize("task", TASKS)
def test_classes_can_be_told_apart(task: str):
    train, test = drawn(task, "train"), drawn(task, "eval")
    known, asked = features(train.images), features(test.images)
    classes = range(len(TASKS[task].classes))
    means = np.stack([known[train.labels == label].mean(0) for label in classes])
    distances = np.linalg.norm(asked[:, None] - means[None], axis=-1)
    accuracy = (distances.argmin(1) == test.labels).mean()
    assert accuracy > 2 / len(classes)


@pytest.mark.parametrize("task", TASKS)
def test_class_means_differ_more_than_halves_of_a_class(task: str):
    train = drawn(task, "train")
    values = features(train.images)
    classes = range(len(TASKS[task].classes))
    halves = np.stack(
        [[values[train.labels == label][half::2].mean(0) for label in classes] for half in (0, 1)]
    )
    within = np.linalg.norm(halves[0] - halves[1], axis=-1).mean()
    pairs = np.linalg.norm(halves[0][:, None] - halves[1][None], axis=-1)
    between = pairs[~np.eye(len(classes), dtype=bool)].mean()
    assert between > 1.2 * within


def test_the_corpus_is_made_of_every_source():
    made = corpus(per_source=20, seed=0, workers=1)
    pictures = 20 * (2 * len(TASKS) + 2)
    assert made.images.shape == (pictures, 3, 32, 32)
    assert made.images.dtype == np.uint8
    assert made.caption_ids.shape == (pictures,)
    assert made.caption_ids.dtype == np.int64
    assert len(set(made.captions)) == len(made.captions)
    assert set(made.caption_ids.tolist()) == set(range(len(made.captions)))
    again = corpus(per_source=20, seed=0, workers=1)
    assert np.array_equal(made.images, again.images)
    assert made.captions == again.captions


def test_domain_pictures_are_never_captioned_with_a_class_name():
    made = corpus(per_source=20, seed=0, workers=1)
    second = 20  # sun397 comes first: 20 clean pictures, then 20 in its own style
    captions = [made.captions[i] for i in made.caption_ids]
    assert all(caption.endswith("scene") for caption in captions[:second])
    assert set(captions[second : 2 * second]) <= set(WEB_WORDS["sun397"].values())


def test_the_vocabulary_covers_captions_and_heads():
    words = vocabulary()
    assert (words[0], words[-1]) == ("<pad>", "<eot>")
    assert len(set(words)) == len(words)
    captions = corpus(per_source=60, seed=1, workers=1).captions
    heads = [
        template.format(name)
        for task in TASKS.values()
        for template in task.templates
        for name in task.classes
    ]
    sentences = [context.format(text) for context in CONTEXTS for text in (*captions, *heads)]
    assert {word for sentence in sentences for word in sentence.split()} <= set(words)


def test_a_contact_sheet_has_a_row_per_class():
    sheet = contact_sheet("dtd", "eval", 0, columns=3)
    assert sheet.mode == "RGB"
    assert sheet.height // 34 == len(TASKS["dtd"].classes)
