"""Pixels against imagecorruptions and the published formulas, given the same random numbers."""

import numpy as np
import pytest
from corruption_oracle import DETERMINISTIC, MAKER, Given, cut, oracle, sampled

from pipeline.corruptions import CORRUPTIONS, SEVERITIES, corrupt

GIVEN = MAKER["drawn_scene"](*MAKER["GIVEN"])[None]
# Share of the values that may be a level or more away: where values are cut to whole levels on the
# way, rounding in the last place can show.
SPARE = {"spatter": 0.005, "snow": 0.005}


def ours(name: str, severity: int, scale: str = "imagenet", constant: object = None) -> np.ndarray:
    """What the function makes of the scene with the given numbers, before it is cut."""
    corruption = CORRUPTIONS[name]
    constant = corruption.constants[scale][severity - 1] if constant is None else constant
    return sampled(corruption.apply(GIVEN, [Given(severity)], constant)[0])


@pytest.mark.parametrize("scale", MAKER["SIZES"])
@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
@pytest.mark.parametrize("severity", SEVERITIES)
def test_deterministic_ones_are_equal_at_every_scale(name, scale, severity):
    """Equal once cut but where the exact value is whole, and summation decides for the package."""
    image = MAKER["drawn_scene"](*MAKER["SIZES"][scale])[None]
    made = sampled(corrupt(image, name, severity, scale=scale)[0])
    expected = oracle()[f"exact/{scale}/{name}"][severity - 1]
    clear = np.abs(expected - np.rint(expected)) > 0.005
    assert (made == cut(expected))[clear].all()
    assert np.abs(made - np.rint(expected))[~clear].max(initial=0) <= 1
    # Stored values are what was computed, cut: never above, and less than a level below.
    assert (made - expected).max() < 0.01
    assert (made - expected).min() > -1.01


@pytest.mark.parametrize("name", [name for name in MAKER["FIELDS"] if name != "glass_blur"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_random_ones_are_equal_given_the_same_numbers(name, severity):
    expected = oracle()[f"given/{name}"][severity - 1]
    apart = np.abs(ours(name, severity) - expected)
    assert (apart > 0.02).mean() <= SPARE.get(name, 0)
    assert np.abs(cut(ours(name, severity)) - cut(expected)).mean() < 0.02


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_blur_is_equal_but_where_the_package_loses_levels(severity):
    """It cuts the blurred image, where summation takes whole levels of flat areas down by one."""
    apart = ours("glass_blur", severity) - oracle()["given/glass_blur"][severity - 1]
    assert apart.min() > -0.001
    assert apart.max() < 1.001
    assert (apart > 0.02).mean() < 0.4


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_field_is_the_package_s_with_its_constants(severity):
    """It has no affine part, and another strength: 250 times these, of 0.5 % of a side."""
    side = GIVEN.shape[-1]
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1] * 0.005 * side
    made = ours("elastic_transform", severity, constant=(strength, 0.01 * side, 0))
    expected = oracle()["given/elastic_transform"][severity - 1]
    assert np.abs(made - expected).max() < 0.05


@pytest.mark.parametrize("scale", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_transform_is_the_published_one(scale, severity):
    """OpenCV places pixels of the affine part to a 32nd."""
    made = ours("elastic_transform", severity, scale)
    expected = oracle()[f"given/published_elastic/{scale}"][severity - 1]
    steepest = np.abs(np.diff(GIVEN.astype(int), axis=-1)).max() / 32
    assert np.abs(made - expected).max() < steepest
    assert np.abs(made - expected).mean() < 0.5
