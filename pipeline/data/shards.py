"""Images and labels of a data set that lies in parquet files, as on the Hugging Face hub.

What a file says about itself is read from its footer; the images are passed on encoded.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.decoding import Encoded
from pipeline.errors import UserError

BATCH = 64  # rows read at a time


class Shards:
    """The parquet files of one split, in order.

    `names`: what the source calls its classes, label k being `names[k]`; None where the files do
    not say. Raises `UserError`: a damaged file, a column that is missing or of another type,
    files that disagree about the names.
    """

    def __init__(self, paths: Sequence[Path], image: str, label: str) -> None:
        self._paths, self._image, self._label = list(paths), image, label
        self._rows = 0
        found = {}
        for path in paths:
            with _opened(path) as file:
                schema = file.schema_arrow
                _check_column(path, schema, image, _is_image, "encoded images")
                _check_column(path, schema, label, _is_class, "numbers of classes")
                self._rows += file.metadata.num_rows
                found[_short(path)] = class_names(schema.metadata, label)
        self.names = next(iter(found.values()), None)
        for name, names in found.items():
            if names != self.names:
                raise UserError(
                    f"{name} has other class names than {_short(paths[0])}: they are not of the "
                    "same data set."
                )

    def __len__(self) -> int:
        return self._rows

    def check_size(self, size: int, source: str) -> None:
        """Raise `UserError` unless there are `size` images; `source` is named then."""
        if len(self) != size:
            raise UserError(
                f"{source} has {len(self):,} images where {size:,} are expected: it is another "
                "version of the data set. Name the revision that fits, or correct the catalog."
            )

    def labels(self, order: np.ndarray) -> np.ndarray:
        """int64 [rows]: as `images` has them, without reading an image."""
        found: list[int] = []
        for path in self._paths:
            with _opened(path) as file:
                for batch in _read(file, path, [self._label]):
                    for label in batch.column(0).cast(pa.int64()):
                        where = f"{_short(path)} row {len(found)}"
                        found.append(_checked(where, b"", label.as_py(), order).label)
        return np.array(found, np.int64)

    def images(self, order: np.ndarray) -> Iterator[Encoded]:
        """All images in the order of the files, a few in memory at a time; labels are `order[k]`.

        Raises `UserError`, with file and row: no image, no label, a label beyond `order`.
        """
        for path in self._paths:
            row = 0
            with _opened(path) as file:
                for batch in _read(file, path, [self._image, self._label]):
                    images = batch.column(self._image)
                    if pa.types.is_struct(images.type):
                        # An image that is null as a whole has no bytes either.
                        images = images.flatten()[images.type.get_field_index("bytes")]
                    labels = batch.column(self._label).cast(pa.int64())
                    for content, label in zip(images, labels, strict=True):
                        where = f"{_short(path)} row {row}"
                        yield _checked(where, content.as_py(), label.as_py(), order)
                        row += 1


def class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """Names of the classes as the `datasets` library stores them in a schema; None if it did not.

    Two forms: features by name ({"label": {"names": [...]}}), and a list of them
    ([{"name": "label", "dtype": {"class_label": {"names": {"0": ...}}}}]), as in data cards.
    """
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        if isinstance(features, list):
            column = next(feature for feature in features if feature["name"] == label)
            names = column["dtype"]["class_label"]["names"]
        else:
            names = features[label]["names"]
        if isinstance(names, dict):
            names = [names[str(number)] for number in range(len(names))]
        return tuple(map(str, names))
    except (ValueError, KeyError, TypeError, StopIteration):
        return None


def select_shards(paths: Sequence[str], configuration: str | None, split: str) -> list[str]:
    """Which of a repository's files hold a split, in order; none if none do.

    Known names, each below `data/`, the configuration's folder or both: test.parquet,
    test-00000-of-00002.parquet (older: with a hash behind), test/0000.parquet. Raises `UserError`:
    a file of a series is missing, or no configuration is named where there are several.
    """
    name = re.compile(
        rf"(?:(?P<folder>.+)/)?{re.escape(split)}"
        r"(?:-(?P<part>\d+)-of-(?P<parts>\d+)(?:-[0-9a-f]{16})?|/(?P<number>\d+))?\.parquet"
    )
    found: dict[str, list[re.Match[str]]] = defaultdict(list)
    for path in sorted(paths):
        if match := name.fullmatch(path):
            found[_configuration(match["folder"] or "", split)].append(match)
    wanted = "" if configuration in (None, "default") else configuration
    if configuration is None and "" not in found and len(found) > 1:
        raise UserError(
            f"The split '{split}' is there in several configurations: name one of "
            f"{', '.join(found)}."
        )
    if configuration is None and len(found) == 1:
        (wanted,) = found
    matches = found.get(wanted or "", [])
    _check_series(matches, split)
    return [match.string for match in matches]


def _configuration(folder: str, split: str) -> str:
    """What a folder says besides where the data lie; "" for a repository's only configuration."""
    return "/".join(part for part in folder.split("/") if part not in ("data", "default", split))


def _check_series(matches: Sequence[re.Match[str]], split: str) -> None:
    """Raise `UserError` unless the files are one series without a gap."""
    if not matches:
        return
    kinds = {(match["folder"], match["parts"], match["number"] is None) for match in matches}
    count = int(matches[0]["parts"] or len(matches))
    there = [int(match["part"] or match["number"] or 0) for match in matches]
    if len(kinds) > 1 or len(set(there)) < len(there):
        listed = ", ".join(match.string for match in matches[:4])
        raise UserError(f"More than one series of files holds the split '{split}': {listed}.")
    if missing := sorted(set(range(count)) - set(there)):
        raise UserError(
            f"The split '{split}' is not whole: of its {count} files, number {missing[0]} is "
            f"missing beside {matches[0].string}."
        )


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    with file:
        yield file


def _read(file: pq.ParquetFile, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(BATCH, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _short(path: Path) -> str:
    """A file's name with its folder's: some are called 0000.parquet."""
    return f"{path.parent.name}/{path.name}"


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0][:200]
    return UserError(f"{path} cannot be read ({reason}). Delete it and fetch it again.")


def _check_column(
    path: Path, schema: pa.Schema, name: str, fits: Callable[[pa.DataType], bool], what: str
) -> None:
    if name not in schema.names:
        raise UserError(
            f"{_short(path)} has no column '{name}'. Its columns: {', '.join(schema.names)}."
        )
    if not fits(found := schema.field(name).type):
        raise UserError(
            f"{_short(path)}: the column '{name}' holds {found}, not {what}. "
            f"Its columns: {', '.join(schema.names)}."
        )


def _is_image(type_: pa.DataType) -> bool:
    """Bytes, or what `datasets` makes of an image: a struct of bytes and path."""
    if pa.types.is_struct(type_):
        return type_.get_field_index("bytes") >= 0 and _is_image(type_.field("bytes").type)
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _is_class(type_: pa.DataType) -> bool:
    """An integer; or a truth value, for two classes."""
    return pa.types.is_integer(type_) or pa.types.is_boolean(type_)


def _checked(where: str, content: bytes | None, label: int | None, order: np.ndarray) -> Encoded:
    if content is None:
        raise UserError(f"{where} has no image bytes. Name another column or split.")
    if label is None:
        raise UserError(f"{where} has no label. Name another column or split.")
    if not 0 <= label < len(order):
        raise UserError(
            f"{where} has the label {label}, where there are {len(order)} classes: the split has "
            "no labels, or the catalog is of another version of the data set."
        )
    return Encoded(where, content, int(order[label]))
