"""What every corruption keeps: independence of the batch, seeds, severities, shapes, messages."""

import subprocess
import sys

import numpy as np
import pytest
from corruption_oracle import DETERMINISTIC, RANDOM, scenes

from pipeline.corruptions import CORRUPTIONS, SCALES, SEVERITIES, corrupt
from pipeline.errors import UserError

KEEP_FLAT = {"motion_blur", "zoom_blur", "gaussian_blur", "glass_blur", "elastic_transform"}


def change(images: np.ndarray, name: str, severity: int, scale: str) -> float:
    corrupted = corrupt(images, name, severity, scale=scale)
    return np.abs(corrupted.astype(float) - images).mean()


def test_all_of_imagenet_c_have_five_severities_at_every_scale():
    assert list(CORRUPTIONS)[:7] == [
        "motion_blur",
        "impulse_noise",
        "gaussian_noise",
        "pixelate",
        "spatter",
        "contrast",
        "jpeg_compression",
    ]
    assert len(CORRUPTIONS) == 19
    for name, corruption in CORRUPTIONS.items():
        assert corruption.apply.__name__ == name
        assert corruption.random == (name not in DETERMINISTIC)
        assert corruption.constants.keys() == set(SCALES) - {"adamerging"}
        assert all(len(constants) == 5 for constants in corruption.constants.values())


def test_names_are_known_without_importing_numpy_or_torch():
    code = "import sys, pipeline.corruptions; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"numpy", "torch", "scipy", "PIL"} & set(done.stdout.split())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_pixels_depend_on_the_index_and_not_on_the_batch(name, severity, monkeypatch):
    images = scenes(12)
    before = images.copy()
    indices = np.arange(100, 112)
    whole = corrupt(images, name, severity, indices=indices, seed=3)
    assert whole.dtype == np.uint8
    assert whole.shape == images.shape
    assert (images == before).all()

    order = np.random.default_rng(0).permutation(12)[:7]
    part = corrupt(images[order], name, severity, indices=list(indices[order]), seed=3)
    assert (part == whole[order]).all()
    monkeypatch.setattr("pipeline.corruptions.CHUNK_PIXELS", 5 * 32 * 32)
    assert (corrupt(images, name, severity, indices=indices, seed=3) == whole).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_large_image_alone_is_as_in_a_batch(name):
    images = scenes(3, 100)
    whole = corrupt(images, name, 3)
    assert (corrupt(images[2:], name, 3, indices=[2]) == whole[2:]).all()


@pytest.mark.parametrize("name", RANDOM)
def test_seeds_and_indices_draw_anew(name):
    images = np.repeat(scenes(1), 8, axis=0)
    first = corrupt(images, name, 5)
    assert (first == corrupt(images, name, 5, indices=range(8))).all()
    others = [np.roll(first, 1, axis=0), corrupt(images, name, 5, seed=1)]
    for other in others:
        # Motion runs in whole pixels, so that two near angles may blur alike.
        assert (first != other).any(axis=(1, 2, 3)).sum() >= 6


def test_severities_draw_anew():
    images = scenes(1)
    hit = [corrupt(images, "impulse_noise", severity) != images for severity in (4, 5)]
    assert (hit[0] & ~hit[1]).any()


@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
def test_deterministic_corruptions_ignore_the_seed(name):
    images = scenes(3)
    assert (corrupt(images, name, 3) == corrupt(images, name, 3, seed=9, indices=[7, 8, 9])).all()


@pytest.mark.parametrize(("scale", "size", "count"), [("cifar", 32, 100), ("imagenet", 128, 8)])
@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - {"saturate", "elastic_transform"}))
def test_severity_moves_away_from_the_original(name, scale, size, count):
    images = scenes(count, size)
    changes = [change(images, name, severity, scale) for severity in SEVERITIES]
    if name == "spatter" and scale == "cifar":  # from water to mud at severity 4
        assert 0 < changes[0] < changes[1] < changes[2]
        assert changes[3] < changes[4]
    elif name in {"glass_blur", "fog", "frost", "pixelate"}:
        # Of their published constants some go up and others down from severity to severity.
        assert 0 < changes[0] < min(changes[2:])
    else:
        assert changes[0] > 0 or name == "defocus_blur"  # of 0.3 pixels: less than a level
        assert changes == sorted(changes)


def test_severities_of_saturate_drain_and_then_stretch():
    images = scenes(4, 64)
    spread = [np.ptp(images, axis=1).mean()]
    spread += [np.ptp(corrupt(images, "saturate", s), axis=1).mean() for s in SEVERITIES]
    clean, little, less, more, much, most = spread
    assert less < little < clean < more < much < most


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_extreme_images_and_sizes(name):
    for value in (0, 255):
        flat = np.full((2, 3, 40, 24), value, np.uint8)
        corrupted = corrupt(flat, name, 5)
        assert corrupted.shape == flat.shape
        if name in KEEP_FLAT | {"pixelate", "jpeg_compression", "contrast"}:
            assert np.abs(corrupted.astype(int) - value).max() <= (name == "jpeg_compression")
    assert corrupt(np.empty((0, 3, 32, 32), np.uint8), name, 1).shape == (0, 3, 32, 32)
    for sides in [(1, 1), (1, 7), (5, 2), (33, 1)]:
        for scale in ("imagenet", "cifar"):
            small = np.full((1, 3, *sides), 9, np.uint8)
            assert corrupt(small, name, 5, scale=scale).shape == small.shape


@pytest.mark.parametrize("name", sorted(KEEP_FLAT))
def test_blurs_keep_flat_areas_to_the_level(name):
    flat = np.arange(256, dtype=np.uint8).repeat(3 * 24 * 20).reshape(256, 3, 24, 20)
    assert (corrupt(flat, name, 3) == flat).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((scenes(2), "spater", 1), {}, "corruption 'spater'. Did you mean spatter"),
        ((scenes(2), "fogg", 1), {}, "corruption 'fogg'. Did you mean fog"),
        ((scenes(2), "contrast", 1), {"scale": "cifr"}, "Did you mean cifar"),
        ((scenes(2) / 255, "contrast", 1), {}, "uint8, found float64"),
        (([[0]], "contrast", 1), {}, "uint8, found list"),
        ((scenes(2)[0], "contrast", 1), {}, r"\[N, 3, H, W\], found \[3, 32, 32\]"),
        ((scenes(2)[:, :1], "contrast", 1), {}, r"found \[2, 1, 32, 32\]"),
        ((scenes(2), "contrast", 0), {}, "Severity 0"),
        ((scenes(2), "contrast", 6), {}, "Severity 6"),
        ((scenes(2), "contrast", 2.0), {}, "Severity 2.0"),
        ((scenes(2), "contrast", True), {}, "Severity True"),
        ((scenes(2), "contrast", "2"), {}, "Severity '2'"),
        ((scenes(2), "contrast", 3), {"scale": "adamerging"}, "'adamerging'.* made at 2"),
        ((scenes(2), "contrast", 6), {"scale": "adamerging"}, "Severity 6"),
        ((scenes(2), "contrast", 1), {"seed": -1}, "Seed -1"),
        ((scenes(2), "contrast", 1), {"indices": [0]}, "one index per image"),
        ((scenes(2), "contrast", 1), {"indices": [0, -1]}, "whole numbers from 0"),
        ((scenes(2), "contrast", 1), {"indices": [0, 0.5]}, "whole numbers from 0"),
    ],
)
def test_wrong_arguments_are_explained(arguments, options, message):
    with pytest.raises(UserError, match=message):
        corrupt(*arguments, **options)
