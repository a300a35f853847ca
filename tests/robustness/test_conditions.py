"""The images that coefficients are learned on: which corruption, which noise, in which order."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.conditions import CONDITIONS, CorruptedImages, noise_seed, task_seed
from pipeline.corruptions import corrupt
from pipeline.errors import UserError
from pipeline.learning import LearningOptions, learn_coefficients
from pipeline.learning.feeding import IMBALANCE, Feeder, draw, draw_long_tail, draw_once
from pipeline.parallel import Group
from pipeline.predictions import probabilities

NAMES = ("gaussian_noise", "contrast", "pixelate")


@pytest.fixture
def pictures():
    return np.random.default_rng(5).integers(0, 256, (70, 3, 32, 32), dtype=np.uint8)


def corrupted(pictures, names, task="cars", seed=3):
    return CorruptedImages(pictures, task, names, 3, seed=seed, scale="cifar")


def test_a_mixture_of_one_corruption_is_that_corruption(pictures):
    found = corrupted(pictures, ["gaussian_noise"])
    wanted = corrupt(pictures, "gaussian_noise", 3, seed=task_seed(3, "cars"), scale="cifar")
    assert len(found) == 70
    assert np.array_equal(found[:], wanted)


def test_every_image_of_a_mixture_has_one_corruption_whatever_is_asked_for_with_it(pictures):
    found = corrupted(pictures, NAMES)
    alone = [corrupted(pictures, [name])[:] for name in NAMES]
    wanted = np.stack([alone[kind][place] for place, kind in enumerate(found.kinds)])
    assert np.array_equal(found[:], wanted)
    rows = np.array([41, 3, 3, 69, 0])
    assert np.array_equal(found[rows], wanted[rows])
    assert np.array_equal(found[17:30], wanted[17:30])
    assert found[:0].shape == (0, 3, 32, 32)


def test_an_image_of_fewer_is_corrupted_as_it_is_among_all(pictures):
    rows = np.array([2, 5, 11, 40, 69])
    some = CorruptedImages(pictures, "cars", NAMES, 3, seed=3, scale="cifar", rows=rows)
    every = corrupted(pictures, NAMES)
    assert len(some) == 5
    assert np.array_equal(some.kinds, every.kinds[rows])
    assert np.array_equal(some[:], every[rows])
    assert np.array_equal(some[np.array([3, 0])], every[rows[[3, 0]]])


def test_corruptions_of_a_mixture_are_drawn_evenly_by_seed_and_task():
    pictures = np.zeros((3000, 3, 1, 1), np.uint8)
    kinds = corrupted(pictures, NAMES).kinds
    counts = np.bincount(kinds, minlength=3)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(3000 * 2 / 9)
    assert np.array_equal(kinds, corrupted(pictures, NAMES).kinds)
    for other in (corrupted(pictures, NAMES, seed=4), corrupted(pictures, NAMES, task="dtd")):
        assert (kinds != other.kinds).mean() > 0.5


def test_noise_of_tasks_and_of_learning_and_testing_differs(pictures):
    found = corrupted(pictures, NAMES[:1])[:]
    for other in (
        corrupted(pictures, NAMES[:1], task="dtd"),
        corrupted(pictures, NAMES[:1], seed=noise_seed(3)),
    ):
        assert (found != other[:]).mean() > 0.5


def test_a_stream_shows_every_image_once_in_an_order_of_its_own():
    counts = {"cars": 900, "mnist": 130, "dtd": 57}
    draws = draw_once(0, counts, 16)
    assert {len(steps) for steps in draws.values()} == {57}
    for task, count in counts.items():
        seen = np.concatenate(draws[task])
        assert sorted(seen) == list(range(count)) != list(seen)
        sizes = [len(rows) for rows in draws[task]]
        assert max(sizes) - min(sizes) <= 1
    assert max(len(rows) for rows in draws["cars"]) == 16
    assert not np.array_equal(
        np.concatenate(draws["cars"]), np.concatenate(draw_once(1, counts, 16)["cars"])
    )
    # No step goes without a task.
    assert len(draw_once(0, {"cars": 900, "dtd": 5}, 16)["cars"]) == 5


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_steps_of_different_lengths(size):
    counts = {"cars": 23, "dtd": 9}
    images = {
        task: np.arange(count, dtype=np.uint8)[:, None, None, None]
        for task, count in counts.items()
    }
    draws, cpu = draw_once(0, counts, 5), torch.device("cpu")
    parts = [
        list(Feeder(images, draws, cpu, Group(rank, size)).batches(0, 5)) for rank in range(size)
    ]
    for step, shared in enumerate(zip(*parts, strict=True)):
        for place, task in enumerate(counts):
            together = np.concatenate([batch.rows[place] for batch in shared])
            assert np.array_equal(together, draws[task][step])
            assert {batch.totals[place] for batch in shared} == {len(draws[task][step])}
        loads = [sum(map(len, batch.rows)) for batch in shared]
        assert max(loads) - min(loads) <= 1


def test_a_long_tail_has_the_imbalance_it_says():
    classes = np.random.default_rng(0).integers(5, size=50_000)
    rows = draw_long_tail(0, "cars", classes, 2000, 16)
    assert rows.shape == (2000, 16)
    assert all(len(set(row)) == 16 for row in rows.tolist())
    shares = np.sort(np.bincount(classes[rows.ravel()], minlength=5))[::-1] / rows.size
    wanted = IMBALANCE ** -np.linspace(0, 1, 5)
    wanted /= wanted.sum()
    error = np.sqrt(wanted * (1 - wanted) / rows.size)
    assert (np.abs(shares - wanted) < 5 * error).all()
    # Without it, the classes come as they are.
    even = np.bincount(classes[draw(0, "cars", len(classes), 2000, 16).ravel()]) / rows.size
    assert np.abs(even - 0.2).max() < 0.02
    assert np.array_equal(rows[:7], draw_long_tail(0, "cars", classes, 7, 16))
    assert not np.array_equal(rows[:7], draw_long_tail(1, "cars", classes, 7, 16))


@pytest.mark.parametrize("classes", [np.zeros(30, int), np.arange(4), np.array([7])])
def test_a_long_tail_of_few_classes_or_images(classes):
    rows = draw_long_tail(0, "cars", classes, 3, 8)
    assert rows.shape == (3, min(8, len(classes)))
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def gathered(monkeypatch):
    """Per task all rows that learning asks for, step by step."""
    asked = []

    class Watched(Feeder):
        def batches(self, start, stop):
            for batch in super().batches(start, stop):
                asked.append(batch.rows)
                yield batch

    monkeypatch.setattr("pipeline.learning.loop.Feeder", Watched)
    return asked


@pytest.mark.parametrize("schedule", ["paper", "fast"])
def test_learning_on_a_stream_takes_every_image_once(vectors, fit_data, schedule, monkeypatch):
    asked = gathered(monkeypatch)
    options = LearningOptions(schedule=schedule, steps=2, batch=4, order="stream")
    learned = learn_coefficients(vectors, fit_data, options)
    assert learned.facts["steps"] == len(asked) == len(learned.history["loss"]) == 4
    for place, task in enumerate(vectors.tasks):
        seen = np.concatenate([rows[place] for rows in asked])
        assert sorted(seen) == list(range(len(fit_data.images[task])))
    assert (learned.values != options.initial).any()


def test_a_stream_does_not_end_where_progress_slows_down():
    assert LearningOptions(schedule="fast").resolved.plateau > 0
    assert LearningOptions(schedule="fast", order="stream").resolved.plateau == 0


def test_learning_on_a_long_tail_goes_by_what_the_pretrained_model_predicts(
    vectors, fit_data, monkeypatch
):
    asked = gathered(monkeypatch)
    options = LearningOptions(steps=5, batch=4, order="long_tail")
    learn_coefficients(vectors, fit_data, options, seed=9)
    fit_data.encoder.load(vectors.pretrained, "pretrained")
    for place, task in enumerate(vectors.tasks):
        predicted = probabilities(
            fit_data.encoder, fit_data.heads[task], fit_data.logit_scale, fit_data.images[task]
        )
        wanted = draw_long_tail(9, task, predicted.argmax(dim=1).numpy(), 5, 4)
        assert np.array_equal([rows[place] for rows in asked], wanted)


def test_an_unknown_order_is_named(vectors, fit_data):
    options = replace(LearningOptions(), order="streem")
    with pytest.raises(UserError, match=r"order of images 'streem'\. Did you mean stream"):
        learn_coefficients(vectors, fit_data, options)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_are_options_of_learning_on_images_made_as_they_are_asked_for(
    vectors, fit_data, condition
):
    changes = CONDITIONS[condition].changes
    options = replace(LearningOptions(steps=3, batch=4), **changes)
    made = {
        task: CorruptedImages(images, task, NAMES, 3, seed=0, scale="cifar")
        for task, images in fit_data.images.items()
    }
    found = learn_coefficients(vectors, replace(fit_data, images=made), options)
    whole = {task: images[:] for task, images in made.items()}
    wanted = learn_coefficients(vectors, replace(fit_data, images=whole), options)
    assert torch.equal(found.values, wanted.values)
