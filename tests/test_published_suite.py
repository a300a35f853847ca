"""Eight published tasks in small, from the hub to the report, against what `transformers` makes."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from loopback_hub import LoopbackHub
from published_suite import (
    IMAGES,
    PRETRAINED,
    Pictures,
    add_images,
    add_models,
    expert_of,
    image_features,
    profile,
    seen,
    small_catalog,
    text_head,
)
from report_artifacts import Page
from safetensors.torch import load_file
from stage_project import STAGES, enter, half_written
from tiny import ROOT
from transformers import CLIPModel

from pipeline.checkpoints import load_metadata
from pipeline.clip import load_encoder
from pipeline.files import read_json, sha256
from pipeline.hub import Lock, Repository
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.tasks import get_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
]
TASKS = ("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
METHOD_NAMES = [
    *("pretrained", "weight_average", "task_arithmetic", "ties", "consensus_ta", "pcb", "tsv_m"),
    *("iso_c", "iso_cts", "wudi", "regmean", "adamerging_layerwise", "emr", "experts"),
]


@dataclass(frozen=True)
class Run:
    """A project in which every stage ran, and what lay on the hub."""

    root: Path
    layout: Layout
    models: dict[str, CLIPModel]  # task, or "pretrained" -> as published
    pictures: dict[str, Pictures]
    hub: LoopbackHub

    def stored(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """A task's images and labels of `eval`."""
        images, labels = (
            place(0, task, "eval") for place in (self.layout.images, self.layout.labels)
        )
        return np.load(images), np.load(labels)


@pytest.fixture(scope="module")
def run(tmp_path_factory, empty_store):
    folder = tmp_path_factory.mktemp("suite") / "project"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "x.yaml").write_text(yaml.safe_dump(profile()))
    (folder / "params.yaml").write_text("profile: x\ndevice: cpu\n")
    with pytest.MonkeyPatch.context() as patch, LoopbackHub() as hub:
        small_catalog(patch)
        enter(folder, empty_store, patch)
        hub.attach(folder.parent / "home", patch)
        models, pictures = add_models(hub, TASKS), add_images(hub, TASKS)
        for stage in (*STAGES, "track"):
            importlib.import_module(f"stages.{stage}").main()
        yield Run(folder, Layout(folder, "x"), models, pictures, hub)


def tensors_of(path):
    return load_file(path), load_metadata(path, "")


def test_nothing_is_left_half_written(run):
    assert not half_written(run.root)


@pytest.mark.parametrize("task", TASKS)
def test_all_images_in_random_order_with_their_classes(run, task):
    images, labels = run.stored(task)
    held = run.pictures[task]
    classes, rows = seen(images)
    assert sorted(rows) == list(range(IMAGES))
    assert np.array_equal(images, held.cropped[rows])
    assert labels.dtype == np.int64 and labels.tolist() == classes.tolist()
    # The data set is sorted by class: its first half is spread over both halves here.
    assert 3 < (rows[: IMAGES // 2] < IMAGES // 2).sum() < IMAGES // 2 - 3
    facts = read_json(run.layout.splits(0, task), "")
    assert facts.keys() == {"eval"}
    assert facts["eval"]["source_index"] == rows.tolist()
    assert facts["eval"]["sha256"] == sha256(run.layout.images(0, task, "eval"))


@pytest.mark.parametrize("task", ["pretrained", *TASKS])
def test_image_features_are_those_of_transformers(run, task):
    encoder, scale = load_encoder(run.layout.pretrained, "")
    if task != "pretrained":
        path = run.layout.expert(0, task)
        encoder.load(tensors_of(path)[0], str(path))
    images, _ = run.stored(TASKS[0])
    with torch.inference_mode():
        ours = encoder(torch.from_numpy(images))
    theirs = image_features(run.models[task], images)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert scale == pytest.approx(run.models["pretrained"].logit_scale.exp().item(), rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_heads_are_those_of_transformers(run, task):
    weights, facts = tensors_of(run.layout.head(task))
    assert torch.allclose(weights["weight"], text_head(run.models["pretrained"], task), atol=1e-5)
    assert json.loads(facts["classes"]) == list(get_task("hub", task).classes)


def test_accuracy_is_that_of_transformers(run):
    clean = read_json(run.layout.metric("clean"), "")
    assert list(clean) == METHOD_NAMES
    found = {}
    for task in TASKS:
        head = text_head(run.models["pretrained"], task)
        images, _ = run.stored(task)
        classes, _ = seen(images)
        for method, model in (
            ("pretrained", run.models["pretrained"]),
            ("experts", run.models[task]),
        ):
            best = (image_features(model, images) @ head.T).argmax(1).numpy()
            found[method, task] = round(100 * float((best == classes).mean()), 2)
            assert clean[method]["tasks"][task] == found[method, task]
    assert any(found.values()) and len(set(found.values())) > 1
    for method in ("pretrained", "experts"):
        average = np.mean([found[method, task] for task in TASKS])
        assert clean[method]["avg"] == pytest.approx(average, abs=0.02)


def test_report_has_the_published_figures_beside_ours(run):
    page = Page((run.layout.report / "index.html").read_text(encoding="utf-8"))
    assert "published" in page.sections
    head, experts, pretrained = page.tables[2][:3]
    assert [experts[0], pretrained[0]] == [METHODS[m].title for m in ("experts", "pretrained")]
    titles = [get_task("hub", task).title for task in TASKS]
    assert head[1:] == [*titles, "Average"]
    # Random models are far from the published figures, on every task.
    assert all(cell[0] in "▲▼" for row in (experts, pretrained) for cell in row[1:])
    assert "do not trust" in page.text


def test_report_does_without_torch(run):
    script = (
        "import sys; from stages.report import main; main(); "
        "print('loaded', *(name for name in ('torch', 'open_clip') if name in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=run.root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded"


def test_records_say_where_all_of_it_came_from(run):
    sources = read_json(run.layout.sources, "")
    lock = Lock.load(run.layout.lock)
    assert list(sources["experts"]) == list(sources["images"]) == list(TASKS)
    checkpoints = {PRETRAINED: (sources["pretrained"], run.layout.pretrained)} | {
        expert_of(task): (sources["experts"][task], run.layout.fetched(task)) for task in TASKS
    }
    for id, (facts, path) in checkpoints.items():
        repository = run.hub.repositories["model", id]
        commit = repository.branches["main"]
        weights = repository.commits[commit]["model.safetensors"]
        said = {"source": id, "revision": "main", "commit": commit, "file": "model.safetensors"}
        assert facts == said | {"sha256": weights.sha256}
        metadata = tensors_of(path)[1]
        assert facts.items() <= metadata.items() and metadata["family"] == "hf"
        locked = {file.path: file.digest for file in lock.files(Repository(id))}
        held = {name: content.etag for name, content in repository.commits[commit].items()}
        assert locked == held
    for task in TASKS:
        id = get_task("hub", task).source.repository
        commit = run.hub.repositories["dataset", id].branches["main"]
        facts = {"source": id, "revision": "main", "commit": commit, "files": 2}
        assert sources["images"][task] == facts
        assert {f.commit for f in lock.files(Repository(id, "dataset"))} == {commit}
    footer = Page((run.layout.report / "index.html").read_text(encoding="utf-8")).tables[-1]
    assert [row[1] for row in footer[1:]] == [
        *(f"{id}: model.safetensors" for id in checkpoints),
        *(sources["images"][task]["source"] for task in TASKS),
    ]


def test_stages_and_methods_are_in_mlflow(run):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run.root.parent / 'project.db'}")
    experiment = client.get_experiment_by_name("adamerge").experiment_id
    stages = client.search_runs([experiment], "tags.kind = 'stage'")
    assert {one.data.tags["dvc.stage"] for one in stages} == set(STAGES)
    assert {one.info.status for one in stages} == {"FINISHED"}
    rows = client.search_runs([experiment], "tags.kind = 'method'")
    clean = read_json(run.layout.metric("clean"), "")
    stored = {one.data.tags["method"]: one.data.metrics["clean/avg"] for one in rows}
    assert stored == {method: clean[method]["avg"] for method in METHOD_NAMES}
    assert {one.data.tags["checkpoint.family"] for one in rows} == {"hf"}
