"""The scale of AdaMerging's robustness table: 32-pixel constants at severity 2, any native size."""

from io import BytesIO

import numpy as np
import pytest
from corruption_oracle import scenes
from PIL import Image

from pipeline.corruptions import COLLAPSES, CORRUPTIONS, corrupt
from pipeline.errors import UserError

PUBLISHED = {
    "motion_blur": (6, 1.5),
    "impulse_noise": 0.02,
    "gaussian_noise": 0.06,
    "pixelate": 0.9,
    "spatter": (0.65, 0.1, 0.8, 0.7, 0.5, 0),
    "contrast": 0.5,
    "jpeg_compression": 65,
}


def native(height: int, width: int) -> np.ndarray:
    """One image of that size, uint8 `[1, 3, height, width]`."""
    return scenes(1, max(height, width))[:, :, :height, :width]


def test_an_image_too_wide_for_jpeg_is_refused():
    wide = np.zeros((1, 3, 1, 65_501), np.uint8)
    with pytest.raises(UserError, match="65501 x 1 pixels has no JPEG"):
        corrupt(wide, "jpeg_compression", 2, scale="adamerging")


def test_constants_of_the_published_robustness_table():
    used = {name: CORRUPTIONS[name].constants["cifar"][1] for name in PUBLISHED}
    assert used == PUBLISHED


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("sides", [(64, 64), (47, 130), (300, 200), (9, 5), (1, 1)])
def test_it_is_severity_2_of_32_pixels_on_images_of_any_size(name, sides):
    image = native(*sides)
    made = corrupt(image, name, 2, scale="adamerging", indices=[5])
    if name == "pixelate":
        assert made.shape == (1, 3, 32, 32)
    else:
        assert (made == corrupt(image, name, 2, scale="cifar", indices=[5])).all()


@pytest.mark.parametrize("sides", [(64, 64), (47, 130), (300, 200), (20, 24), (1, 1)])
def test_pixelate_leaves_32_pixels_whatever_there_were(sides):
    """As the published script: 28 pixels, then 32, both with Pillow's box filter."""
    image = native(*sides)
    assert COLLAPSES == {("adamerging", "pixelate"): (32, 32)}
    picture = Image.fromarray(image[0].transpose(1, 2, 0))
    expected = picture.resize((28, 28), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    made = corrupt(image, "pixelate", 2, scale="adamerging")
    assert (made[0].transpose(1, 2, 0) == np.asarray(expected)).all()


def test_images_of_no_pictures_collapse_as_well():
    none = np.empty((0, 3, 50, 60), np.uint8)
    assert corrupt(none, "pixelate", 2, scale="adamerging").shape == (0, 3, 32, 32)


def test_a_rectangle_is_compressed_as_it_is():
    image = native(50, 90)
    file = BytesIO()
    Image.fromarray(image[0].transpose(1, 2, 0)).save(file, "JPEG", quality=65)
    made = corrupt(image, "jpeg_compression", 2, scale="adamerging")
    assert (made[0].transpose(1, 2, 0) == np.asarray(Image.open(file))).all()
