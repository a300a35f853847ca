"""Pictures of odd kinds on their whole way, from parquet files and from folders, to stored pixels.

Each is stored as open_clip's own preprocessing sees it, or refused by its name.
"""

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import as_open_clip, encoded, jpeg, picture
from PIL import Image, ImageOps

from pipeline.data.decoding import Target, decode
from pipeline.data.folders import read_folder
from pipeline.data.shards import Shards
from pipeline.errors import UserError

SIZE = 24
pytestmark = [
    pytest.mark.filterwarnings("ignore:Palette images with Transparency"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(60, 40), "JPEG", exif=exif)


def animated(kind):
    first, *others = (picture(40, 30, seed=seed) for seed in range(3))
    return encoded(first, kind, save_all=True, append_images=others)


def large(width, height):
    """A PNG of so many white pixels in a few kilobytes, made a row at a time."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


TAKEN = {  # name of a file -> its content
    "gray.png": encoded(picture(50, 37, mode="L")),
    "gray.jpg": encoded(picture(50, 37, mode="L"), "JPEG"),
    "gray-alpha.png": encoded(picture(50, 37, mode="LA")),
    "black-and-white.png": encoded(picture(50, 37, mode="1")),
    "palette.png": encoded(picture(50, 37, mode="P")),
    "palette.gif": encoded(picture(50, 37, mode="P"), "GIF"),
    "transparent-palette.png": encoded(picture(50, 37, mode="P"), transparency=bytes(range(256))),
    "alpha.png": encoded(picture(50, 37, mode="RGBA")),
    "cmyk.jpg": encoded(picture(50, 37, mode="CMYK"), "JPEG"),
    "cmyk.tif": encoded(picture(50, 37, mode="CMYK"), "TIFF"),
    "16-bit.png": encoded(picture(50, 37, mode="I;16")),
    "16-bit.tif": encoded(picture(50, 37, mode="I;16"), "TIFF"),
    "animated.gif": animated("GIF"),
    "animated.webp": animated("WEBP"),
    "one-pixel.png": encoded(picture(1, 1)),
    "one-pixel.jpg": encoded(picture(1, 1), "JPEG"),
    "one-pixel-wide.png": encoded(picture(1, 400)),
    "10,000-pixels.png": large(10_000, 10_000),
    "10,000-by-one.png": encoded(picture(10_000, 1)),
    **{f"orientation-{n}.jpg": rotated(n) for n in (3, 6, 8)},
}
REFUSED = {  # name of a file -> its content, why
    "truncated.jpg": (jpeg(width=200)[:1500], "image file is truncated"),
    "truncated.png": (encoded(picture(50, 37))[:800], "truncated|broken|Truncated"),
    "truncated.webp": (encoded(picture(200, 100), "WEBP")[:200], ""),
    "truncated.gif": (encoded(picture(50, 37, mode="P"), "GIF")[:900], "truncated|broken"),
    "empty.png": (b"", "no image of a known format"),
    "page.jpg": (b"<html>404 Not Found</html>", "no image of a known format"),
    "bomb.png": (large(20_000, 9_000), "unfolds to more than the 178,956,970 pixels"),
    "thread.png": (large(1, 300_000), "1 x 300000 pixels are too narrow"),
}
READ_OTHERWISE = {"orientation-3.jpg", "orientation-6.jpg", "orientation-8.jpg"}


def from_parquet(folder, contents):
    """A source of these pictures, and what messages call row k."""
    path = folder / "data" / "test-00000-of-00001.parquet"
    path.parent.mkdir()
    images = pa.array([{"bytes": content, "path": None} for content in contents.values()])
    pq.write_table(pa.table({"image": images, "label": [0] * len(contents)}), path)
    shards = Shards([path], "image", "label")
    names = [f"data/{path.name} row {row}" for row in range(len(contents))]
    return shards.images(np.arange(1)), names


def from_folder(folder, contents):
    for kind in ("one", "other"):
        (folder / "photos" / kind).mkdir(parents=True)
    for name, content in contents.items():
        (folder / "photos" / "one" / name).write_bytes(content)
    (folder / "photos" / "other" / "z.png").write_bytes(encoded(picture()))
    found = read_folder(folder / "photos", None, "mine")
    assert [path.name for path in found.files[:-1]] == sorted(contents)
    return found.images(), [str(folder / "photos" / "one" / name) for name in contents]


SOURCES = {"parquet": from_parquet, "folder": from_folder}


@pytest.mark.parametrize("source", SOURCES)
def test_stored_as_open_clip_sees_them(tmp_path, source):
    contents = dict(sorted(TAKEN.items()))
    images, _ = SOURCES[source](tmp_path, contents)
    target = Target(np.arange(len(contents)), tmp_path / "images.npy", None)
    decode(images, [target], SIZE, 2, lambda done: None)
    stored = np.load(target.images)
    for (name, content), pixels in zip(contents.items(), stored, strict=True):
        assert np.array_equal(pixels, as_open_clip(content, SIZE)), name


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(tmp_path, source, name):
    content, reason = REFUSED[name]
    contents = {"a.png": TAKEN["gray.png"], name: content}
    images, names = SOURCES[source](tmp_path, contents)
    target = Target(np.arange(2), tmp_path / "images.npy", tmp_path / "labels.npy")
    with pytest.raises(UserError) as error:
        decode(images, [target], SIZE, 1, lambda done: None)
    said = str(error.value)
    assert said.startswith(f"1 image is broken: {names[1]} (")
    assert said.endswith("). Fetch or copy the data again, or leave these out.")
    assert "\n" not in said and ".)" not in said
    assert any(word in said for word in reason.split("|"))
    assert not target.images.exists() and not target.labels.exists()


@pytest.mark.parametrize("name", sorted(READ_OTHERWISE))
def test_a_turned_photograph_would_be_another_image(name):
    """open_clip does not apply an EXIF orientation, and neither is it applied here."""
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(TAKEN[name])))
    assert not np.array_equal(as_open_clip(TAKEN[name], SIZE), as_open_clip(encoded(turned), SIZE))
