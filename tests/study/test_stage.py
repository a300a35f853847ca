"""The stage `study`: which studies run, what they keep, and how they go on."""

import numpy as np
import pytest
import yaml
from made_up_figures import MADE
from stage_project import call, half_written, refused, tree

from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.study import traces
from pipeline.study.measuring import Judge
from pipeline.study.pages import study_blocks
from stages import _bench, _cost

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
QUICK = [name for name in MADE if name != "cost"]


def edit(project, change):
    path = project / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(profile)
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")


@pytest.fixture
def study(project, capsys):
    """A small project in which studies can run, and how to run some."""
    edit(project, lambda profile: profile["learn"].update(steps=4))
    return Layout(project, "ci"), lambda *only: call("study", capsys, only=list(only))


def counted(monkeypatch, owner, name, most=None):
    """Calls of a function; the one after `most` is a kill."""
    real, calls = getattr(owner, name), []

    def count(*arguments, **options):
        if len(calls) == most:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_every_study_of_a_small_project(study, monkeypatch):
    layout, run = study
    assert run(*QUICK)[0] == 0
    found = {name: read_json(layout.metric(name), "") for name in QUICK}
    assert not layout.metric("schedules").exists() and not layout.metric("cost").exists()
    rows = {name: found[name]["rows"] for name in ("budget", "initial", "granularity")}
    assert list(rows["budget"]) == ["before", "1", "4", "all"] and found["budget"]["all"] == 10
    assert list(rows["initial"]) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    # One run of learning, and one start, in all of them.
    assert rows["budget"]["all"]["seeds"] == rows["granularity"]["layer"]["seeds"]
    assert rows["budget"]["all"]["entropy"] == rows["initial"]["0.3"]["entropy"]
    assert rows["initial"]["0.3"]["start"]["avg"] == rows["budget"]["before"]["avg"]
    assert list(found["tasks"]["counts"]) == ["2"] and len(found["tasks"]["tuned"]["2"]) == 1
    choices = found["selection"]["choices"]
    assert list(choices) == ["step/adamerging_layerwise", "step/adamerging_taskwise", "variant"]
    assert choices["variant"]["rows"]["none"]["chosen"] == {"0": "entropy"}
    assert found["entropy_loss"]["machines"] == [] and found["budget"]["machines"]
    assert not half_written(layout.root)
    assert all(study_blocks(layout)[f"{name}-study"] for name in QUICK)

    kept, before = tree(layout.cache), tree(layout.metrics)
    learned = counted(monkeypatch, traces, "learn_coefficients", most=0)
    measured = counted(monkeypatch, Judge, "measure", most=0)
    assert run(*QUICK)[0] == 0
    assert tree(layout.cache) == kept and tree(layout.metrics) == before
    assert not learned and not measured


def test_a_study_that_was_killed_goes_on(study, monkeypatch):
    layout, run = study
    with monkeypatch.context() as patch:
        counted(patch, traces, "learn_coefficients", most=3)
        with pytest.raises(KeyboardInterrupt):
            run("budget", "initial")
    assert layout.metric("budget").exists() and not layout.metric("initial").exists()
    calls = counted(monkeypatch, traces, "learn_coefficients")
    assert run("budget", "initial")[0] == 0
    assert len(calls) == 4  # five first values, of which budget has learned one: one was left


def test_fewer_images_are_other_images_and_fewer(study, monkeypatch):
    _, run = study
    seen = []
    real = traces.learn_coefficients

    def learn(vectors, data, *arguments, **options):
        seen.append({task: len(images) for task, images in data.images.items()})
        return real(vectors, data, *arguments, **options)

    monkeypatch.setattr(traces, "learn_coefficients", learn)
    assert run("budget")[0] == 0
    assert [set(counts.values()) for counts in seen] == [{1}, {4}, {10}]


def test_the_profile_can_say_how_many_images(project, capsys):
    from pipeline.learning.feeding import draw_some
    from stages._learning import fit_data_of
    from stages._stage import stage

    with stage("study", "ci", dry_run=True) as run:
        whole, few = (fit_data_of(run, 0, ["cars", "dtd"], n).images for n in (None, 3))
        assert fit_data_of(run, 0, ["cars"], 99).images["cars"].shape == whole["cars"].shape
    for task in ("cars", "dtd"):
        rows = draw_some(0, task, len(whole[task]), 3)
        assert np.array_equal(few[task], whole[task][rows]) and len(rows) == 3
    assert call("learn", capsys)[0] == 0
    layout = Layout(project, "ci")
    before = tree(layout.artifacts / "coefficients")
    edit(project, lambda profile: profile["learn"].update(images=3))
    assert call("learn", capsys)[0] == 0
    changed = tree(layout.artifacts / "coefficients")
    assert {name for name in before if before[name] != changed[name]} == {
        "seed-0/adamerging_layerwise.safetensors"
    }


def test_the_cost_of_methods(study):
    layout, run = study

    def few(profile):
        profile["merge"] = {"methods": ["task_arithmetic"]}
        profile["learn"]["methods"] = []
        profile["robustness"]["adapted"]["methods"] = []
        profile["generalization"] = {"methods": ["task_arithmetic"], "splits": {}}

    edit(layout.root, few)
    code, error = run("cost")
    assert code == 0, error
    found = read_json(layout.metric("cost"), "")
    row = found["rows"]["task_arithmetic"]
    assert found["cost_seed"] == 0 and not row["learns"] and row["steps"] == 0
    assert 0 < row["seconds"] < 60 and 0 <= row["above_gb"] < row["peak_gb"] < 4
    (entry,) = (layout.cache / "study").glob("*.json")
    written = entry.stat().st_mtime_ns
    assert run("cost")[0] == 0
    assert entry.stat().st_mtime_ns == written  # not measured again


def test_learning_methods_have_a_cost(project, tmp_path):
    for method, steps in (("adamerging_layerwise", 3), ("task_arithmetic_tuned", 0)):
        _cost.main("ci", 0, method, str(tmp_path / "cost.json"))
        record = read_json(tmp_path / "cost.json", "")
        assert record["steps"] == steps and record["seconds"] > 0
        assert record["peak_gb"] >= record["before_gb"] > 0.1


def test_names_are_checked_before_anything_is_read(project, capsys):
    error = refused("study", capsys, only=["budgte"])
    assert "Unknown study 'budgte'. Did you mean budget?" in error


def test_predictions_and_select_are_needed_by_those_that_read_them(project, capsys):
    layout = Layout(project, "ci")
    layout.predictions(0, "experts", "dtd").unlink()
    assert "python -m stages.evaluate" in refused("study", capsys, only=["tasks"])
    edit(project, lambda profile: profile["merge"]["methods"].remove("experts"))
    assert "add it, or name other studies" in refused("study", capsys, only=["tasks"])
    layout.labels(0, "dtd", "select").unlink()
    assert "python -m stages.fetch" in refused("study", capsys, only=["selection"])
    assert call("study", capsys, only=["entropy_loss"])[0] == 0


def test_one_set_of_coefficients_is_measured_once(project):
    import torch

    same = _bench._digest(torch.full((1, 2), 0.3)) == _bench._digest(torch.full((5, 2), 0.3))
    assert same and _bench._digest(torch.eye(2)) != _bench._digest(torch.full((1, 2), 0.3))
