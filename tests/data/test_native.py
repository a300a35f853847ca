"""Images corrupted at their own size, a few at a time, against the plain way with PIL."""

import errno
import io
import os
from functools import partial

import numpy as np
import pytest
from changes import refusing, smaller
from pictures import encoded, jpeg, picture
from PIL import Image

from pipeline.conditions import task_seed
from pipeline.corruptions import corrupt
from pipeline.data import native
from pipeline.data.decoding import Encoded, preprocessed, worker_pool
from pipeline.data.native import Wanted, native_images, same_place, streamed_chunks, unnamed_array
from pipeline.errors import UserError

SIZE = 16
CONTENTS = [jpeg(seed, 36 + seed % 7, 34 + seed % 5) for seed in range(70)]


class Pictures:
    """A source of encoded images that counts what is read of it."""

    def __init__(self, contents=CONTENTS):
        self.contents, self.read = contents, 0

    def __len__(self):
        return len(self.contents)

    def images(self):
        for number, content in enumerate(self.contents):
            self.read += 1
            yield Encoded(f"shard row {number}", content, 0)


@pytest.fixture(scope="module")
def pool():
    with worker_pool(2) as workers:
        yield workers


def wanted(rows, contents=CONTENTS):
    return Wanted(Pictures(contents), np.array(rows, np.int64))


def together(chunks):
    """All images in the order of their indices."""
    chunks = list(chunks)
    places = np.concatenate([some for some, _ in chunks])
    images = np.concatenate([some for _, some in chunks])
    assert places.dtype == np.int64 and images.dtype == np.uint8
    assert sorted(places) == list(range(len(places)))
    return images[np.argsort(places)]


def rgb(content):
    return Image.open(io.BytesIO(content)).convert("RGB")


def by_hand(content, change):
    """The corrupted picture written to a PNG file and preprocessed as any other file."""
    picture = np.asarray(rgb(content)).transpose(2, 0, 1)[None]
    return preprocessed(encoded(Image.fromarray(change(picture)[0].transpose(1, 2, 0))), SIZE)


def test_without_a_change_images_are_those_that_are_stored(pool):
    rows = np.random.default_rng(0).permutation(70)[:41]
    images = together(native_images(wanted(rows), SIZE, pool, None))
    for row, image in zip(rows, images, strict=True):
        assert np.array_equal(image, preprocessed(CONTENTS[row], SIZE))


@pytest.mark.parametrize("scale", ["cifar", "adamerging"])
@pytest.mark.parametrize("name", ["contrast", "gaussian_noise", "motion_blur", "pixelate"])
def test_corrupted_at_their_own_size_then_preprocessed(pool, name, scale):
    rows = [5, 69, 0, 33]
    chunks = streamed_chunks({("cars", name): wanted(rows)}, SIZE, pool, scale, 7)
    images = together(chunks("cars", name, 2))
    own = {"severity": 2, "seed": task_seed(7, "cars"), "scale": scale}
    for row, image in zip(rows, images, strict=True):
        change = partial(corrupt, name=name, indices=[row], **own)
        assert np.array_equal(image, by_hand(CONTENTS[row], change))
        assert not np.array_equal(image, preprocessed(CONTENTS[row], SIZE))


def test_pixels_depend_on_task_image_severity_and_seed_and_on_nothing_else(pool):
    contents = [CONTENTS[0]] * 30

    def drawn(rows, task="cars", severity=2, seed=0):
        some = {(task, "impulse_noise"): wanted(rows, contents)}
        chunks = streamed_chunks(some, SIZE, pool, "cifar", seed)
        return together(chunks(task, "impulse_noise", severity))

    all_of_them = drawn(range(30))
    assert len(np.unique(all_of_them, axis=0)) == 30  # the same picture, noise of its own
    assert np.array_equal(drawn([29, 3, 11]), all_of_them[[29, 3, 11]])
    for other in (drawn([3], task="gtsrb"), drawn([3], severity=3), drawn([3], seed=1)):
        assert not np.array_equal(other[0], all_of_them[3])


def test_pixelated_as_published_is_a_thumbnail(pool):
    """Of 32 x 32 pixels whatever the picture was; a model of 64 pixels sees that, enlarged."""
    chunks = streamed_chunks({("cars", "pixelate"): wanted([4])}, 64, pool, "adamerging")
    found = together(chunks("cars", "pixelate", 2))[0]
    small = rgb(CONTENTS[4]).resize((28, 28), Image.Resampling.BOX)
    thumbnail = small.resize((32, 32), Image.Resampling.NEAREST)
    assert np.array_equal(found, preprocessed(encoded(thumbnail), 64))


def test_a_change_may_give_another_size(pool):
    images = together(native_images(wanted([1, 2]), SIZE, pool, smaller))
    for row, image in zip([1, 2], images, strict=True):
        assert np.array_equal(image, by_hand(CONTENTS[row], partial(smaller, number=0)))


def test_a_few_hundred_images_at_most_are_under_way(pool):
    source = Pictures([CONTENTS[0]] * 1200)
    chunks = native_images(Wanted(source, np.arange(1200)), SIZE, pool, None)
    given, most = 0, 0
    for some, images in chunks:
        assert len(some) == len(images) <= native.CHUNK + native.BATCH
        most = max(most, source.read - given)
        given += len(some)
    assert given == source.read == 1200
    assert most <= native.FLYING + native.CHUNK + native.BATCH <= 300


def test_nothing_is_read_behind_the_last_one_wanted_and_a_stream_may_be_left(pool):
    source = Pictures()
    together(native_images(Wanted(source, np.array([3, 9])), SIZE, pool, None))
    assert source.read == 10
    left = native_images(wanted(range(70)), SIZE, pool, None)
    next(left)
    left.close()
    assert len(together(native_images(wanted([0]), SIZE, pool, None))) == 1


def test_no_images(pool):
    assert list(native_images(wanted([]), SIZE, pool, None)) == []


def test_every_mode_is_corrupted_as_rgb(pool):
    modes = ["L", "P", "RGBA", "LA", "1", "I;16", "CMYK"]
    kinds = ["PNG"] * 6 + ["JPEG"]
    contents = [
        encoded(picture(40, 36, mode=mode), kind) for mode, kind in zip(modes, kinds, strict=True)
    ]
    images = together(native_images(wanted(range(7), contents), SIZE, pool, smaller))
    for content, image in zip(contents, images, strict=True):
        assert np.array_equal(image, by_hand(content, partial(smaller, number=0)))


def test_broken_images_are_named(pool):
    contents = [*CONTENTS[:3], CONTENTS[3][:200]]
    with pytest.raises(UserError, match=r"^1 image is broken: shard row 3 \(.*\)\. Fetch"):
        together(native_images(wanted([3, 0], contents), SIZE, pool, smaller))


def test_pictures_too_large_to_corrupt_are_named(pool):
    large = encoded(Image.new("L", (10_000, 5001)))
    found = r"1 image is broken: shard row 0 \(10000 x 5001 pixels are too many to be corrupted"
    with pytest.raises(UserError, match=found):
        together(native_images(wanted([0], [large]), SIZE, pool, smaller))


def test_what_a_corruption_refuses_is_named(pool):
    with pytest.raises(UserError, match=r"shard row 2 \(A picture of 3 pixels cannot be blurred\)"):
        together(native_images(wanted([2]), SIZE, pool, refusing))


def test_a_source_with_fewer_images_than_were_fetched(pool):
    with pytest.raises(UserError, match=r"2 images of 3 are not there any longer.*--force fetch"):
        together(native_images(wanted([71, 2, 70]), SIZE, pool, None))
    with pytest.raises(ValueError, match="two places"):
        together(native_images(wanted([1, 1]), SIZE, pool, None))


def test_the_same_images_in_another_order():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    names = np.array([f"{label}/{place:02}" for place, label in enumerate(labels)])
    rows = rng.permutation(50)
    # The other copy is sorted by class, and within classes as before.
    theirs = np.argsort(labels, kind="stable")
    found = same_place(labels[rows], rows, labels[theirs])
    assert np.array_equal(names[theirs][found], names[rows])
    # Another order within classes: labels agree all the same.
    mixed = rng.permutation(50)
    found = same_place(labels[rows], rows, labels[mixed])
    assert np.array_equal(labels[mixed][found], labels[rows])
    assert sorted(found) == list(range(50))


@pytest.mark.parametrize("theirs", [[0, 1, 1], [0, 0, 1, 1], [0, 0, 2]])
def test_other_numbers_of_images_of_a_class(theirs):
    with pytest.raises(UserError, match="other numbers of images of the classes"):
        same_place(np.array([0, 1, 0]), np.arange(3), np.array(theirs))


def test_an_array_without_a_name_leaves_nothing(tmp_path):
    with unnamed_array(tmp_path / "cache", (3, 3, 4, 4)) as images:
        assert images.dtype == np.uint8 and not images.any()
        images[[2, 0]] = 7
        assert images[np.array([0, 1])].mean() == 3.5
        assert not list((tmp_path / "cache").iterdir())
    with unnamed_array(tmp_path, (0, 3, 4, 4)) as images:
        assert len(images) == 0


def test_no_room_for_an_array_is_told_at_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = rf"^1\.00 GB of images cannot be kept in {tmp_path} for a while \(No space left"
    with pytest.raises(UserError, match=found), unnamed_array(tmp_path, (1000, 1000, 1000)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_worker_that_is_killed_ends_in_a_sentence():
    with (
        pytest.raises(UserError, match="was ended, as happens where memory runs out"),
        worker_pool(1) as own,
    ):
        own.submit(int).result()
        for process in own._processes.values():
            process.kill()
        together(native_images(wanted(range(70)), SIZE, own, None))
