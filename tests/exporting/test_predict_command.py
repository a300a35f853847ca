"""`adamerge predict` beside what `evaluate` stored, and as a program among others."""

import importlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from finished import TASKS, finished_project
from PIL import Image
from safetensors.torch import load_file
from stage_project import TASKS as MINI_TASKS
from stage_project import call, refused

from pipeline.clip import load_encoder
from pipeline.config import load_config
from pipeline.evaluation import Predictions
from pipeline.layout import Layout

# `made` records its stages with MLflow.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def photos(shared, tmp_path, monkeypatch):
    """A folder with two pictures; the current folder is a published project's."""
    monkeypatch.chdir(shared[0].root)
    rng = np.random.default_rng(4)
    for name in ("b.png", "a.jpg"):
        save(rng.integers(0, 256, (3, 40, 32), dtype=np.uint8), tmp_path / "photos" / name)
    return tmp_path / "photos"


def save(pixels, path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return path


def predicted(capsys, *images, code=0, **options):
    """The JSON objects that are printed."""
    capsys.readouterr()
    ended = 0
    try:
        importlib.import_module("stages.predict").main(list(images), as_json=True, **options)
    except typer.Exit as end:
        ended = end.exit_code
    said = capsys.readouterr()
    assert ended == code, said.err
    return [json.loads(line) for line in said.out.splitlines()], said.err


@pytest.mark.parametrize("method", ["adamerging_layerwise", "ties", "emr", "experts", "exported"])
def test_answers_are_those_that_evaluate_counted(made, tmp_path, monkeypatch, capsys, method):
    monkeypatch.chdir(made)
    layout, options = Layout(made, "ci"), {"method": method}
    if method == "exported":
        importlib.import_module("stages.export").main(tmp_path / "out", method="ties")
        method, options = "ties", {"model": tmp_path / "out"}
    for task in MINI_TASKS:
        images = np.load(layout.images(0, task, "eval"))
        for number, pixels in enumerate(images):
            save(pixels, tmp_path / task / f"{number:02}.png")
        found, _ = predicted(capsys, tmp_path / task, task=task, top=5, **options)
        stored = Predictions.load(layout.predictions(0, method, task), "")
        classes = load_config(made).task(task).classes
        assert len(found) == len(stored.top)
        for number, said in enumerate(found):
            assert said["image"] == str(tmp_path / task / f"{number:02}.png")
            best = [one["class"] for one in said["predictions"]]
            assert best == [classes[k] for k in stored.top[number]]
            share = said["predictions"][0]["probability"]
            assert share == pytest.approx(stored.p_top1[number], abs=1e-5)


def test_any_lets_the_classes_of_all_tasks_compete(shared, photos, capsys):
    (said, _), _ = predicted(capsys, photos, task="any", top=100)
    layout = shared[1]
    encoder, scale = load_encoder(layout.pretrained, "")
    encoder.load(load_file(layout.merged(0, "adamerging_layerwise")), "")
    pixels = np.asarray(Image.open(photos / "a.jpg")).transpose(2, 0, 1)[None, :, 4:36]
    heads = [load_file(layout.head(task))["weight"] for task in TASKS]
    assert torch.equal(*heads)  # the same words in the same sentence: one class of both tasks
    with torch.inference_mode():
        shares = (scale * encoder(torch.tensor(pixels)) @ heads[0].T).softmax(dim=1)[0]
    assert said["task"] == "any"
    assert {one["class"]: one["probability"] for one in said["predictions"]} == pytest.approx(
        {str(digit): share for digit, share in enumerate(shares.tolist())}, abs=1e-5
    )
    assert all(one["tasks"] == TASKS for one in said["predictions"])


def test_classes_of_unlike_sentences_stay_apart(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made)
    image = save(np.zeros((3, 32, 32), np.uint8), tmp_path / "black.png")
    (said,), _ = predicted(capsys, image, top=1000)
    config = load_config(made)
    pairs = [(one["class"], task) for one in said["predictions"] for task in one["tasks"]]
    expected = [(word, task) for task in MINI_TASKS for word in config.task(task).classes]
    assert sorted(pairs) == sorted(expected)
    assert sum(one["probability"] for one in said["predictions"]) == pytest.approx(1, abs=1e-4)


def test_the_json_has_the_keys_that_are_promised(photos, capsys):
    found, errors = predicted(capsys, photos / "b.png", task="svhn", top=2)
    (said,) = found
    assert list(said) == ["image", "task", "predictions"] and said["task"] == "svhn"
    assert [list(one) for one in said["predictions"]] == [["class", "tasks", "probability"]] * 2
    assert [one["tasks"] for one in said["predictions"]] == [["svhn"]] * 2
    assert errors == ""


def test_folders_at_any_depth_in_the_order_of_their_paths(photos, capsys):
    picture = (photos / "b.png").read_bytes()
    for name in ("deep/er/c.PNG", "deep/.hidden.png", ".git/d.png", "notes.txt", "Thumbs.db"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(picture)
    found, _ = predicted(capsys, photos / "b.png", photos)
    names = [said["image"].removeprefix(f"{photos}/") for said in found]
    assert names == ["b.png", "a.jpg", "b.png", "deep/er/c.PNG"]
    # A file that is named is taken for an image, whatever it is called.
    found, _ = predicted(capsys, photos / "notes.txt")
    assert "predictions" in found[0]


def test_broken_images_are_named_and_the_others_predicted(photos, capsys):
    (photos / "bad.png").write_bytes(b"nothing")
    half = (photos / "b.png").read_bytes()
    (photos / "half.png").write_bytes(half[: len(half) // 2])
    (photos / "lost.png").symlink_to(photos / "nowhere.png")
    found, errors = predicted(capsys, photos, code=1)
    names = ["a.jpg", "b.png", "bad.png", "half.png", "lost.png"]
    assert [said["image"] for said in found] == [str(photos / name) for name in names]
    assert [list(said)[-1] for said in found] == ["predictions"] * 2 + ["error"] * 3
    for name in names[2:]:
        assert f"Error: {photos / name} is no image to use: " in errors
    assert errors.count("\n") == 3


def test_many_images_show_how_far_it_is_on_stderr(photos, capsys):
    picture = (photos / "b.png").read_bytes()
    for number in range(70):
        (photos / f"{number}.png").write_bytes(picture)
    found, errors = predicted(capsys, photos)
    assert len(found) == 72 and "predicting: 72/72" in errors


def test_the_table_has_percent_and_each_image_once(photos, capsys):
    (photos / "[red]bad.png").write_bytes(b"nothing")
    code, errors = call("predict", capsys, images=[photos], task="svhn", top=3)
    assert code == 1 and "[red]bad.png" in errors
    with pytest.raises(typer.Exit):
        importlib.import_module("stages.predict").main([photos], task="svhn", top=3)
    lines = capsys.readouterr().out.splitlines()
    (said,), _ = predicted(capsys, photos / "b.png", task="svhn", top=3)
    row = next(number for number, line in enumerate(lines) if "b.png" in line and "[" not in line)
    for line, one in zip(lines[row : row + 3], said["predictions"], strict=True):
        assert line.split()[-3:] == [one["class"], "svhn", f"{one['probability']:.1%}"]
    assert sum("a.jpg" in line for line in lines) == 1
    assert any("[red]bad.png" in line and "broken" in line for line in lines)


def test_an_orientation_in_exif_is_not_applied(photos, capsys):
    image = Image.open(photos / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(photos / "turned.png", exif=exif)
    found, _ = predicted(capsys, photos / "b.png", photos / "turned.png")
    assert found[0]["predictions"] == found[1]["predictions"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "mnits"}, "Did you mean mnist"),
        ({"method": "tise"}, "Did you mean ties"),
        ({"method": "experts"}, "Experts (upper bound) has a model for every task"),
        ({"seed": 3}, "no seed 3"),
        ({"model": "nowhere"}, "no folder that 'adamerge export' wrote"),
        ({"model": "nowhere", "method": "ties"}, "leave out --profile, --method and --seed"),
    ],
)
def test_mistakes_are_said_in_one_sentence(photos, capsys, options, words):
    options = {name: Path(v) if name == "model" else v for name, v in options.items()}
    assert words in refused("predict", capsys, images=[photos], **options)


def test_images_that_are_not_there_are_said_first(photos, capsys):
    assert "There is no" in refused("predict", capsys, images=[photos / "x.png"], task="nonsense")
    (photos / "empty").mkdir()
    assert "holds no image" in refused("predict", capsys, images=[photos / "empty"])


def test_a_task_of_an_export_has_a_nearest_name(photos, tmp_path, capsys):
    call("export", capsys, out=tmp_path / "out")
    error = refused("predict", capsys, images=[photos], model=tmp_path / "out", task="shvn")
    assert "Did you mean svhn" in error


@pytest.mark.parametrize("spoil", ["labels.json", "heads.safetensors", "open_clip_config.json"])
def test_a_damaged_export_is_named(photos, tmp_path, capsys, spoil):
    call("export", capsys, out=tmp_path / "out")
    (tmp_path / "out" / spoil).write_text("{", encoding="utf-8")
    error = refused("predict", capsys, images=[photos], model=tmp_path / "out")
    assert spoil in error and "damaged" in error


def test_names_that_are_no_text_are_shown(photos, monkeypatch, capsys):
    name = photos / "caf\udce9.png"
    name.write_bytes((photos / "b.png").read_bytes())
    found, _ = predicted(capsys, name)
    assert found[0]["image"].endswith("caf\\udce9.png")
    monkeypatch.setattr(sys, "stdout", out := io.TextIOWrapper(io.BytesIO(), "utf-8"))
    importlib.import_module("stages.predict").main([name])
    out.flush()
    assert "caf\\udce9.png" in out.buffer.getvalue().decode()
