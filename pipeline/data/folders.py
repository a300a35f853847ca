"""A user's own images: a folder per class, `train` and `test` of such, or a list of files."""

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.decoding import Encoded
from pipeline.errors import MissingInput, UserError, unknown
from pipeline.files import sha256

JPEG, PLAIN = {".jpg", ".jpeg", ".jfif"}, {".bmp", ".ppm", ".pgm", ".pbm"}
ENDINGS = JPEG | PLAIN | {".png", ".webp", ".gif", ".tif", ".tiff"}
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}  # put there by systems, as hidden files are
TEST = ("test", "val", "valid", "validation")  # the first that is there is the test set
DIVISIONS = ("train", *TEST)


@dataclass(frozen=True)
class Folder:
    """Images of a task in the order of their files; label k means `names[k]`, put as `words[k]`.

    `train`: rows of the images set aside for training, None where the source makes no such
    difference. `test`: rows of the others.
    """

    files: tuple[Path, ...]
    labels: np.ndarray  # int64 [N]
    names: tuple[str, ...]
    words: tuple[str, ...]
    train: np.ndarray | None
    test: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def images(self) -> Iterator[Encoded]:
        """All images, encoded, one in memory at a time; raises `UserError` for a file gone."""
        for path, label in zip(self.files, self.labels.tolist(), strict=True):
            yield Encoded(str(path), _content(path), label)

    @property
    def meaning(self) -> list[str]:
        """What decides the labels of every row."""
        return [hashlib.sha256(self.labels.tobytes()).hexdigest()]

    @property
    def digests(self) -> list[str]:
        """The SHA-256 of every file; raises `UserError` for one that is gone."""
        return [_digest(file) for file in self.files]

    @property
    def sha256(self) -> str:
        """Of the files' own, in their order: it tells whether any picture is another one."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()

    def duplicates(self, rows: np.ndarray, others: np.ndarray) -> list[tuple[Path, Path]]:
        """Pairs of files with the same bytes, the first of `rows` and the second of `others`.

        A test image that is also trained on makes the figures of its task too good. Each of
        `others` is in one pair at most; only files whose size occurs on both sides are read.
        """
        ours, theirs = self._by_size(rows), self._by_size(others)
        shared = ours.keys() & theirs.keys()
        first: dict[str, Path] = {}
        for file in (file for size in ours if size in shared for file in ours[size]):
            first.setdefault(_digest(file), file)
        twins = (file for size in theirs if size in shared for file in theirs[size])
        return [(first[_digest(file)], file) for file in twins if _digest(file) in first]

    def _by_size(self, rows: np.ndarray) -> dict[int, list[Path]]:
        sizes = defaultdict(list)
        for row in rows.tolist():
            sizes[_size(self.files[row])].append(self.files[row])
        return sizes


@dataclass(frozen=True)
class _Listed:
    """An image as it was found: `split` is one of DIVISIONS, or empty."""

    file: Path
    name: str
    split: str


def read_folder(path: Path, classes: Mapping[str, str] | None, task: str) -> Folder:
    """The images of a folder, or of a list with the columns path, label and perhaps split.

    A folder has a sub-folder per class, or is divided into `train` and `test` (or else `val`,
    `valid` or `validation`; beside `test` these are left out) of such. A list is a .csv file whose
    paths are relative to it; its splits have the same names. `classes`: class folder -> words, in
    the order of the labels; None: the names in alphabetical order, their "_" and "-" as spaces.

    Raises `UserError`: nothing there, files that are no images, fewer than two classes, a class
    without images, or classes and folders that do not fit.
    """
    if not path.exists():
        raise MissingInput(f"The task '{task}' has no images at {path}: correct its 'images'.")
    try:
        found = _used(_in_list(path) if path.is_file() else _in_folder(path), path)
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read ({error.strerror}).") from None
    names = _names({image.name for image in found}, classes, path, task)
    words = tuple(classes[name] if classes else _spaced(name) for name in names)
    for word in words:
        if words.count(word) > 1:
            raise UserError(
                f"The task '{task}' has two classes called '{word}': give them different words "
                "under 'classes'."
            )
    return _folder(found, names, words, path)


def _used(found: list[_Listed], path: Path) -> list[_Listed]:
    """The images for training and those of the test set."""
    splits = {image.split for image in found}
    if splits == {"train"}:
        raise UserError(f"{path} has images for training and none to test on: add 'test'.")
    test = next((split for split in TEST if split in splits), "")
    return [image for image in found if image.split in ("train", test)]


def _folder(
    found: list[_Listed], names: tuple[str, ...], words: tuple[str, ...], path: Path
) -> Folder:
    for split in {image.split for image in found}:
        there = {image.name for image in found if image.split == split}
        if missing := [name for name in names if name not in there]:
            where = path / split if path.is_dir() else f"the split '{split}' of {path}"
            raise UserError(f"There are no images of the class '{missing[0]}' in {where}.")
    number = {name: label for label, name in enumerate(names)}
    trained = np.array([image.split == "train" for image in found])
    return Folder(
        files=tuple(image.file for image in found),
        labels=np.array([number[image.name] for image in found], np.int64),
        names=names,
        words=words,
        train=np.flatnonzero(trained) if trained.any() else None,
        test=np.flatnonzero(~trained),
    )


def _names(
    found: set[str], classes: Mapping[str, str] | None, path: Path, task: str
) -> tuple[str, ...]:
    if classes is not None:
        for name in classes:
            if name not in found:
                raise unknown(f"class folder of the task '{task}'", name, sorted(found))
        if unnamed := sorted(found - set(classes)):
            raise UserError(
                f"The task '{task}' has images of '{unnamed[0]}', which is not under 'classes' "
                f"({len(unnamed)} such in {path}): name every class there, or none."
            )
    names = tuple(classes or sorted(found))
    if len(names) < 2:
        raise UserError(
            f"{path} has {len(names)} class(es), a task needs two or more: one sub-folder of "
            "images for each."
        )
    return names


def _in_folder(path: Path) -> list[_Listed]:
    folders = _folders(path)
    if folders and all(folder.name in DIVISIONS for folder in folders):
        divisions = [(folder, folder.name) for folder in folders]
    else:
        divisions = [(path, "")]
    found = []
    for division, split in divisions:
        if stray := sorted(file for file in division.iterdir() if _is_image(file)):
            raise UserError(f"{stray[0]} lies in no class folder ({len(stray)} such images).")
        for folder in _folders(division):
            files = _files(folder)
            _check_images(files)
            if not files:
                raise UserError(f"The class folder {folder} has no images: fill or remove it.")
            found += [_Listed(file, folder.name, split) for file in files]
    return found


def _in_list(path: Path) -> list[_Listed]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            table = csv.DictReader(file)
            columns = [name.strip() for name in table.fieldnames or []]
            table.fieldnames = columns
            lines = [(table.line_num, row) for row in table]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path} is no list of images ({error}).") from None
    if not {"path", "label"} <= set(columns):
        raise UserError(
            f"{path} must begin with the line 'path,label' or 'path,label,split', found "
            f"'{','.join(columns)[:80]}'."
        )
    found = [_line(path, number, row) for number, row in lines]
    files = [image.file for image in found]
    if gone := [file for file in files if not file.is_file()]:
        raise MissingInput(f"{path} names {gone[0]}, which is missing ({len(gone)} such files).")
    if len(set(files)) < len(files):
        raise UserError(f"{path} names {Counter(files).most_common(1)[0][0]} twice.")
    if len({image.split == "" for image in found}) > 1:
        raise UserError(f"{path} gives some images a split and some none: give all or none.")
    _check_images(files)
    return found


def _line(path: Path, number: int, row: Mapping[str, str | None]) -> _Listed:
    file, label, split = ((row.get(name) or "").strip() for name in ("path", "label", "split"))
    if not file or not label:
        raise UserError(f"{path} line {number}: a path and a label are needed.")
    if split and split not in DIVISIONS:
        raise UserError(f"{path} line {number}: {unknown('split', split, DIVISIONS)}")
    return _Listed(path.parent / file, label, split)


def _check_images(files: Iterable[Path]) -> None:
    if others := [file for file in files if not _is_image(file)]:
        raise UserError(
            f"{others[0]} is no image by its ending ({len(others)} such files). Known endings: "
            f"{', '.join(sorted(ENDINGS))}. Remove it, or convert it."
        )


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not _hidden(entry.name))


def _files(path: Path) -> list[Path]:
    """All files at any depth that a user sees; raises `OSError` for a folder that does not open."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for folder, inner, names in os.walk(path, onerror=fail):
        inner[:] = [name for name in inner if not _hidden(name)]
        found += [Path(folder, name) for name in names if not _hidden(name)]
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED


def _is_image(file: Path) -> bool:
    return not _hidden(file.name) and file.suffix.lower() in ENDINGS


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
