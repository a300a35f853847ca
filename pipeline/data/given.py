"""Images that a user names on the command line: files, and folders of them."""

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline.data.decoding import BrokenImage, preprocessed
from pipeline.data.folders import ENDINGS, IGNORED
from pipeline.errors import UserError


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, whatever they are, and all images in folders that are.

    Of a folder in the order of their paths and at any depth: files whose ending is of an image, but
    for hidden ones. Links to folders are not followed. Raises `UserError` for what is not there,
    and for a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        if os.path.isdir(path):
            held = sorted(_below(path))
            if not held:
                raise UserError(
                    f"{path} holds no image: none of its files ends in "
                    f"{', '.join(sorted(ENDINGS))}. Name another folder, or the files."
                )
            found += held
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise UserError(f"There is no {path}: name an image, or a folder of images.")
    return found


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if _counts(name)]
        yield from (
            Path(place, name)
            for name in files
            if _counts(name) and Path(name).suffix.lower() in ENDINGS
        )


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in IGNORED


def pixels_of(path: Path, size: int) -> np.ndarray:
    """What a model with images of that size sees of a file, uint8 [3, size, size].

    As `pipeline.data.decoding.preprocessed`; raises `BrokenImage` also for what cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenImage(error.strerror or type(error).__name__) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of what it reads all the same
        return preprocessed(content, size)
