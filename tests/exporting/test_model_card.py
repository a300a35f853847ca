"""The model card says what the metrics and the record say, and its code runs."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
import yaml
from finished import IMAGES, TASKS, finished_project
from PIL import Image
from scipy.stats import binomtest
from stage_project import TASKS as MINI_TASKS

from pipeline.classifier import load_merged
from pipeline.config import load_config
from pipeline.data.given import pixels_of
from pipeline.evaluation import Predictions
from pipeline.exporting import Request, export, planned
from pipeline.exporting.accuracy import accuracy_of, wilson
from pipeline.files import read_json, sha256, write_json
from pipeline.layout import Layout

# `made` records its stages with MLflow.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

METHOD = "adamerging_layerwise"
GIT = {"commit": "1" * 40, "dirty": False}
each_format = pytest.mark.parametrize("form", ["open_clip", "hf"])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def mini(made):
    return load_config(made), Layout(made, "ci")


def exported(project, out, form="open_clip", method=METHOD, seed=0):
    """(front matter, card, provenance)."""
    export(planned(*project, Request(out, form, method, seed)), GIT)
    text = (out / "README.md").read_text(encoding="utf-8")
    _, front, card = text.split("---\n", 2)
    return yaml.safe_load(front), card, read_json(out / "provenance.json", "")


@each_format
@pytest.mark.parametrize("kind", ["mini", "pairs"])
def test_the_code_of_the_card_runs_and_answers_alike(kind, form, tmp_path, monkeypatch, request):
    project = request.getfixturevalue(kind)
    _, card, _ = exported(project, tmp_path / "merged", form)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    picture = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    task = project[0].profile.tasks[0]
    model = load_merged(*project, METHOD, 0, task)
    (guesses,) = model.classify(pixels_of(tmp_path / "photo.png", model.size)[None], task)
    expected = [f"{guess.probability:6.1%}  {guess.word}" for guess in guesses]
    assert said.getvalue().splitlines() == expected


def test_front_matter_of_a_published_model(pairs, tmp_path):
    front, card, _ = exported(pairs, tmp_path / "out", "hf")
    assert front["library_name"] == "transformers"
    assert front["license"] == "unknown"  # no file says it
    assert "licence of openai/clip-vit-base-patch32 and of the experts is not known" in card
    assert front["base_model"] == [
        "openai/clip-vit-base-patch32",
        *(f"tanganke/clip-vit-base-patch32_{task}" for task in TASKS),
    ]
    assert front["base_model_relation"] == "merge"


def test_front_matter_of_the_miniature(mini, tmp_path):
    front, card, _ = exported(mini, tmp_path / "out")
    assert (front["library_name"], front["license"]) == ("open_clip", "apache-2.0")
    assert "base_model" not in front
    assert "no tokenizer of open_clip fits it" in card
    assert "comparable with no published ones" in card


def rows(card):
    """First cell -> the others, of the table."""
    lines = [line for line in card.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_figures_are_those_of_the_metrics(mini, tmp_path):
    config, layout = mini
    _, card, said = exported(mini, tmp_path / "out")
    clean = read_json(layout.metric("clean"), "")[METHOD]
    table = rows(card)
    low, high = clean["avg_interval"]
    assert table["**Average**"][3:] == [f"{clean['avg']:.1f}", f"{low:.1f} to {high:.1f}"]
    assert said["accuracy"]["average"]["interval"] == clean["avg_interval"]
    for task in MINI_TASKS:
        predictions = Predictions.load(layout.predictions(0, METHOD, task), "")
        right, count = int(predictions.correct.sum()), len(predictions.label)
        ends = binomtest(right, count).proportion_ci(method="wilson")
        name, classes, images, value, interval = table[config.task(task).title]
        assert name == f"`{task}`" and classes == str(len(config.task(task).classes))
        assert (images, value) == (str(count), f"{clean['tasks'][task]:.1f}")
        assert interval == f"{100 * ends.low:.1f} to {100 * ends.high:.1f}"


@pytest.mark.parametrize(("right", "images"), [(0, 7), (7, 7), (3, 10), (845, 1000)])
def test_wilson_is_that_of_scipy(right, images):
    ends = binomtest(right, images).proportion_ci(method="wilson")
    found = wilson(right, images)
    assert [found.low, found.high] == pytest.approx([100 * ends.low, 100 * ends.high], abs=1e-9)


def test_of_several_seeds_the_figures_are_this_models_own(tmp_path):
    project = finished_project(tmp_path / "project", seeds=[0, 1])
    config, layout = project
    clean = read_json(layout.metric("clean"), "")[METHOD]
    for seed in (0, 1):
        found = accuracy_of(config, layout, METHOD, seed)
        assert found.seeds == (seed,)
        assert found.average.value == pytest.approx(clean["seeds"][str(seed)], abs=0.01)
        spread = [wilson(round(f.value * IMAGES / 100), IMAGES) for f in found.tasks.values()]
        own = found.average.interval
        # Two tasks tell more than one does.
        assert all(own.high - own.low < one.high - one.low for one in spread)
    (layout.predictions(1, METHOD, TASKS[0])).unlink()
    _, card, said = exported(project, tmp_path / "out", seed=1)
    assert said["accuracy"]["seeds"] == [0, 1] and "means over models made in the same way" in card
    assert rows(card)["**Average**"][3] == f"{clean['avg']:.1f}"


def test_figures_of_another_run_are_not_this_models(tmp_path):
    config, layout = finished_project(tmp_path / "project")
    clean = read_json(layout.metric("clean"), "")
    clean[METHOD]["seeds"]["0"] -= 5
    write_json(layout.metric("clean"), clean)
    assert all(f.images is None for f in accuracy_of(config, layout, METHOD, 0).tasks.values())
    layout.metric("clean").unlink()
    assert accuracy_of(config, layout, METHOD, 0) is None
    _, card, said = exported((config, layout), tmp_path / "out")
    assert said["accuracy"] is None and "Its accuracy was not measured." in card


def test_what_images_and_labels_had_a_part_is_said(mini, tmp_path):
    cards = {
        method: exported(mini, tmp_path / method, method=method)
        for method in ("task_arithmetic_tuned", METHOD, "ties", "pretrained")
    }
    for method, (_, card, said) in cards.items():
        assert ("label-tuned" in card) == (method == "task_arithmetic_tuned") == said["label_tuned"]
        assert ("unlabeled `adapt` images" in card) == (method == METHOD)
        assert "transductive" not in card
        assert (said["coefficients"] is not None) == (method in (METHOD, "task_arithmetic_tuned"))
    assert "It is the pretrained model, unchanged." in cards["pretrained"][1]


def test_transductive_is_said(tmp_path):
    project = finished_project(tmp_path / "project", protocol="transductive")
    _, card, said = exported(project, tmp_path / "out")
    assert "unlabeled `eval` images" in card and "**transductive**" in card
    assert "took no part" not in card.partition("## Limits")[0]
    assert said["protocol"] == "transductive"


def test_provenance_names_every_input(pairs, tmp_path):
    _, layout = pairs
    _, card, said = exported(pairs, tmp_path / "out", "hf")
    assert said["weights"]["sha256"] == sha256(tmp_path / "out" / "model.safetensors")
    assert said["merged"]["sha256"] == sha256(layout.merged(0, METHOD))
    assert (said["profile"], said["method"], said["seed"]) == ("small", METHOD, 0)
    assert said["checkpoint"] == {
        **{"family": "hf", "source": "openai/clip-vit-base-patch32"},
        **{"hub": "openai/clip-vit-base-patch32", "revision": "c" * 40, "sha256": "a" * 64},
    }
    assert said["git"] == GIT
    for fact in (GIT["commit"], "c" * 40, "a" * 64, said["weights"]["sha256"]):
        assert fact in card


def test_labels_hold_title_classes_and_templates(pairs, tmp_path):
    config, _ = pairs
    exported(pairs, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert said == {
        name: {
            "title": config.task(name).title,
            "classes": list(config.task(name).classes),
            "templates": list(config.task(name).templates),
        }
        for name in TASKS
    }
