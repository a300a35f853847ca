"""The code that MLflow serves: what it answers, what it refuses, and that it stands alone."""

import ast
import base64
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_export import LABELS, encoded, picture, plain_probabilities, write_export
from tiny import ROOT

from pipeline.clip import Clip

# MLflow's, of its own modules.
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
CODE = ROOT / "pipeline" / "serving" / "served_model.py"


@pytest.fixture
def folder(tmp_path: Path, tiny_clip: Clip) -> Path:
    return write_export(tmp_path / "export", tiny_clip)


@pytest.fixture
def model(folder: Path) -> Any:
    from pipeline.serving.served_model import MergedClip

    loaded = MergedClip()
    loaded.load_context(SimpleNamespace(artifacts={"model": str(folder)}))
    return loaded


def asked(model: Any, *images: Any, **params: Any) -> Any:
    import pandas as pd

    return model.predict(None, pd.DataFrame({"image": list(images)}), params)


def refusal(model: Any, *images: Any, **params: Any) -> str:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as error:
        asked(model, *images, **params)
    assert error.value.get_http_status_code() == 400
    # The server puts the whole data before a message, where it can.
    error.value.message = "all the data"
    return error.value.message


@pytest.mark.parametrize("task", LABELS)
def test_answers_are_those_of_plain_open_clip(model: Any, folder: Path, task: str):
    images = [picture(seed) for seed in range(3)]
    expected = plain_probabilities(folder, images, task)
    answers = asked(model, *map(encoded, images), task=task, top=99)
    for row, answer in zip(expected, answers, strict=True):
        found = {one["class"]: one["probability"] for one in answer}
        assert [found[word] for word in LABELS[task]["classes"]] == pytest.approx(
            row.tolist(), abs=1e-6
        )
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert all(one["tasks"] == [task] for one in answer)


def test_of_all_tasks_it_says_what_predict_says(model: Any, folder: Path):
    from pipeline.classifier import load_exported
    from pipeline.data.decoding import preprocessed

    files = [encoded(picture(seed)) for seed in range(3)]
    classifier = load_exported(folder)
    pixels = [preprocessed(base64.b64decode(one), classifier.size) for one in files]
    expected = classifier.classify(np.stack(pixels), "any", 4)
    for guesses, answer in zip(expected, asked(model, *files, top=4), strict=True):
        assert [(g.word, list(g.tasks)) for g in guesses] == [
            (one["class"], one["tasks"]) for one in answer
        ]
        assert [one["probability"] for one in answer] == pytest.approx(
            [g.probability for g in guesses], abs=1e-5
        )


def test_classes_that_tasks_ask_alike_are_one(model: Any):
    [answer] = asked(model, encoded(picture(0)), top=99)
    found = [(one["class"], one["tasks"]) for one in answer]
    assert len(found) == 6
    assert ("zero", ["svhn", "mnist"]) in found and ("zero", ["cars"]) in found
    assert sum(one["probability"] for one in answer) == pytest.approx(1, abs=1e-6)


def test_more_images_than_a_batch(model: Any, monkeypatch: pytest.MonkeyPatch):
    files = [encoded(picture(seed)) for seed in range(5)]
    whole = asked(model, *files, task="cars")
    monkeypatch.setattr("pipeline.serving.served_model.BATCH", 2)
    for one, other in zip(whole, asked(model, *files, task="cars"), strict=True):
        assert [part["class"] for part in one] == [part["class"] for part in other]
    assert asked(model) == []


def test_a_file_may_be_of_any_kind_and_size(model: Any):
    gray, clear = picture(1).convert("L"), picture(1).convert("RGBA")
    wide = picture(1, 300, 20)
    files = [encoded(gray), encoded(clear), encoded(wide, "JPEG"), encoded(picture(1), "WEBP")]
    folded = base64.encodebytes(base64.b64decode(encoded(picture(1)))).decode()
    assert len(asked(model, *files, folded)) == 5


def header_of(width: int, height: int) -> str:
    """A PNG that says its size, and has no pixels."""
    facts = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", facts), (b"IDAT", b""))
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def test_what_is_no_image_is_refused_by_its_number(model: Any):
    good = encoded(picture(0))
    assert refusal(model, good, "no!") == "Image 1 is not in base64: send a file's bytes so."
    assert "not in base64" in refusal(model, "data:image/png;base64," + good)
    assert "not in base64" in refusal(model, 5)
    assert "no image of a known format" in refusal(model, "")
    assert "no image of a known format" in refusal(model, base64.b64encode(b"/etc/passwd").decode())
    script = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode()
    assert "no image of a known format" in refusal(model, script)
    assert "Image 0 is broken (" in refusal(model, good[: len(good) // 8 * 4])


def test_images_that_unfold_to_much_are_refused_before_they_do(model: Any):
    assert refusal(model, header_of(8000, 8000)) == (
        "Image 0 has 8000 x 8000 pixels: send a smaller one."
    )
    # Resized to 32 pixels of height, it would have billions of pixels.
    assert "2000000 x 1 pixels" in refusal(model, header_of(2_000_000, 1))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused(model: Any):
    assert "Image 0 has 10000 x 10000" in refusal(model, header_of(10_000, 10_000))
    assert "Image 0 is broken (Image size" in refusal(model, header_of(60_000, 60_000))


def test_a_large_file_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.serving.served_model.MOST_BYTES", 100)
    assert "Image 0 is larger than 100 bytes" in refusal(model, encoded(picture(0)))


def test_unknown_tasks_and_counts_are_refused(model: Any):
    good = encoded(picture(0))
    assert refusal(model, good, task="dogs") == (
        "Unknown task 'dogs'. Available: svhn, mnist, cars, any."
    )
    assert "'top' is 0" in refusal(model, good, top=0)


def test_the_code_stands_alone():
    tree = ast.parse(CODE.read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(str(node.module).partition(".")[0])
    outside = roots - sys.stdlib_module_names
    assert outside == {"mlflow", "torch", "open_clip", "safetensors", "PIL", "pandas"}
