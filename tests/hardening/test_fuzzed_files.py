"""Checkpoints and images with any bytes changed are read, or refused as damaged: nothing else.

Examples are drawn from a fixed seed, so that every run tests the same ones.
"""

import io
import json
import resource
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.checkpoints.reading import read_clip
from pipeline.checkpoints.weights import load_metadata, load_weights
from pipeline.checkpoints.writing import open_arrays, write_safetensors
from pipeline.data.decoding import BrokenImage, preprocessed
from pipeline.errors import CheckpointError

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SIZE = 32
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I32": 4, "BOOL": 1, "U8": 1, "F8_E4M3": 1}
MOST_GB = 0.5  # beyond what the tests hold before


def peak_gb() -> float:
    """The most memory that this process held, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    before = peak_gb()
    yield
    assert peak_gb() < before + MOST_GB


@cache
def checkpoint() -> bytes:
    """A small safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        arrays = {"visual.proj": np.ones((3, 4), np.float32), "n": np.arange(5)}
        write_safetensors(path, arrays, {"family": "mini"})
        return path.read_bytes()


def read_or_refused(path):
    """Read all that a file holds in every way that there is."""
    for read in (
        lambda: [arrays := open_arrays(path), *(arrays[name] for name in arrays)],
        lambda: load_weights(path, "python -m stages.fetch"),
        lambda: load_metadata(path, "python -m stages.fetch"),
        lambda: read_clip(path),
    ):
        try:
            read()
        except CheckpointError as error:
            assert len(str(error)) < 2000 and "\n" not in str(error)


def spliced(content: bytes, changes) -> bytes:
    for share, new, over in changes:
        at = int(share * len(content))
        content = content[:at] + new + content[at + (len(new) if over else 0) :]
    return content


CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()),
    min_size=1,
    max_size=4,
)
SIZES = st.one_of(st.integers(-(2**65), 2**65), st.sampled_from([0, 1, 2**31, 2**62, 2**63 - 1]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), SIZES, st.floats(), st.text(max_size=6)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(
            ["F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64"]
        )
        | JSON,
        "shape": st.lists(SIZES, max_size=4) | JSON,
        "data_offsets": st.tuples(SIZES, SIZES) | JSON,
    }
)
NAMES = st.sampled_from(["visual.proj", "a", "__metadata__", "visual.conv1.weight"]) | st.text(
    max_size=5
)
HEADERS = st.dictionaries(NAMES, ENTRY | JSON, max_size=4) | JSON


@given(CHANGES)
@settings(FIXED, max_examples=150)
def test_checkpoints_with_other_bytes(tmp_path, changes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(spliced(checkpoint(), changes))
    read_or_refused(path)


@given(HEADERS, st.integers(0, 2**64 - 1) | st.none(), st.binary(max_size=64))
@settings(FIXED, max_examples=200)
def test_headers_of_any_kind(tmp_path, header, size, rest):
    text = json.dumps(header).encode()
    length = len(text) if size is None else size
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text + rest)
    read_or_refused(path)


def tensor_file(path, dtype, content):
    """A file of one tensor `a` that holds the bytes `content`."""
    size = len(content) // WIDTHS[dtype]
    content = content[: size * WIDTHS[dtype]]
    entry = {"dtype": dtype, "shape": [size], "data_offsets": [0, len(content)]}
    text = json.dumps({"a": entry}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


@given(st.sampled_from(list(WIDTHS)), st.binary())
@settings(FIXED, max_examples=60)
def test_tensors_of_any_bytes(tmp_path, dtype, content):
    path = tensor_file(tmp_path / "x.safetensors", dtype, content)
    read_or_refused(path)
    if dtype in ("F32", "BF16", "F16"):
        try:
            assert torch.isfinite(load_weights(path, "")["a"]).all()
        except CheckpointError as error:
            assert "NaN or infinity" in str(error)


@pytest.mark.parametrize(
    "read", [lambda path: load_weights(path, "")["a"], lambda path: open_arrays(path)["a"]]
)
def test_a_weight_that_float32_cannot_hold_is_refused(tmp_path, read):
    path = tensor_file(tmp_path / "x.safetensors", "F64", np.array([1e300]).tobytes())
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        read(path)


FORMATS = {
    "JPEG": ("RGB", {}),
    "PNG": ("RGBA", {}),
    "WEBP": ("RGB", {}),
    "BMP": ("RGB", {}),
    "GIF": ("P", {}),
    "PPM": ("RGB", {}),
    "TIFF": ("RGB", {"compression": "tiff_lzw"}),
}


@cache
def encoded(kind: str) -> bytes:
    mode, options = FORMATS[kind]
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded_or_broken(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the workers that decode
        try:
            pixels = preprocessed(content, SIZE)
        except BrokenImage as error:
            assert str(error)
            return
    assert pixels.shape == (3, SIZE, SIZE) and pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", FORMATS)
@given(st.floats(0, 1), CHANGES)
@settings(FIXED, max_examples=60)
def test_images_with_other_bytes(kind, end, changes):
    # Headers are where the harm is: half of the changes are among the first bytes.
    content = encoded(kind)
    near = [(share * 64 / len(content), new, over) for share, new, over in changes[::2]]
    content = spliced(content, near + changes[1::2])
    decoded_or_broken(content)
    decoded_or_broken(content[: int(end * len(content))])


@pytest.mark.parametrize("kind", FORMATS)
def test_images_as_they_were(kind):
    assert preprocessed(encoded(kind), SIZE).std() > 0
