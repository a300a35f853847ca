"""Many models on corrupted images: each chunk once for all of them, in little memory."""

import numpy as np
import pytest
import torch

from pipeline import robustness
from pipeline.conditions import task_seed
from pipeline.corruptions import corrupt
from pipeline.predictions import predict
from pipeline.robustness import Encoders, classify, stored_chunks

COUNT = 300


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def models(tiny_clip):
    """key -> weights, of models that differ."""
    start = tiny_clip.image_encoder().weights()
    return {
        key: {name: tensor * (1 + key / 3) for name, tensor in start.items()} for key in range(4)
    }


@pytest.fixture
def head():
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(torch.randn(5, 12, generator=generator), dim=1)


def labels():
    return np.random.default_rng(2).integers(0, 5, COUNT)


@pytest.mark.parametrize("chunk", [1, 7, 64, 300, 1000])
@pytest.mark.parametrize("mapped", [False, True])
def test_pixels_do_not_depend_on_chunks(images, chunk, mapped, monkeypatch, tmp_path):
    monkeypatch.setattr(robustness, "CHUNK", chunk)
    images = images[:150]
    given = images
    if mapped:
        np.save(tmp_path / "images.npy", images)
        given = np.load(tmp_path / "images.npy", mmap_mode="r")
    parts = list(stored_chunks({"cars": given}, 4, "cifar")("cars", "gaussian_noise", 2))
    assert all(len(numbers) == len(part) <= chunk for numbers, part in parts)
    assert np.array_equal(np.concatenate([numbers for numbers, _ in parts]), np.arange(150))
    wanted = corrupt(images, "gaussian_noise", 2, seed=task_seed(4, "cars"), scale="cifar")
    assert np.array_equal(np.concatenate([part for _, part in parts]), wanted)


def test_no_more_than_a_chunk_is_corrupted_ahead(images, monkeypatch):
    made = []

    def counting(images, *words, **options):
        made.append(len(images))
        return corrupt(images, *words, **options)

    monkeypatch.setattr("pipeline.conditions.corrupt", counting)
    chunks = stored_chunks({"cars": images}, 0, "cifar")("cars", "contrast", 1)
    assert made == []
    next(chunks)
    assert made == [robustness.CHUNK] and robustness.CHUNK < COUNT


@pytest.mark.parametrize("room", [0, 1, 2, 4, None])
def test_whatever_is_kept_every_model_gets_its_own_weights(
    tiny_clip, models, head, images, room, monkeypatch
):
    """Against one model after the other on all images."""
    encoder, reads = tiny_clip.image_encoder(), []
    size = sum(weight.nbytes for weight in encoder.parameters())
    monkeypatch.setattr(robustness, "SHARE", 1.0)

    def read(key):
        reads.append(key)
        return models[key]

    budget = None if room is None else (room + 0.5) * size / 1e9
    encoders = Encoders(encoder, read, budget)
    chunks = stored_chunks({"cars": images}, 0, "cifar")
    for keys in ((0, 1, 2), (0, 3, 2), (3,)):
        found = classify(encoders, keys, chunks("cars", "contrast", 5), head, 20.0, labels())
        whole = corrupt(images, "contrast", 5, scale="cifar")
        for key, correct in zip(keys, found, strict=True):
            alone = tiny_clip.image_encoder().load(models[key], "test")
            wanted = predict(alone, head, 20.0, whole, labels()).correct
            assert np.array_equal(correct, wanted)
    steps = -(-COUNT // robustness.CHUNK)
    assert steps > 1
    if room in (4, None):
        assert sorted(reads) == [0, 1, 2, 3]
    if room == 0:
        assert len(reads) >= 6 * steps


def test_a_model_that_is_needed_no_more_gives_way(tiny_clip, models, monkeypatch):
    encoder, reads = tiny_clip.image_encoder(), []
    size = sum(weight.nbytes for weight in encoder.parameters())
    monkeypatch.setattr(robustness, "SHARE", 1.0)
    encoders = Encoders(encoder, lambda key: reads.append(key) or models[key], 2.5 * size / 1e9)
    for key, used in ((0, (0, 1)), (1, (0, 1)), (2, (1, 2)), (1, (1, 2)), (2, (1, 2))):
        held = encoders.get(key, used).weights()
        assert all(torch.equal(held[name], tensor) for name, tensor in models[key].items())
    assert reads == [0, 1, 2]


def test_images_in_any_order_find_their_labels(tiny_clip, models, head, images):
    encoders = Encoders(tiny_clip.image_encoder(), models.__getitem__)
    rows = np.random.default_rng(0).permutation(COUNT)
    mixed = ((part, images[part]) for part in np.array_split(rows, 7))
    found = classify(encoders, [1], mixed, head, 20.0, labels())
    straight = iter([(np.arange(COUNT), images)])
    assert np.array_equal(found, classify(encoders, [1], straight, head, 20.0, labels()))
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("rows", [np.arange(COUNT - 1), np.r_[np.arange(COUNT), 0:1]])
def test_images_that_are_left_out_or_come_twice_are_refused(tiny_clip, models, head, images, rows):
    encoders = Encoders(tiny_clip.image_encoder(), models.__getitem__)
    parts = ((part, images[part]) for part in np.array_split(rows, 4))
    with pytest.raises(ValueError, match="every image once"):
        classify(encoders, [0], parts, head, 20.0, labels())
