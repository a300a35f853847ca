"""A sheet with pictures of every class of a task, to see what the models are shown."""

from itertools import count

import numpy as np
from PIL import Image, ImageDraw

from pipeline.tasks.mini import TASKS, available, draw
from pipeline.tasks.mini.canvas import SIZE, font

_NAMES = 110  # width of the column of class names, in pixels
_GAP = 2  # between pictures, in pixels


def contact_sheet(task: str, split: str, seed: int, columns: int = 10) -> Image.Image:
    """The first `columns` pictures of every class of a split, one row per class."""
    rows = _first_of_each_class(task, split, seed, columns)
    pitch = SIZE + _GAP
    sheet = Image.new("RGB", (_NAMES + columns * pitch, len(rows) * pitch), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        middle = row * pitch + SIZE // 2
        pen.text((4, middle), name, font=font("DejaVuSans", 12), fill="black", anchor="lm")
        for column, pixels in enumerate(pictures):
            place = (_NAMES + column * pitch, row * pitch)
            sheet.paste(Image.fromarray(np.moveaxis(pixels, 0, -1)), place)
    return sheet


def _first_of_each_class(
    task: str, split: str, seed: int, columns: int
) -> dict[str, list[np.ndarray]]:
    most = available(task, split)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in TASKS[task].classes}
    for index in count() if most is None else range(most):
        if all(len(pictures) == columns for pictures in rows.values()):
            break
        pixels, label = draw(task, split, index, seed)
        row = rows[TASKS[task].classes[label]]
        if len(row) < columns:
            row.append(pixels)
    return rows
