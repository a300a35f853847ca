"""What `evaluate` writes, recomputed from its predictions, and what makes it predict again."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from stage_project import TASKS, call, half_written, refused

from pipeline.config import load_config
from pipeline.evaluation import Predictions, brier_score, calibration_error_by_mass
from pipeline.files import read_json, write_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from stages.evaluate import COMPARED, best_of

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture
def clean(made):
    return read_json(Layout(made, "ci").metric("clean"), "")


def predictions(made, method):
    """Task -> predictions of the only seed."""
    layout = Layout(made, "ci")
    return {task: Predictions.load(layout.predictions(0, method, task), "") for task in TASKS}


def test_every_figure_is_the_mean_over_tasks(made, clean):
    for method, row in clean.items():
        found = predictions(made, method).values()
        assert row["avg"] == round(100 * np.mean([one.correct.mean() for one in found]), 2)
        assert row["worst"] == min(row["tasks"].values())
        assert row["brier"] == round(np.mean([brier_score(one) for one in found]), 4)
        mass = np.mean([calibration_error_by_mass(one) for one in found])
        assert row["ece_mass"] == pytest.approx(mass, abs=0.006)
        if not METHODS[method].reads("task_identity"):
            joint = 100 * np.mean([one.joint.mean() for one in found])
            assert row["joint"] == pytest.approx(joint, abs=0.006)
            assert row["joint"] <= row["joint_same_words"] <= row["avg"]


def test_models_that_need_the_task_have_no_joint_figures(made, clean):
    needy = [method for method in clean if METHODS[method].reads("task_identity")]
    assert "experts" in needy
    for method in needy:
        assert not {"joint", "joint_same_words"} & clean[method].keys()
        assert all(one.joint is None for one in predictions(made, method).values())


def test_methods_are_held_beside_the_reference_and_the_best(made, clean):
    best = best_of(clean)
    for method, row in clean.items():
        assert set(row["beside"]) == ({*COMPARED, best} & clean.keys()) - {method}
        low, high = row["avg_interval"]
        assert low <= row["avg"] <= high
        for other, pair in row["beside"].items():
            assert pair["difference"] == pytest.approx(row["avg"] - clean[other]["avg"], abs=0.011)
            assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
            theirs = clean[other]["tasks"]
            assert pair["wins"] == sum(row["tasks"][task] > theirs[task] for task in TASKS)
            assert pair["tasks"] == len(TASKS)


def test_the_best_is_one_model_that_needed_no_label():
    rows = {
        "pretrained": {"avg": 90},
        "task_arithmetic_tuned": {"avg": 80},
        "experts": {"avg": 99},
        "emr": {"avg": 95},
        "ties": {"avg": 60},
        "adamerging_layerwise": {"avg": 70},
    }
    assert best_of(rows) == "adamerging_layerwise"
    assert best_of({"pretrained": {"avg": 1}, "experts": {"avg": 2}}) is None


def test_another_tasks_head_changes_joint_figures_only(project, capsys):
    """Its rows are twice those of dtd: what dtd's classes are likely for becomes cars."""
    layout, methods = Layout(project, "ci"), load_config(project).methods
    single = [method for method in methods if not METHODS[method].reads("task_identity")]
    before = {m: predictions(project, m)["dtd"] for m in methods}
    heads = {task: load_file(layout.head(task))["weight"] for task in TASKS}
    heads["cars"][:7] = 2 * heads["dtd"]
    save_file({"weight": heads["cars"]}, layout.head("cars"))
    entries = set((project / ".cache" / "predictions").iterdir())
    assert call("evaluate", capsys)[0] == 0
    after = {m: predictions(project, m)["dtd"] for m in methods}
    for method in before:
        assert np.array_equal(after[method].p_label, before[method].p_label)
    assert after["experts"].joint is None
    right = [sum(found[m].joint.sum() for m in single) for found in (before, after)]
    assert right[0] > right[1]
    # Of the experts, cars alone is predicted again: no other sees that head.
    new = set((project / ".cache" / "predictions").iterdir()) - entries
    assert len(new) == len(single) * len(TASKS) + len(methods) - len(single)


def test_other_words_are_another_union(project, capsys):
    layout = Layout(project, "ci")
    words = json.loads(layout.tasks.read_text(encoding="utf-8"))
    words["cars"]["classes"][:7] = words["dtd"]["classes"]
    write_json(layout.tasks, words)
    before = read_json(layout.metric("clean"), "")
    entries = set((project / ".cache" / "predictions").iterdir())
    assert call("evaluate", capsys)[0] == 0
    after = read_json(layout.metric("clean"), "")
    for method, row in after.items():
        assert row["tasks"] == before[method]["tasks"]
        if "joint" in row:
            assert row["joint"] == before[method]["joint"]
            assert row["joint_same_words"] >= before[method]["joint_same_words"]
    new = set((project / ".cache" / "predictions").iterdir()) - entries
    assert len(new) == len(TASKS) * sum("joint" in row for row in after.values())


def test_heads_and_splits_of_other_data_are_refused(project, capsys):
    layout = Layout(project, "ci")
    shutil.rmtree(project / ".cache" / "predictions")
    words = layout.tasks.read_bytes()
    said = json.loads(words)
    said["cars"]["classes"].append("hovercraft")
    write_json(layout.tasks, said)
    error = refused("evaluate", capsys)
    assert "head of cars has 8 classes, but there are 9 class names" in error
    assert "stages.experts" in error
    layout.tasks.write_bytes(words)
    facts = read_json(layout.splits(0, "cars"), "")
    facts["eval"]["source_index"].pop()
    write_json(layout.splits(0, "cars"), facts)
    error = refused("evaluate", capsys)
    assert "splits.json names 11 images of eval, but 12 were classified" in error
    layout.splits(0, "cars").unlink()
    assert "splits.json is missing" in refused("evaluate", capsys)
    assert not half_written(project)
