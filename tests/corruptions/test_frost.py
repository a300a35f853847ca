"""Frost: pictures like those of ImageNet-C, laid over images of every size."""

import numpy as np
import pytest
from corruption_oracle import oracle, scenes

from pipeline.corruptions import CORRUPTIONS, corrupt
from pipeline.corruptions.ice import PICTURES, SIDES, crop, drawn, picture_sides, scaled


@pytest.mark.parametrize("number", range(PICTURES))
def test_pictures_are_as_bright_as_the_published_ones(number):
    picture = drawn(number).astype(float)
    red, green, blue, mean, deviation = oracle()["frost"][number]
    assert np.abs(picture.mean(axis=(1, 2)) - (red, green, blue)).max() < 5
    assert picture.mean() == pytest.approx(mean, abs=5)
    assert picture.mean(axis=0).std() == pytest.approx(deviation, rel=0.25)


def test_pictures_are_always_the_same():
    first = drawn(3).copy()
    drawn.cache_clear()
    assert (drawn(3) == first).all()
    assert (drawn(3) != drawn(4)).any()


def test_detail_has_edges_in_many_directions():
    """Crystals, not noise: gradients are heavy-tailed, as in photographs of frost."""
    for number in range(1, PICTURES):
        down, across = np.gradient(drawn(number).mean(axis=0))
        strength = np.hypot(down, across)
        assert np.percentile(strength, 99) > 3 * np.median(strength)
        turned = np.histogram(np.arctan2(down, across)[strength > np.median(strength)], 8)[0]
        assert turned.min() > 0.4 * turned.max()


@pytest.mark.parametrize("scale", ["imagenet", "tiny", "cifar"])
@pytest.mark.parametrize("size", [32, 64, 224, 500])
def test_an_image_gets_a_crop_of_a_picture(scale, size):
    image = scenes(1, size)
    share, weight, zoom = CORRUPTIONS["frost"].constants[scale][0]
    frosty = corrupt(image, "frost", 1, scale=scale)[0].astype(float)
    ice = (frosty - share * image[0]) / weight
    seen = (frosty > 0) & (frosty < 255)
    picture_means = [scaled(n, zoom).mean() for n in range(PICTURES)]
    assert min(abs(ice[seen].mean() - mean) for mean in picture_means) < 40
    assert ice[seen].min() > -1 / weight
    assert ice[seen].max() < 256


def test_a_picture_is_enlarged_for_an_image_that_it_does_not_cover():
    assert picture_sides(224, 224, 1) == SIDES
    assert picture_sides(32, 32, 0.2) == (96, 144)
    for height, width in [(480, 100), (100, 720), (2000, 3000), (5, 4000)]:
        tall, wide = picture_sides(height, width, 0.2)
        assert tall > height
        assert wide > width
        assert tall / wide == pytest.approx(SIDES[0] / SIDES[1], rel=0.02)
    sides = picture_sides(960, 1440, 1)
    part = crop(2, 1, sides, (50, 100), (960, 1440))
    assert part.shape == (3, 960, 1440)
    # What is enlarged looks the same from afar.
    factor = sides[0] / SIDES[0]
    rows = ((50 + np.arange(960)) / factor).astype(int)
    columns = ((100 + np.arange(1440)) / factor).astype(int)
    assert np.abs(part - drawn(2)[:, rows[:, None], columns].astype(float)).mean() < 8
