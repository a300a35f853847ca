"""The stage `study`: which snapshots it takes, what it keeps, and how it goes on."""

import numpy as np
import pytest
import torch
import yaml
from made_up_study import model
from stage_project import TASKS, call, half_written, tree

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.learning import LearningOptions, learn_coefficients
from pipeline.learning.schedules import SCHEDULES
from pipeline.study import objectives, traces
from pipeline.study.measuring import Judge, Measured
from pipeline.study.pages import study_blocks
from pipeline.study.traces import learn_trace, load_trace, save_trace, snapshot_steps

tracked = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


# ---- Snapshots


def test_snapshots_of_many_and_of_few_steps():
    fine = snapshot_steps(LearningOptions(schedule="paper"))
    assert fine == {*range(50, 301, 50), *range(325, 500, 25)}
    coarse = snapshot_steps(LearningOptions(schedule="paper", granularity="task"))
    assert coarse == {100, 200, 300, 400}
    assert snapshot_steps(LearningOptions(schedule="fast", steps=60)) == {*range(5, 60, 5)}
    for granularity in ("layer", "task"):
        for schedule in SCHEDULES:
            few = LearningOptions(granularity=granularity, schedule=schedule, steps=3)
            assert snapshot_steps(few) <= {0, 1, 2}


def test_a_trace_begins_before_learning_and_ends_with_its_result(vectors, fit_data, tmp_path):
    options = LearningOptions(schedule="fast", steps=6, batch=4)
    trace = learn_trace(vectors, fit_data, options, seed=3)
    assert trace.steps == (0, 1, 2, 3, 4, 5, 6) and trace.seconds[0] == 0
    assert list(trace.seconds) == sorted(trace.seconds)
    assert trace.facts["seconds_in_all"] >= trace.seconds[-1] > 0
    assert bool((trace.values[0] == 0.3).all())
    learned = learn_coefficients(vectors, fit_data, options, seed=3)
    assert torch.equal(trace.values[-1], learned.values)
    assert not torch.equal(trace.values[-1], trace.values[-2])
    save_trace(tmp_path / "trace.safetensors", trace)
    again = load_trace(tmp_path / "trace.safetensors", "")
    assert torch.equal(again.values, trace.values)
    assert (again.steps, again.seconds, again.facts) == (trace.steps, trace.seconds, trace.facts)


def test_measurements_are_read_back_and_damage_is_named(tmp_path):
    path = tmp_path / "found.npz"
    model(30, ripple=0.1).save(path)
    again = Measured.load(path, "")
    assert (again.accuracy, again.entropy) == (30, pytest.approx(2.0))
    assert set(again.correct) == {"a", "b"}
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="is damaged"):
        Measured.load(path, "make study")


# ---- The stage


@pytest.fixture
def study(project, capsys):
    """A small project in which the study can run, and how to run it."""
    profile = yaml.safe_load((project / "profiles" / "ci.yaml").read_text(encoding="utf-8"))
    profile["learn"]["steps"] = 4
    (project / "profiles" / "ci.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    return project, lambda: call("study", capsys, only=["schedules", "objectives"])


def forbid(monkeypatch, name, kind=AssertionError, after=0):
    """Make a part of the study fail from its call number `after` on."""
    owner, attribute = name
    real, calls = getattr(owner, attribute), []

    def fail(*arguments, **options):
        calls.append(1)
        if len(calls) > after:
            raise kind("computed again")
        return real(*arguments, **options)

    monkeypatch.setattr(owner, attribute, fail)


@tracked
def test_the_study_of_a_small_project(study, monkeypatch):
    project, run = study
    assert run()[0] == 0
    layout = Layout(project, "ci")
    found = read_json(layout.metric("schedules"), "")
    rows = read_json(layout.metric("objectives"), "")["rows"]
    assert found["tasks"] == TASKS
    assert [machine["device"] for machine in found["machines"]] == ["cpu"]
    assert (found["unlabeled_images"], found["eval_images"]) == (10, 12)
    layerwise = found["methods"]["adamerging_layerwise"]["seeds"]["0"]
    assert layerwise["fast"]["curve"]["steps"] == [0, 1, 2, 3, 4]
    assert layerwise["paper"]["curve"]["steps"][0] == 0
    assert layerwise["paper"]["end"]["steps"] == 4
    assert list(rows) == list(objectives.CASES)
    # The row `entropy` is the run that the schedules were compared with.
    assert rows["entropy"]["avg"] == layerwise["fast"]["end"]["accuracy"]
    assert rows["entropy"]["entropy"] == layerwise["fast"]["end"]["entropy"]
    assert not half_written(project)

    kept, before = tree(project / ".cache"), tree(project / "metrics")
    forbid(monkeypatch, (traces, "learn_coefficients"))
    forbid(monkeypatch, (Judge, "measure"))
    assert run()[0] == 0
    assert tree(project / ".cache") == kept and tree(project / "metrics") == before
    blocks = study_blocks(layout)
    assert all(blocks[name] for name in ("schedules-study", "objectives-study"))


@tracked
def test_a_study_that_was_killed_goes_on(study, monkeypatch):
    project, run = study
    with monkeypatch.context() as patch:
        forbid(patch, (Judge, "measure"), kind=KeyboardInterrupt, after=7)
        with pytest.raises(KeyboardInterrupt):
            run()
    kept = tree(project / ".cache" / "study")
    assert sum(name.endswith(".npz") for name in kept) == 7
    learned = sum(name.endswith(".safetensors") for name in kept)
    assert not Layout(project, "ci").metric("schedules").exists()

    calls = []
    real = traces.learn_coefficients
    monkeypatch.setattr(
        traces, "learn_coefficients", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    assert run()[0] == 0
    everything = tree(project / ".cache" / "study")
    assert kept.items() <= everything.items()
    runs = sum(name.endswith(".safetensors") for name in everything)
    assert learned >= 1 and len(calls) == runs - learned


@tracked
def test_other_images_are_another_study(study, monkeypatch):
    from pipeline.data import save_array

    project, run = study
    assert run()[0] == 0
    layout = Layout(project, "ci")
    labels = np.load(layout.labels(0, "dtd", "eval"))
    save_array(layout.labels(0, "dtd", "eval"), labels[::-1].copy())
    before = set(tree(project / ".cache"))
    assert run()[0] == 0
    new = set(tree(project / ".cache")) - before
    # Learning sees no labels: it is not repeated.
    assert new and all(name.endswith(".npz") for name in new)


@tracked
@pytest.mark.parametrize(
    ("path", "made_by"),
    [
        ("experts/seed-0/dtd.safetensors", "experts"),
        ("vectors/seed-0/dtd.safetensors", "vectors"),
        ("data/seed-0/dtd/adapt/images.npy", "fetch"),
    ],
)
def test_what_is_missing_is_said_first(path, made_by, study):
    project, run = study
    (project / "artifacts" / "ci" / path).unlink()
    code, error = run()
    assert code == 2 and f"made by 'python -m stages.{made_by}'" in error
