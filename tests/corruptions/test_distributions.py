"""Random corruptions in distribution: against imagecorruptions, and against known laws."""

from types import SimpleNamespace

import numpy as np
import pytest
from corruption_oracle import MAKER, oracle, scenes
from scipy import stats

from pipeline.corruptions import CORRUPTIONS, SEVERITIES, corrupt


@pytest.mark.parametrize("name", MAKER["RANDOM"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_distribution_matches_imagecorruptions(name, severity):
    """Change, spectrum and direction agree within five standard errors over random draws."""
    before, draws = MAKER["static"](), 12
    images = np.repeat(before[None], draws, axis=0)
    corrupted = corrupt(images, name, severity, scale="imagenet")
    rows = [MAKER["statistics"](before, after) for after in corrupted]
    expected, error = oracle()[f"random/{name}"][severity - 1]
    error = np.hypot(error, np.std(rows, axis=0, ddof=1) / np.sqrt(draws))
    np.testing.assert_array_less(np.abs(np.mean(rows, axis=0) - expected), 5 * error + 1e-3)


@pytest.mark.parametrize("scale", ["imagenet", "tiny", "cifar"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_photons(scale, severity):
    """Chi-square of 100,000 draws per value against Poisson's law."""
    photons = CORRUPTIONS["shot_noise"].constants[scale][severity - 1]
    for value in (0, 7, 100, 254, 255):
        images = np.full((1, 3, 200, 170), value, np.uint8)
        drawn = corrupt(images, "shot_noise", severity, scale=scale, seed=value)
        found = np.bincount(drawn.ravel(), minlength=256)
        counts = np.arange(photons)
        expected = np.zeros(256)
        levels = (counts * 255 / photons + 1e-6).astype(int)
        np.add.at(expected, levels, stats.poisson.pmf(counts, value * photons / 255))
        expected[255] += 1 - expected.sum()
        assert found[expected < 1e-12].sum() == 0
        common = expected * drawn.size > 5
        # What is rare counts as one.
        seen = [*found[common], found[~common].sum()]
        due = [*(drawn.size * expected[common]), drawn.size * expected[~common].sum()]
        if due[-1] < 5:
            seen, due = seen[:-1], due[:-1]
            assert found[~common].sum() < 40
            due = [share * sum(seen) / sum(due) for share in due]
        assert len(seen) == 1 or stats.chisquare(seen, due).pvalue > 1e-4


def test_gaussian_and_speckle_noise_have_their_deviation():
    for value in (110, 140):  # far from where noise is clipped
        flat = np.full((1, 3, 256, 256), value, np.uint8)
        for name, factor in (("gaussian_noise", 255), ("speckle_noise", value)):
            sigma = CORRUPTIONS[name].constants["cifar"][3] * factor
            noise = corrupt(flat, name, 4, scale="cifar") - (value - 0.5)  # cut, on average by 0.5
            assert noise.mean() == pytest.approx(0, abs=0.2)
            assert noise.std() == pytest.approx(sigma, rel=0.02)
            assert stats.kurtosis(noise.ravel()) == pytest.approx(0, abs=0.1)


def test_motion_trails_run_left_within_45_degrees():
    points = np.zeros((300, 3, 64, 64), np.uint8)
    points[:, :, 32, 48] = 255
    trails = corrupt(points, "motion_blur", 4, scale="imagenet")[:, 0]
    ends = [np.argwhere(trail)[np.argwhere(trail)[:, 1].argmin()] for trail in trails]
    rows, columns = (np.array(ends) - (32, 48)).T
    angles = np.rad2deg(np.arctan2(-rows, -columns))
    assert np.histogram(angles, bins=6, range=(-46, 46))[0].min() >= 30
    assert (np.abs(angles) < 46).all()


def test_spatter_without_a_drop_leaves_the_image():
    dry = SimpleNamespace(standard_normal=lambda shape, dtype: np.full(shape, -1, dtype))
    spatter = CORRUPTIONS["spatter"]
    images = scenes(2)
    for constant in spatter.constants["cifar"]:
        assert (spatter.apply(images, [dry, dry], constant) == images).all()


def test_glass_takes_pixels_one_after_the_other():
    """Against the loop itself, on images whose every pixel is another one."""
    from pipeline.corruptions.glass import _sources

    rng = np.random.default_rng(0)
    for height, width, reach in [(20, 17, 1), (24, 30, 4), (9, 9, 2), (8, 20, 4)]:
        inner = (height - 2 * reach, width - 2 * reach)
        moves = rng.integers(-reach, reach, (*inner, 2))
        expected = np.arange(height * width).reshape(height, width)
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = moves[h - reach - 1, w - reach - 1]
                expected[h, w] = expected[h + dy, w + dx]
        assert (_sources(moves, reach, height, width) == expected.ravel()).all()


def test_chamfer_lengths_are_the_shortest_paths():
    """Against Dijkstra over the steps of the mask."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    from pipeline.corruptions.spatter import _distance_to

    rng = np.random.default_rng(1)
    marks = rng.random((3, 30, 26)) < 0.004
    marks[1] = False
    marks[1, 3, 4] = True
    height, width = marks.shape[1:]
    row, column = np.indices((height, width)).reshape(2, -1)
    links = []
    for down in range(-2, 3):
        for aside in range(-2, 3):
            step = {(0, 1): 1, (1, 1): 1.4, (1, 2): 2.1969}.get(
                tuple(sorted((abs(down), abs(aside))))
            )
            to = (row + down, column + aside)
            inside = (to[0] >= 0) & (to[0] < height) & (to[1] >= 0) & (to[1] < width)
            if step:
                start = (row * width + column)[inside]
                end = (to[0] * width + to[1])[inside]
                links.append(np.stack([start, end, np.full(len(start), step)]))
    start, end, step = np.concatenate(links, axis=1)
    graph = coo_matrix((step, (start.astype(int), end.astype(int))), (height * width,) * 2).tocsr()
    for field, found in zip(marks, _distance_to(marks, 20), strict=True):
        paths = dijkstra(graph, indices=np.flatnonzero(field), min_only=True)
        expected = np.minimum(paths, 20).reshape(height, width)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (_distance_to(np.zeros((1, 5, 5), bool), 20) == 20).all()


def test_fog_brightens_most_and_keeps_the_brightest_value():
    images = scenes(6, 96)
    for severity in SEVERITIES:
        foggy = corrupt(images, "fog", severity)
        brightest = images.max(axis=(1, 2, 3))
        assert (foggy.max(axis=(1, 2, 3)) <= brightest).all()
        assert (foggy.std(axis=(1, 2, 3)) < images.std(axis=(1, 2, 3))).all()
