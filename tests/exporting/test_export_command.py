"""`adamerge export` at the command line: what it refuses, replaces and leaves behind."""

import errno
import importlib

import pytest
import torch
from finished import finished_project
from stage_project import call, refused, tree

from pipeline.checkpoints.weights import load_weights, save_weights
from pipeline.classifier import default_method
from pipeline.layout import Layout

METHOD = "adamerging_layerwise"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def out(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(shared[0].root)
    return tmp_path / "out"


def test_the_default_method_is_layer_wise_adamerging(shared, out, capsys):
    assert default_method(shared[0]) == METHOD
    code, _ = call("export", capsys, out=out)
    assert code == 0 and '"method": "adamerging_layerwise"' in (out / "provenance.json").read_text()


@pytest.mark.parametrize(
    ("learned", "merged", "chosen"),
    [
        (["adamerging_taskwise"], ["pretrained", "tsv_m", "ties", "experts"], "ties"),
        (["adamerging_taskwise"], ["pretrained", "emr", "experts"], "adamerging_taskwise"),
        (["task_arithmetic_tuned"], ["pretrained", "regmean", "experts"], "regmean"),
    ],
)
def test_without_it_the_first_single_model_without_labels(shared, learned, merged, chosen):
    profile = shared[0].profile
    sections = {
        "learn": profile.learn.model_copy(update={"methods": tuple(learned)}),
        "merge": profile.merge.model_copy(update={"methods": tuple(merged)}),
    }
    changed = profile.model_copy(update=sections)
    assert default_method(shared[0].model_copy(update={"profile": changed})) == chosen


def test_a_profile_without_such_a_method_is_refused(shared):
    from pipeline.errors import UserError

    profile = shared[0].profile
    sections = {
        "learn": profile.learn.model_copy(update={"methods": ("task_arithmetic_tuned",)}),
        "merge": profile.merge.model_copy(update={"methods": ("pretrained", "experts")}),
    }
    config = shared[0].model_copy(update={"profile": profile.model_copy(update=sections)})
    with pytest.raises(UserError, match="no method that merges into one model without labels"):
        default_method(config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "experts"}, "Experts (upper bound) is no single model"),
        ({"method": "emr"}, "adamerge predict --method emr --task svhn"),
        ({"method": "tise"}, "Did you mean ties"),
        ({"seed": 7}, "no seed 7. Available: 0"),
        ({"form": "onnx"}, "Unknown format 'onnx'"),
        ({"profile": "smal"}, "Did you mean small"),
    ],
)
def test_refused_by_name(out, capsys, options, words):
    assert words in refused("export", capsys, out=out, **options)
    assert not out.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_file_is_no_place(out, capsys, name):
    assert name in refused("export", capsys, out=out.with_name(name))


def test_the_projects_own_files_are_no_place(shared, out, capsys):
    inside = shared[1].artifacts / "export"
    assert "lies inside the other" in refused("export", capsys, out=inside)


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(out, capsys):
    code, _ = call("export", capsys, out=out, form="hf", dry_run=True)
    assert code == 0 and not out.exists()
    importlib.import_module("stages.export").main(out, form="hf", dry_run=True)
    said = capsys.readouterr().out
    call("export", capsys, out=out, form="hf")
    for path in out.iterdir():
        assert path.name in said
    size = (out / "model.safetensors").stat().st_size
    assert f"model.safetensors: {size / 1e6:,.1f}" in said


def test_nothing_is_overwritten_unless_asked_for(out, capsys):
    call("export", capsys, out=out)
    before = tree(out)
    assert "--force" in refused("export", capsys, out=out, method="ties")
    assert tree(out) == before
    code, _ = call("export", capsys, out=out, method="ties", form="hf", force=True)
    assert code == 0 and (out / "config.json").exists()
    assert not (out / "open_clip_config.json").exists()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("spoil", ["notes.txt", "folder", "alone"])
def test_force_removes_nothing_but_an_export(out, capsys, spoil):
    if spoil == "alone":
        out.mkdir()
        (out / "README.md").write_text("mine", encoding="utf-8")
    else:
        call("export", capsys, out=out)
        (out / spoil).mkdir() if spoil == "folder" else (out / spoil).write_text("mine")
    before = tree(out)
    assert "was not written by 'adamerge export'" in refused("export", capsys, out=out, force=True)
    assert tree(out) == before


def test_a_full_disk_leaves_what_was_there(out, capsys, monkeypatch):
    call("export", capsys, out=out)
    before = tree(out.parent)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.exporting.model_card", full)
    assert "the disk is full" in refused("export", capsys, out=out, force=True)
    assert tree(out.parent) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("lacking", "stage"),
    [("merged", "merge"), ("head", "experts"), ("pretrained", "fetch"), ("tasks", "fetch")],
)
def test_what_is_missing_is_said_with_its_stage(tmp_path, monkeypatch, capsys, lacking, stage):
    config, layout = finished_project(tmp_path / "project")
    monkeypatch.chdir(config.root)
    places = {
        **{"merged": layout.merged(0, METHOD), "head": layout.head("svhn")},
        **{"pretrained": layout.pretrained, "tasks": layout.tasks},
    }
    places[lacking].unlink()
    assert f"python -m stages.{stage}" in refused("export", capsys, out=tmp_path / "out")


def test_weights_that_are_no_numbers_are_refused(tmp_path, monkeypatch, capsys):
    config, layout = finished_project(tmp_path / "project")
    monkeypatch.chdir(config.root)
    weights = load_weights(layout.merged(0, METHOD), "")
    weights["visual.proj"][0, 0] = torch.nan
    save_weights(layout.merged(0, METHOD), weights, {})
    assert "NaN or infinity" in refused("export", capsys, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_several_seeds_the_first_unless_named(tmp_path, monkeypatch, capsys):
    config, _ = finished_project(tmp_path / "project", seeds=[3, 1])
    monkeypatch.chdir(config.root)
    assert Layout(config.root, "small").merged(1, METHOD).exists()
    for seed, expected in ((None, 3), (1, 1)):
        call("export", capsys, out=tmp_path / str(seed), seed=seed)
        said = (tmp_path / str(seed) / "provenance.json").read_text(encoding="utf-8")
        assert f'"seed": {expected},' in said
