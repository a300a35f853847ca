"""Draw docs/images/corruptions.png: a photograph under every corruption at severities 1, 3 and 5.

    python -m benchmarks.corruption_sheet

`make readme` does so. The photograph is china.jpg of the package scikit-learn.
"""

from pathlib import Path

import numpy as np
import typer
from PIL import Image, ImageDraw

from stages._progress import say

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "corruptions.png"
SEVERITIES = (1, 3, 5)
SIDE = 224  # pixels, for which the constants are made
SHOWN, GAP, TITLE = 84, 2, 17  # pixels on the sheet: of an image, between two, of a name
BLOCKS, BETWEEN = 2, 12  # corruptions side by side, pixels between them


def main() -> None:
    """Draw and write."""
    from pipeline.files import replacing

    with replacing(PICTURE) as temporary:
        contact_sheet(photograph()).save(temporary, format="PNG", optimize=True)
    say(f"{PICTURE.name}: written")


def photograph() -> np.ndarray:
    """The middle of china.jpg, uint8 `[3, SIDE, SIDE]`."""
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("china.jpg"))
    width, height = image.size
    left = (width - height) // 2
    middle = image.crop((left, 0, left + height, height))
    small = middle.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def contact_sheet(photo: np.ndarray) -> Image.Image:
    """Every corruption of uint8 `[3, H, W]`, and last the photograph as it is."""
    from pipeline.corruptions import CORRUPTIONS, corrupt

    cells = {
        # As three images of a data set, so that random parts differ.
        name: [corrupt(photo[None], name, level, indices=[level])[0] for level in SEVERITIES]
        for name in CORRUPTIONS
    }
    return arranged({**cells, "none": [photo]})


def arranged(cells: dict[str, list[np.ndarray]]) -> Image.Image:
    """Images in rows below their titles, `BLOCKS` titles side by side."""
    from pipeline.tasks.mini.canvas import font

    wide = len(SEVERITIES) * (SHOWN + GAP) + BETWEEN
    tall = SHOWN + GAP + TITLE
    rows = -(-len(cells) // BLOCKS)
    sheet = Image.new("RGB", (BLOCKS * wide - BETWEEN - GAP, rows * tall), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, images) in enumerate(cells.items()):
        column, row = divmod(place, rows)
        left, top = column * wide, row * tall
        pen.text((left, top + 2), title, font=font("DejaVuSans", 12), fill="black")
        for number, pixels in enumerate(images):
            picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            small = picture.resize((SHOWN, SHOWN), Image.Resampling.BOX)
            sheet.paste(small, (left + number * (SHOWN + GAP), top + TITLE))
    return sheet


if __name__ == "__main__":
    typer.run(main)
