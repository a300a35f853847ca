"""Stages on a small project: damaged inputs end in one sentence, whole ones in whole results."""

import os
import shutil

import numpy as np
import pytest
import torch
from stage_project import TASKS, call, half_written, refused, tree

from pipeline.checkpoints.weights import save_weights
from pipeline.config import load_config
from pipeline.data import save_array
from pipeline.files import read_json, sha256
from pipeline.layout import Layout

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_shipped_checkpoint_that_changed_is_refused(content, root, capsys):
    (root / "zoo" / "mini-clip.safetensors").write_bytes(content)
    error = refused("fetch", capsys)
    assert "is damaged or not the one the profile names" in error
    assert not (root / "artifacts").exists()


@pytest.mark.parametrize(
    ("path", "stage", "made_by"),
    [
        ("pretrained.safetensors", "experts", "fetch"),
        ("experts/seed-0/dtd.safetensors", "vectors", "experts"),
        ("vectors/seed-0/dtd.safetensors", "merge", "vectors"),
        ("coefficients/seed-0/adamerging_layerwise.safetensors", "merge", "learn"),
        ("merged/seed-0/ties.safetensors", "evaluate", "merge"),
        ("heads/dtd.safetensors", "generalization", "experts"),
        ("data/seed-0/dtd/eval/images.npy", "evaluate", "fetch"),
    ],
)
def test_damaged_and_missing_files_name_the_stage_to_run(path, stage, made_by, project, capsys):
    file = project / "artifacts" / "ci" / path
    file.write_bytes(file.read_bytes()[:50])
    shutil.rmtree(project / ".cache")
    error = refused(stage, capsys)
    assert f"{path} is damaged" in error and f"run 'python -m stages.{made_by}'" in error
    file.unlink()
    error = refused(stage, capsys)
    assert f"{path} is missing" in error and f"made by 'python -m stages.{made_by}'" in error
    assert not half_written(project)


@pytest.mark.parametrize("stage", ["experts", "evaluate", "generalization"])
def test_a_class_list_that_does_not_match_the_labels(stage, project, capsys):
    layout = Layout(project, "ci")
    for split in ("train", "eval"):
        labels = np.load(layout.labels(0, "cars", split))
        labels[1] = 8
        save_array(layout.labels(0, "cars", split), labels)
    before = tree(project / "metrics")
    assert "8 class names: the class list does not belong" in refused(stage, capsys)
    assert not half_written(project) and tree(project / "metrics") == before


@pytest.mark.parametrize(
    ("split", "stage"), [("train", "experts"), ("adapt", "learn"), ("eval", "evaluate")]
)
def test_a_task_without_images(split, stage, project, capsys):
    layout = Layout(project, "ci")
    save_array(layout.images(0, "dtd", split), np.empty((0, 3, 32, 32), np.uint8))
    if split != "adapt":
        save_array(layout.labels(0, "dtd", split), np.empty(0, np.int64))
    error = refused(stage, capsys)
    assert "'dtd' has no" in error and "images" in error
    assert not half_written(project)


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("vectors", {"experts/seed-0/dtd.safetensors": "experts"}),
        ("merge", {"vectors/seed-0/dtd.safetensors": "vectors"}),
        ("evaluate", {"merged/seed-0/ties.safetensors": "merge"}),
    ],
)
def test_weights_of_another_model_are_named(stage, change, project, capsys):
    [path] = change
    save_weights(project / "artifacts" / "ci" / path, {"visual.proj": torch.ones(2, 2)}, {})
    error = refused(stage, capsys)
    assert "dtd" in error or "ties" in error
    assert "lacks" in error and not half_written(project)


@pytest.mark.parametrize("number", [28, 30, 13])
def test_a_folder_that_cannot_be_written_to(number, project, monkeypatch, capsys):
    """Full disk, read-only file system, no permission (which a test as root cannot have)."""
    before = tree(project)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.replace", fail)
    assert "Cannot write" in refused("vectors", capsys)
    monkeypatch.undo()
    assert tree(project) == before


def test_cuda_where_there_is_none(project, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (project / "params.yaml").write_text("profile: ci\ndevice: cuda\n", encoding="utf-8")
    assert "there is no CUDA GPU: set 'auto' in params.yaml" in refused("merge", capsys)


def test_a_second_run_finds_everything_in_the_cache(project, capsys):
    before = tree(project / "artifacts")
    for stage in ("experts", "vectors", "learn", "merge", "evaluate"):
        assert call(stage, capsys)[0] == 0
    after = tree(project / "artifacts")
    changed = {name for name in before if before[name] != after[name]}
    # How long something took may differ; what came out may not.
    assert all("/runs/" in name or name.endswith("merged/seed-0/summary.json") for name in changed)


def test_an_experiment_in_another_folder_uses_the_projects_cache(
    project, tmp_path, monkeypatch, capsys
):
    elsewhere = tmp_path / "temporary"
    shutil.copytree(project, elsewhere, ignore=shutil.ignore_patterns(".cache", "mlflow*"))
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(elsewhere)
    before = tree(project / ".cache" / "coefficients")
    assert call("learn", capsys)[0] == 0
    assert not (elsewhere / ".cache").exists()
    assert tree(project / ".cache" / "coefficients") == before


def test_what_the_stages_write(made):
    layout = Layout(made, "ci")
    clean = read_json(layout.metric("clean"), "")
    assert list(clean) == list(load_config(made).methods)
    assert all(set(row["tasks"]) == set(TASKS) for row in clean.values())
    # Two steps of training need not classify anything correctly; then there is no share of it.
    assert clean["experts"].get("normalized", 100) == 100
    robust = read_json(layout.metric("robustness"), "")
    assert set(robust["adapted"]) == {"adamerging_layerwise"}
    with np.load(layout.robustness(0, "ties")) as file:
        assert file["correct"].shape == (1, 3, 1, 6)
    assert read_json(layout.metric("generalization"), "")["unseen_dtd"]["ties"]["tasks"].keys() == {
        *TASKS
    }
    learned = read_json(layout.metric("learning"), "")
    assert learned["adamerging_layerwise"]["steps"] == 3
    assert learned["task_arithmetic_tuned"]["coefficient_mean"] in (0.1, 0.3)
    assert not half_written(made)
    assert not (made / "mlflow.db").exists()


def test_no_labels_are_stored_for_adapt(made):
    layout = Layout(made, "ci")
    assert not layout.labels(0, "cars", "adapt").exists()
    facts = read_json(layout.splits(0, "cars"), "")
    assert {split: facts[split]["images"] for split in facts} == {
        "train": 16,
        "adapt": 10,
        "select": 8,
        "eval": 12,
    }
    assert all(facts[split]["sha256"] == sha256(layout.images(0, "cars", split)) for split in facts)


def test_generalization_learns_nothing_twice(project, monkeypatch, capsys):
    metric = Layout(project, "ci").metric("generalization")
    before = read_json(metric, "")
    monkeypatch.setattr("pipeline.learning.learn_coefficients", None)  # all is in the cache
    assert call("generalization", capsys)[0] == 0
    assert read_json(metric, "") == before
