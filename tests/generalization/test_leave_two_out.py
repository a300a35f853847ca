"""The stage `generalization`: seen tasks alone, every pair once, nothing computed twice."""

import os
import shutil
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import yaml
from four_tasks import SPLITS, TASKS, write_profile
from stage_project import call, half_written, refused
from tiny import ROOT

import pipeline.predictions
from pipeline.checkpoints.weights import load_weights
from pipeline.clip import load_encoder
from pipeline.data import load_array
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.merging import merge

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

PAIRS = ["+".join(pair) for pair in combinations(TASKS, 2)]
SEEDS = (0, 1)


def metrics(project):
    layout = Layout(project, "ci")
    return [read_json(layout.metric(name), "") for name in ("generalization", "leave_two_out")]


def forget(project):
    shutil.rmtree(project / ".cache")
    shutil.rmtree(project / "metrics")


@pytest.fixture
def tests_done(monkeypatch):
    """How many images are classified, call by call; `limit` of them end in Ctrl-C."""
    real = pipeline.predictions.predict

    class Counter(list):
        limit = 10**6

    done = Counter()

    def predict(*arguments):
        if len(done) == done.limit:
            raise KeyboardInterrupt
        done.append(len(arguments[3]))
        return real(*arguments)

    monkeypatch.setattr("pipeline.predictions.predict", predict)
    return done


def accuracies(project, seed, seen):
    """task -> percent of the pretrained model (nothing seen) or of TIES, by the library alone."""
    layout = Layout(project, "ci")
    encoder, scale = load_encoder(layout.pretrained, "")
    if seen:
        experts = {task: load_weights(layout.expert(seed, task), "") for task in seen}
        encoder.load(merge("ties", encoder.weights(), experts).weights(), "the merge")
    found = {}
    for task in TASKS:
        head = load_weights(layout.head(task), "")["weight"]
        images = load_array(layout.images(seed, task, "eval"), "")
        labels = load_array(layout.labels(seed, task, "eval"), "")
        predicted = pipeline.predictions.probabilities(encoder, head, scale, images).argmax(1)
        found[task] = 100 * float((predicted.numpy() == labels).mean())
    return found


def mean_over(found, tasks):
    return np.mean([[one[task] for task in tasks] for one in found])


def test_figures_are_those_of_the_merge_of_the_others(with_vectors):
    splits, pairs = metrics(with_vectors)
    start = [accuracies(with_vectors, seed, ()) for seed in SEEDS]
    for pair in (("svhn", "dtd"), ("cars", "mnist")):
        seen = [task for task in TASKS if task not in pair]
        found = [accuracies(with_vectors, seed, seen) for seed in SEEDS]
        row = pairs["ties"]["by_pair"]["+".join(pair)]
        assert row["seen"] == pytest.approx(mean_over(found, seen), abs=0.006)
        assert row["unseen"] == pytest.approx(mean_over(found, pair), abs=0.006)
        gap = mean_over(found, pair) - mean_over(start, pair)
        assert row["gap"] == pytest.approx(gap, abs=0.006)
        if pair == ("svhn", "dtd"):
            assert splits["unseen_svhn_dtd"]["ties"]["gap"] == row["gap"]
            own = mean_over(found, ["dtd"]) - mean_over(start, ["dtd"])
            assert splits["unseen_dtd"]["ties"]["gap"] == pytest.approx(own, abs=0.006)


def test_every_pair_is_left_out_once(with_vectors):
    splits, pairs = metrics(with_vectors)
    assert list(splits) == list(SPLITS)
    for rows in (*splits.values(), pairs):
        assert list(rows) == ["ties", "adamerging_layerwise"]  # pretrained was not asked for
    for row in pairs.values():
        assert list(row["by_pair"]) == PAIRS and row["pairs"] == len(PAIRS)
        assert len({own["gap"] for own in row["by_pair"].values()}) > 2  # they do differ
        assert all(
            set(own["tasks"]) == set(name.split("+")) for name, own in row["by_pair"].items()
        )
        assert list(row["tasks"]) == TASKS
    for method, row in splits["unseen_svhn_dtd"].items():
        pair = pairs[method]["by_pair"]["svhn+dtd"]
        assert {key: row[key] for key in ("seen", "unseen", "gap")} == {
            key: pair[key] for key in ("seen", "unseen", "gap")
        }


def test_the_pretrained_model_has_no_gap(four, capsys):
    write_profile(four, methods=["pretrained"])
    assert call("generalization", capsys)[0] == 0
    splits, pairs = metrics(four)
    for row in (*(rows["pretrained"] for rows in splits.values()), pairs["pretrained"]):
        assert row["gap"] == 0 and row["gap_interval"] == [0, 0]
    assert pairs["pretrained"]["pairs_above_zero"] == 0
    start = [accuracies(four, seed, ()) for seed in SEEDS]
    assert pairs["pretrained"]["unseen"] == pytest.approx(mean_over(start, TASKS), abs=0.006)


def test_nothing_of_an_unseen_task_is_read_but_its_test(four, capsys):
    before, _ = metrics(four)
    forget(four)
    write_profile(four, leave_two_out=False)
    layout = Layout(four, "ci")
    for seed in SEEDS:
        for task in ("svhn", "dtd"):
            for split in ("train", "adapt", "select"):
                layout.images(seed, task, split).unlink()
            layout.vector(seed, task).unlink()
            layout.expert(seed, task).unlink()
    assert call("generalization", capsys) == (0, "")
    splits, pairs = metrics(four)
    assert splits == before and pairs == {}
    write_profile(four, leave_two_out=True)  # now every task is seen by some merge
    assert "is missing" in refused("generalization", capsys)


def test_without_anything_asked_for_there_is_nothing(four, capsys, tests_done):
    write_profile(four, leave_two_out=False, splits={})
    assert call("generalization", capsys) == (0, "")
    assert metrics(four) == [{}, {}] and not tests_done


def test_a_merge_is_tested_once_and_a_killed_stage_goes_on(four, capsys, tests_done):
    before = metrics(four)
    forget(four)
    tests_done.limit = 37  # in the tenth of the models, four tasks each
    with pytest.raises(KeyboardInterrupt):
        call("generalization", capsys)
    assert not (four / "metrics").exists() and not half_written(four)
    tests_done.limit = 10**6
    assert call("generalization", capsys) == (0, "")
    models = len(SEEDS) * (1 + 2 * len(PAIRS))  # the splits add none: one merge is a pair's
    assert len(tests_done) == len(TASKS) * models + 1  # one was thrown away
    assert metrics(four) == before
    tests_done.clear()
    assert call("generalization", capsys) == (0, "")
    assert not tests_done and metrics(four) == before


def test_a_changed_option_tests_one_method_again(four, capsys, tests_done, monkeypatch):
    monkeypatch.setattr("pipeline.learning.learn_coefficients", None)
    path = four / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile["merge"]["options"] = {"ties": {"coefficient": 0.9}}
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    _, before = metrics(four)
    assert call("generalization", capsys) == (0, "")
    _, after = metrics(four)
    assert len(tests_done) == len(TASKS) * len(SEEDS) * len(PAIRS)
    assert after["ties"] != before["ties"]
    assert after["adamerging_layerwise"] == before["adamerging_layerwise"]


def test_a_damaged_entry_is_named(four, capsys):
    entry = next((four / ".cache" / "unseen").iterdir())
    entry.write_bytes(entry.read_bytes()[:80])
    assert f"{entry} is damaged" in refused("generalization", capsys)
    entry.unlink()
    assert call("generalization", capsys) == (0, "")


def test_processes_share_the_pairs(four):
    before = metrics(four)
    forget(four)
    path = four / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8")) | {"processes": 2}
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "stages.generalization"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 splits and 6 pairs x 2 methods, in 2 processes" in done.stdout
    assert metrics(four) == before and not half_written(four)
