"""Image corruptions of the ImageNet-C family for batches of uint8 images.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, https://arxiv.org/abs/1903.12261. Definitions and constants are theirs (Apache-2.0),
for three image sizes: `imagenet` (224 pixels), `tiny` (64) and `cifar` (32).

    corrupted = corrupt(images, "motion_blur", severity=3, indices=indices)

`adamerging` is how the table of AdaMerging (https://arxiv.org/abs/2310.02575) was made: the
constants for 32 pixels at severity 2 on images of any size. Its pixelated images are 32 x 32
pixels whatever they were before: see `COLLAPSES`.

A corruption is a function `(images, generators, constant) -> images` with one random generator per
image and the constant of a severity. `CORRUPTIONS` holds each with its constants; its module, and
NumPy, are imported when it is first applied.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any
from zlib import crc32

from pipeline.corruptions.table import CONSTANTS
from pipeline.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

SCALES = ("imagenet", "tiny", "cifar", "adamerging")
SEVERITIES = (1, 2, 3, 4, 5)

# What the scale `adamerging` stands for.
PUBLISHED_SCALE, PUBLISHED_SEVERITY = "cifar", 2

# (scale, corruption) -> (height, width) of what it returns. The published script resizes to 28 and
# then 32 pixels what it takes for a CIFAR image, and so the column says how models see images of 32
# pixels, stretched where they were not square, rather than how they bear coarse pixels.
COLLAPSES = {("adamerging", "pixelate"): (32, 32)}

# Pixels handled at a time: bounds the temporary arrays to some tens of megabytes.
CHUNK_PIXELS = 1 << 18

# Added before fractions are cut off, so that summation error costs no whole intensity.
HAIR = 1 / 512


@dataclass(frozen=True)
class Corruption:
    """A corruption and what it is called with.

    `apply(images, generators, constant)` takes uint8 `[N, 3, H, W]`, N generators and one of the
    constants; it returns a new array `[N, 3, H, W]` of uint8 or float32, on the scale of 0 to 255.
    `constants[scale]` holds one constant per severity. One that is not `random` needs no
    generators.
    """

    name: str
    module: str
    constants: Mapping[str, Sequence[Any]]
    random: bool

    @property
    def apply(self) -> Callable[..., "np.ndarray"]:
        """The function, from this package's module."""
        return getattr(import_module(f"{__name__}.{self.module}"), self.name)


# The seven of AdaMerging's table come first, then the others of ImageNet-C in its order.
_MODULES = {
    "motion_blur": "blur",
    "impulse_noise": "noise",
    "gaussian_noise": "noise",
    "pixelate": "digital",
    "spatter": "spatter",
    "contrast": "color",
    "jpeg_compression": "digital",
    "shot_noise": "noise",
    "defocus_blur": "blur",
    "glass_blur": "glass",
    "zoom_blur": "blur",
    "snow": "weather",
    "frost": "weather",
    "fog": "weather",
    "brightness": "color",
    "elastic_transform": "warp",
    "speckle_noise": "noise",
    "gaussian_blur": "blur",
    "saturate": "color",
}
_EXACT = {"pixelate", "contrast", "jpeg_compression", "defocus_blur", "zoom_blur"}
_EXACT |= {"brightness", "gaussian_blur", "saturate"}
CORRUPTIONS: dict[str, Corruption] = {
    name: Corruption(name, module, CONSTANTS[name], name not in _EXACT)
    for name, module in _MODULES.items()
}


def corrupt(
    images: "np.ndarray",
    name: str,
    severity: int,
    *,
    indices: "Sequence[int] | np.ndarray | None" = None,
    seed: int = 0,
    scale: str = "imagenet",
) -> "np.ndarray":
    """Corrupt `images`, uint8 `[N, 3, H, W]` in RGB; returns a new array of the same kind.

    It has the same shape as well, but for what `COLLAPSES` lists. Image i draws from a generator
    seeded by (`seed`, `name`, `severity`, `indices[i]`), so that its pixels depend neither on the
    rest of the batch nor on the order. `indices` defaults to 0, 1, ..., N - 1; give the position in
    the data set where a batch is only a part of it. `severity` runs from 1 to 5 (2 alone for
    `adamerging`) and `scale` picks the constants made for an image size.

    Raises `UserError` on an unknown name or scale, and on arguments of the wrong kind.
    """
    import numpy as np

    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if scale not in SCALES:
        raise unknown("corruption scale", scale, SCALES)
    check_severity(severity, scale)
    _check(images, seed)
    indices = _checked_indices(indices, len(images))

    corruption, options = CORRUPTIONS[name], {}
    constants = corruption.constants[PUBLISHED_SCALE if scale == "adamerging" else scale]
    sides = COLLAPSES.get((scale, name))
    if sides:
        options = {"sides": sides}
    corrupted = np.empty((*images.shape[:2], *(sides or images.shape[2:])), np.uint8)
    if not images.size:
        return corrupted
    chunk = max(1, CHUNK_PIXELS // images[0, 0].size)
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        generators = [
            np.random.default_rng((seed, crc32(name.encode()), severity, index))
            for index in indices[part]
            if corruption.random
        ]
        result = corruption.apply(images[part], generators, constants[severity - 1], **options)
        if result.dtype != np.uint8:
            # ImageNet-C stores whole intensities by cutting off the fraction.
            result += np.float32(HAIR)
            np.clip(result, 0, 255, out=result)
        corrupted[part] = result
    return corrupted


def check_severity(severity: int, scale: str) -> None:
    """Raise `UserError` unless there is such a severity at that scale."""
    if isinstance(severity, bool) or not hasattr(severity, "__index__"):
        found = False
    else:
        found = severity in SEVERITIES
    if not found:
        raise UserError(f"Severity {severity!r} does not exist: choose a whole number from 1 to 5.")
    if scale == "adamerging" and severity != PUBLISHED_SEVERITY:
        raise UserError(
            f"Severity {severity} does not exist at the scale 'adamerging', whose table was made "
            f"at {PUBLISHED_SEVERITY}: choose that, or another scale ({', '.join(SCALES[:-1])})."
        )


def _check(images: "np.ndarray", seed: int) -> None:
    import numpy as np

    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise UserError(
            f"Images to corrupt must be a NumPy array of uint8, found {found}. "
            "Corrupt the stored images, before they are scaled and normalized."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"Images to corrupt must have the shape [N, 3, H, W], found {list(images.shape)}. "
            "Put the channels before height and width, and give gray images three equal channels."
        )
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"Seed {seed!r} cannot be used: choose a whole number from 0.")


def _checked_indices(indices: "Sequence[int] | np.ndarray | None", count: int) -> "np.ndarray":
    """`indices` as int64 `[count]`."""
    import numpy as np

    found = np.arange(count) if indices is None else np.asarray(indices)
    if found.shape != (count,):
        raise UserError(
            f"{count} images were given with indices of the shape {list(found.shape)}: "
            "give one index per image."
        )
    if count and (not np.issubdtype(found.dtype, np.integer) or found.min() < 0):
        raise UserError(
            "Indices of images must be whole numbers from 0: "
            "give the position of each image in its data set."
        )
    return found
