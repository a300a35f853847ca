"""Which images a step gets, in which order, and what happens when they cannot be read."""

import threading

import numpy as np
import pytest
import torch

from pipeline.learning.feeding import Feeder, draw, shares
from pipeline.parallel import Group

CPU = torch.device("cpu")
COUNTS = {"cars": 40, "mnist": 7, "dtd": 23}


def numbered(counts):
    """task -> images [N, 3, 2, 2] that say their task and place."""
    return {
        task: np.stack([np.full((3, 2, 2), 50 * k + i, np.uint8) for i in range(count)])
        for k, (task, count) in enumerate(counts.items())
    }


def drawn(counts, steps=6, batch=8, seed=3):
    return {task: draw(seed, task, count, steps, batch) for task, count in counts.items()}


def feeders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feeder")]


def test_draws_follow_from_seed_and_task_alone():
    first = draw(0, "mnist", 100, 5, 8)
    assert first.shape == (5, 8)
    assert np.array_equal(first, draw(0, "mnist", 100, 5, 8))
    assert not np.array_equal(first, draw(1, "mnist", 100, 5, 8))
    assert not np.array_equal(first, draw(0, "cars", 100, 5, 8))
    # A run of more steps begins as a shorter one.
    assert np.array_equal(first, draw(0, "mnist", 100, 9, 8)[:5])


def test_no_image_twice_in_a_step_and_every_image_in_the_end():
    rows = draw(0, "mnist", 20, 50, 8)
    assert all(len(set(row)) == 8 for row in rows.tolist())
    assert set(rows.flatten().tolist()) == set(range(20))
    assert len({tuple(row) for row in rows.tolist()}) == 50


def test_small_task_gives_all_its_images():
    rows = draw(0, "mnist", 3, 5, 8)
    assert [sorted(row) for row in rows.tolist()] == [[0, 1, 2]] * 5
    assert draw(0, "mnist", 1, 5, 8).tolist() == [[0]] * 5


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, 6), (2, 6), (5, 6), (1, 3), (4, 4), (6, 6), (3, 0)]
)
def test_batches_are_the_drawn_images_in_order(mapped, start, stop, tmp_path):
    images, draws = numbered(COUNTS), drawn(COUNTS)
    if mapped:
        for task, array in images.items():
            np.save(tmp_path / f"{task}.npy", array)
        given = {task: np.load(tmp_path / f"{task}.npy", mmap_mode="r") for task in images}
    else:
        given = images
    batches = list(Feeder(given, draws, CPU).batches(start, stop))
    assert len(batches) == max(0, stop - start)
    for step, batch in enumerate(batches, start):
        assert batch.totals == [8, 7, 8]
        for task, found, rows in zip(COUNTS, batch.images, batch.rows, strict=True):
            assert np.array_equal(rows, draws[task][step])
            assert np.array_equal(found.numpy(), images[task][rows])
            assert found.dtype == torch.uint8
    assert not feeders()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 30])
def test_processes_share_a_steps_images_evenly(size):
    images, draws = numbered(COUNTS), drawn(COUNTS)
    groups = [Group(rank, size) for rank in range(size)]
    runs = [list(Feeder(images, draws, CPU, group).batches(0, 6)) for group in groups]
    for step in range(6):
        parts = [run[step] for run in runs]
        assert all(part.totals == [8, 7, 8] for part in parts)
        for k, task in enumerate(COUNTS):
            rows = np.concatenate([part.rows[k] for part in parts])
            assert np.array_equal(rows, draws[task][step])
            found = torch.cat([part.images[k] for part in parts])
            assert np.array_equal(found.numpy(), images[task][rows])
            assert all(len(part.rows[k]) == len(part.images[k]) for part in parts)
        sizes = [sum(map(len, part.images)) for part in parts]
        assert sum(sizes) == 23 and max(sizes) - min(sizes) <= 1


def test_shares_are_cut_at_any_image():
    assert shares([4, 4], Group(0, 2)) == [slice(0, 4), slice(0, 0)]
    assert shares([4, 4], Group(1, 2)) == [slice(4, 4), slice(0, 4)]
    assert shares([3, 1, 5], Group(1, 3)) == [slice(3, 3), slice(0, 1), slice(0, 2)]


class Failing:
    """An array whose third batch cannot be read."""

    def __init__(self, images):
        self._images, self._reads = images, 0

    def __getitem__(self, rows):
        self._reads += 1
        if self._reads == 3:
            raise OSError("Input/output error")
        return self._images[rows]


def test_failure_of_the_thread_is_raised_at_its_step():
    images = numbered(COUNTS)
    feeder = Feeder(dict(images, mnist=Failing(images["mnist"])), drawn(COUNTS), CPU)
    seen = []
    with pytest.raises(OSError, match="Input/output error"):
        for batch in feeder.batches(0, 6):
            seen.append(batch)
    assert len(seen) == 2
    assert not feeders()


def test_no_thread_is_left_where_the_user_stops():
    feeder = Feeder(numbered(COUNTS), drawn(COUNTS), CPU)
    for _ in feeder.batches(0, 6):
        assert len(feeders()) == 1
        break
    assert not feeders()

    def use():
        for _ in feeder.batches(0, 6):
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        use()
    assert not feeders()


def test_few_batches_are_read_ahead():
    reads = []

    class Counted:
        def __getitem__(self, rows):
            reads.append(rows)
            return np.zeros((len(rows), 3, 2, 2), np.uint8)

    feeder = Feeder({"cars": Counted()}, {"cars": draw(0, "cars", 40, 20, 8)}, CPU)
    batches = feeder.batches(0, 20)
    for used in range(1, 5):
        next(batches)
        assert used <= len(reads) <= used + 2
    batches.close()
