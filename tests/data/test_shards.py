"""Parquet files: what they say of themselves, their images in order, and what may be wrong."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from pipeline.data.shards import BATCH, Shards, class_names
from pipeline.errors import UserError

NAMES = ["zebra", "ant", "mule"]
CONTENTS = [jpeg(seed) for seed in range(10)]
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
INT64 = pa.int64()
BY_NAME = {
    "label": {"names": NAMES, "_type": "ClassLabel"},
    "image": {"_type": "Image"},
}
OLDER = {"label": {"num_classes": 3, "names": NAMES, "names_file": None, "_type": "ClassLabel"}}
LISTED = [
    {"name": "image", "dtype": "image"},
    {"name": "label", "dtype": {"class_label": {"names": {"0": "zebra", "1": "ant", "2": "mule"}}}},
]


def table(rows, features=BY_NAME, plain=False, labels=None, kind=INT64):
    """Images number `rows`; the label of image n is n % 3."""
    if plain:
        images = pa.array([CONTENTS[row] for row in rows], pa.binary())
    else:
        stored = [{"bytes": CONTENTS[row], "path": f"{row}.jpg"} for row in rows]
        images = pa.array(stored, IMAGE)
    labels = pa.array([row % 3 for row in rows] if labels is None else labels)
    labels = labels.cast(kind)
    made = pa.table({"id": [str(row) for row in rows], "label": labels, "image": images})
    if features is None:
        return made
    text = json.dumps({"info": {"features": features}})
    return made.replace_schema_metadata({"huggingface": text})


def write(folder, *tables, group=None):
    folder = folder / "data"
    folder.mkdir(exist_ok=True)
    paths = []
    for number, part in enumerate(tables):
        paths.append(folder / f"test-{number:05}-of-{len(tables):05}.parquet")
        pq.write_table(part, paths[-1], row_group_size=group)
    return paths


def shards(folder, *tables, group=None):
    return Shards(write(folder, *tables, group=group), "image", "label")


@pytest.mark.parametrize("features", [BY_NAME, OLDER, LISTED])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("group", [None, 1, 3])
def test_images_of_several_shards_in_order(tmp_path, features, plain, group):
    parts = [table(rows, features, plain) for rows in ([3, 1, 4], [], [1, 5, 9, 2, 6])]
    split = shards(tmp_path, *parts, group=group)
    assert len(split) == 8 and split.names == tuple(NAMES)
    found = list(split.images(np.array([2, 0, 1])))
    rows = [3, 1, 4, 1, 5, 9, 2, 6]
    assert [image.content for image in found] == [CONTENTS[row] for row in rows]
    # Labels mean the same words in the order that was asked for.
    ours = [["ant", "mule", "zebra"].index(NAMES[row % 3]) for row in rows]
    assert [image.label for image in found] == ours
    labels = split.labels(np.array([2, 0, 1]))
    assert labels.dtype == np.int64 and labels.tolist() == ours
    assert [image.where for image in found][2:5] == [
        "data/test-00000-of-00003.parquet row 2",
        "data/test-00002-of-00003.parquet row 0",
        "data/test-00002-of-00003.parquet row 1",
    ]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.bool_()])
def test_labels_of_any_whole_type(tmp_path, kind):
    split = shards(tmp_path, table([0, 1], None, labels=[1, 0], kind=kind))
    assert split.names is None
    assert [image.label for image in split.images(np.arange(2))] == [1, 0]
    assert split.labels(np.arange(2)).tolist() == [1, 0]


def test_large_binary_and_rows_beyond_a_batch(tmp_path):
    rows = np.random.default_rng(0).integers(0, 10, 3 * BATCH + 7).tolist()
    part = table(rows, plain=True)
    part = part.set_column(2, "image", part["image"].cast(pa.large_binary()))
    split = shards(tmp_path, part, group=2 * BATCH + 1)
    found = list(split.images(np.arange(3)))
    assert [image.content for image in found] == [CONTENTS[row] for row in rows]
    assert found[-1].where.endswith(f"row {len(rows) - 1}")


def test_images_are_read_as_they_are_asked_for(tmp_path, monkeypatch):
    read = []

    class Counted(pq.ParquetFile):
        def iter_batches(self, *args, **options):
            for batch in super().iter_batches(*args, **options):
                read.append(len(batch))
                yield batch

    monkeypatch.setattr(pq, "ParquetFile", Counted)
    split = shards(tmp_path, *[table([0] * 3 * BATCH)] * 2, group=BATCH)
    images = split.images(np.arange(3))
    assert read == []
    for count in range(1, 6 * BATCH + 1):
        next(images)
        assert sum(read) - count < BATCH and max(read) <= BATCH


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {b"huggingface": b"{"},
        {b"huggingface": b"[]"},
        {b"huggingface": b'{"info": {"features": {"label": {"dtype": "int64"}}}}'},
        {b"huggingface": b'{"info": {"features": [{"name": "label", "dtype": "int64"}]}}'},
        {b"huggingface": b'{"info": {"features": [{"name": "other"}]}}'},
        {b"huggingface": b'{"info": {"features": {"label": {"names": null}}}}'},
        {b"other": b"x"},
    ],
)
def test_files_that_do_not_name_their_classes(metadata):
    assert class_names(metadata, "label") is None


def test_another_version_of_the_data_set(tmp_path):
    split = shards(tmp_path, table([0, 1, 2]))
    split.check_size(3, "animals")
    with pytest.raises(UserError, match="animals has 3 images where 1,880 are expected"):
        split.check_size(1880, "animals")


def test_shards_of_different_data_sets(tmp_path):
    paths = write(tmp_path, table([0]), table([1], {"label": {"names": ["a", "b", "c"]}}))
    with pytest.raises(UserError, match=r"data/test-00001-of-00002\.parquet has other class names"):
        Shards(paths, "image", "label")


@pytest.mark.parametrize(
    ("image", "label", "said"),
    [
        ("picture", "label", "no column 'picture'. Its columns: id, label, image"),
        ("image", "fine_label", "no column 'fine_label'. Its columns: id, label, image"),
        ("id", "label", "the column 'id' holds string, not encoded images"),
        ("image", "id", "the column 'id' holds string, not numbers of classes"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, image, label, said):
    paths = write(tmp_path, table([0]))
    with pytest.raises(UserError, match=re.escape(said)) as error:
        Shards(paths, image, label)
    assert str(error.value).startswith(f"data/{paths[0].name}")


def test_labels_that_are_no_whole_numbers(tmp_path):
    with pytest.raises(UserError, match="'label' holds double, not numbers of classes"):
        shards(tmp_path, table([0], labels=[0.5], kind=pa.float64()))
    lists = pa.table({"image": pa.array([[1]]), "label": [0]})
    with pytest.raises(UserError, match=r"'image' holds list<.*>, not encoded images"):
        shards(tmp_path, lists)


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "elsewhere.jpg"}])
def test_an_image_that_is_not_there(tmp_path, image):
    images = pa.array([{"bytes": b"x", "path": None}, image], IMAGE)
    split = shards(tmp_path, table([0], None), pa.table({"image": images, "label": [0, 0]}))
    with pytest.raises(
        UserError, match=r"^data/test-00001-of-00002\.parquet row 1 has no image bytes"
    ):
        list(split.images(np.arange(3)))


@pytest.mark.parametrize(
    ("label", "said"), [(None, "no label"), (-1, "the label -1"), (3, "the label 3, where.* 3 c")]
)
def test_a_label_that_is_not_there(tmp_path, label, said):
    split = shards(tmp_path, table([0, 0, 0], None, labels=[0, 2, label]))
    with pytest.raises(UserError, match=rf"^data/test-00000-of-00001\.parquet row 2 has {said}"):
        list(split.images(np.arange(3)))


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -20])
def test_a_file_that_is_not_whole(tmp_path, keep):
    paths = write(tmp_path, table([0, 1]))
    paths[0].write_bytes(paths[0].read_bytes()[:keep])
    with pytest.raises(UserError, match=r"parquet cannot be read \(.*\)\. Delete it and fetch"):
        Shards(paths, "image", "label")


def test_a_file_with_damaged_pages(tmp_path):
    paths = write(tmp_path, table(range(10)))
    content = bytearray(paths[0].read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    paths[0].write_bytes(content)
    split = Shards(paths, "image", "label")
    with pytest.raises(UserError, match=r"parquet cannot be read"):
        list(split.images(np.arange(3)))


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(UserError, match=r"gone\.parquet cannot be read"):
        Shards([tmp_path / "gone.parquet"], "image", "label")
