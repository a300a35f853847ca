"""Experts: the loss falls, runs repeat, and labels that do not fit are said."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.clip import ImageEncoder
from pipeline.config import Experts
from pipeline.data import check_labels
from pipeline.errors import UserError
from pipeline.finetuning import finetune, schedule, shifted
from pipeline.pretraining import PretrainingOptions, contrastive_loss, jittered, pretrain

OPTIONS = Experts(steps=25, batch=16, lr=3e-3, weight_decay=0.1)
COLOURS = ("red", "green", "blue")


@pytest.fixture
def pictures():
    """90 plain pictures of three colours, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 60, (90, 3, 32, 32), dtype=np.uint8)
    images[np.arange(90), labels] += 180
    return images, labels


@pytest.fixture
def head():
    return F.normalize(torch.randn(3, 12, generator=torch.Generator().manual_seed(2)), dim=1)


def train(clip, head, pictures, seed=0, task="colours"):
    """The weights after three steps; the model is as before."""
    encoder = clip.image_encoder()
    start, options = encoder.weights(), OPTIONS.model_copy(update={"steps": 3})
    weights = finetune(encoder, head, 20.0, *pictures, options, task=task, seed=seed)
    encoder.load(start, "the pretrained model")
    return weights


def test_the_loss_falls_on_an_easy_task(tiny_clip, head, pictures):
    steps, losses = [], []
    encoder = tiny_clip.image_encoder()
    frozen = head.clone()
    weights = finetune(
        encoder,
        head,
        20.0,
        *pictures,
        OPTIONS,
        task="colours",
        seed=0,
        on_step=lambda step, loss: (steps.append(step), losses.append(loss)),
    )
    assert steps == list(range(1, 26))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    assert torch.equal(head, frozen) and not encoder.training
    assert weights.keys() == encoder.weights().keys()
    images, labels = pictures
    with torch.no_grad():
        right = (encoder(torch.from_numpy(images)) @ head.T).argmax(1).numpy() == labels
    assert right.mean() > 0.9


def test_the_same_seed_gives_the_same_expert(tiny_clip, head, pictures):
    first = train(tiny_clip, head, pictures)
    again = train(tiny_clip, head, pictures)
    other = train(tiny_clip, head, pictures, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_draws_do_not_depend_on_what_was_drawn_before(tiny_clip, head, pictures):
    torch.rand(7)
    np.random.default_rng().random(3)
    first = train(tiny_clip, head, pictures)
    torch.rand(3)
    assert torch.equal(first["visual.proj"], train(tiny_clip, head, pictures)["visual.proj"])
    other = train(tiny_clip, head, pictures, task="other")
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


@pytest.mark.parametrize(("steps", "warm_up"), [(25, 2.5), (10, 1.0), (500, 50), (1, 0.1)])
def test_schedule_rises_and_falls(steps, warm_up):
    factors = [schedule(step, steps, warm_up) for step in range(steps)]
    assert 0 < factors[0] <= 1 and max(factors) <= 1
    peak = factors.index(max(factors))
    assert peak <= math.ceil(warm_up)
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] < 0.03 or steps == 1


def test_shifted_moves_by_at_most_two_pixels():
    images = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    seen = set()
    for seed in range(60):
        moved = shifted(images, np.random.default_rng(seed))
        assert moved.shape == images.shape and moved.dtype == np.uint8
        # The middle pixel came from at most two pixels away, in both pictures alike.
        down, right = np.argwhere(images[0, 0] == moved[0, 0, 4, 4])[0] - 4
        assert np.array_equal(
            moved[:, :, 2:6, 2:6], images[:, :, 2 + down :, 2 + right :][..., :4, :4]
        )
        seen.add((int(down), int(right)))
    assert len(seen) > 15 and max(max(map(abs, move)) for move in seen) == 2


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (0, [], "'cars' has no images"),
        (3, [0, 1], "'cars' has 3 images but 2 labels"),
        (3, [0, 1, 4], "labels from 0 to 4 but 4 class names"),
        (3, [-1, 1, 2], "labels from -1 to 2 but 4 class names"),
    ],
)
def test_labels_that_do_not_fit_are_said(images, labels, sentence):
    pictures = np.zeros((images, 3, 32, 32), np.uint8)
    with pytest.raises(UserError, match=sentence):
        check_labels("cars", pictures, np.array(labels, np.int64), 4)


def test_finetune_checks_before_it_trains(tiny_clip, head, pictures):
    images, labels = pictures
    with pytest.raises(UserError, match="labels from 0 to 2 but 2 class names"):
        train(tiny_clip, head[:2], (images, labels))


def test_contrastive_loss_by_hand():
    generator = torch.Generator().manual_seed(4)
    caption = np.array([0, 1, 0, 2, 1, 0])
    images, texts = (
        F.normalize(torch.randn(6, 5, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    logits = [[7.0 * sum(a * b for a, b in zip(i, t, strict=True)) for t in texts] for i in images]
    loss = 0.0
    for rows in (logits, list(zip(*logits, strict=True))):
        for k, row in enumerate(rows):
            total = math.log(sum(math.exp(value) for value in row))
            positives = [j for j in range(6) if caption[j] == caption[k]]
            loss += sum(total - row[j] for j in positives) / len(positives) / 6 / 2
    found = contrastive_loss(images, texts, caption, torch.tensor(7.0, dtype=torch.float64))
    assert found.item() == pytest.approx(float(loss), rel=1e-6)


def test_contrastive_loss_of_distinct_captions_is_clips_own():
    generator = torch.Generator().manual_seed(5)
    images, texts = (F.normalize(torch.randn(4, 5, generator=generator), dim=1) for _ in range(2))
    logits, target = 3.0 * images @ texts.T, torch.arange(4)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(
        contrastive_loss(images, texts, np.arange(4), torch.tensor(3.0)), expected
    )


def test_jitter_keeps_form_and_range():
    images = np.full((4, 3, 8, 8), 128, np.uint8)
    changed = jittered(images, np.random.default_rng(0))
    assert changed.shape == images.shape and changed.dtype == np.uint8
    assert not np.array_equal(changed, images)
    assert abs(changed.mean() - 128) < 20


def test_pretraining_learns_colours_from_captions(tiny_clip, pictures):
    images, labels = pictures
    losses = []
    options = PretrainingOptions(steps=40, batch=24, lr=3e-2, weight_decay=0.01, seed=0)
    contexts = ("a {}", "a photo of {}")
    pretrain(
        tiny_clip,
        images,
        labels,
        COLOURS,
        contexts,
        options,
        on_step=lambda step, loss: losses.append(loss),
    )
    # Eight pictures share a caption, so that the loss cannot fall below log 8.
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.3
    head = tiny_clip.zero_shot_head(COLOURS, contexts)
    encoder = tiny_clip.image_encoder()
    assert isinstance(encoder, ImageEncoder)
    with torch.no_grad():
        right = (encoder(torch.from_numpy(images)) @ head.T).argmax(1).numpy() == labels
    assert right.mean() > 0.8
