"""Stages at the command line: quick to start, and mistakes end in one sentence and exit code 2."""

import importlib
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import typer
import yaml
from conftest import ARCHITECTURE, ROOT

from pipeline.checkpoints import save_weights
from pipeline.clip import build_clip
from pipeline.config import load_config
from pipeline.data import save_array
from pipeline.files import read_json, sha256
from pipeline.layout import Layout
from stages import fetch

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

STAGES = (
    *("fetch", "experts", "vectors", "learn", "merge"),
    *("evaluate", "robustness", "generalization", "report"),
)
MODULES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem[0] != "_")
HEAVY = ("torch", "open_clip", "mlflow", "matplotlib", "pandas", "scipy")
TASKS = ["cars", "dtd"]
HELP_CPU_SECONDS = 0.7


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_importing_every_stage_imports_nothing_heavy():
    names = ", ".join(f"stages.{name}" for name in MODULES)
    heavy = command("-c", f"import sys, {names}; print(*{set(HEAVY)} & set(sys.modules))").stdout
    assert heavy.strip() == ""


def test_help_costs_little():
    costs = []
    while len(costs) < 3 and min(costs, default=1) >= HELP_CPU_SECONDS:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "--profile" in command("-m", "stages.learn", "--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < HELP_CPU_SECONDS


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_help(name, monkeypatch, capsys):
    if name == "cli":
        pytest.skip("a console script, tested below")
    monkeypatch.setattr(sys, "argv", [f"stages.{name}", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "stages" / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    summary = importlib.import_module(f"stages.{name}").main.__doc__.strip()
    assert "Usage:" in shown and summary.split("\n")[0] in shown
    if name in STAGES:
        assert "--profile" in shown and "--dry-run" in shown


def test_the_console_script_gathers_every_stage():
    from typer.testing import CliRunner

    from stages.cli import app

    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert all(f" {stage} " in result.output for stage in STAGES)
    assert "Did you mean" in CliRunner().invoke(app, ["evalute"]).output


@pytest.fixture
def root(tmp_path, empty_store, monkeypatch):
    """The current folder: a project with params.yaml, a small profile and its checkpoint."""
    folder = tmp_path / "project"
    write_project(folder)
    enter(folder, empty_store, monkeypatch)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory, empty_store):
    """A project in which every stage up to `generalization` has run."""
    folder = tmp_path_factory.mktemp("made")
    write_project(folder)
    layout = write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, empty_store, patch)
        for stage in STAGES[1:-1]:
            importlib.import_module(f"stages.{stage}").main()
            assert layout.run(stage).is_file()
    return folder


@pytest.fixture
def project(made, tmp_path, empty_store, monkeypatch):
    """A copy of `made` to spoil."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    enter(folder, empty_store, monkeypatch)
    return folder


def enter(folder, empty_store, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    database = folder.parent / f"{folder.name}.db"
    shutil.copy(empty_store, database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")


def write_project(folder):
    """params.yaml, profiles/ci.yaml and zoo/mini-clip.safetensors."""
    from pipeline.tasks.mini.corpus import vocabulary

    words = vocabulary()
    text = ARCHITECTURE["text_cfg"] | {"context_length": 12}
    architecture = ARCHITECTURE | {"text_cfg": text}
    checkpoint = folder / "zoo" / "mini-clip.safetensors"
    facts = {"architecture": json.dumps(architecture), "vocabulary": json.dumps(words)}
    save_weights(checkpoint, build_clip(architecture, words, 20.0).model.state_dict(), facts)

    profile = yaml.safe_load((ROOT / "profiles" / "ci.yaml").read_text(encoding="utf-8"))
    profile["checkpoint"]["sha256"] = sha256(checkpoint)
    profile["tasks"] = TASKS
    profile["data"] = {"train": 16, "adapt": 10, "select": 8, "eval": 12}
    profile["experts"] |= {"steps": 2, "batch": 4}
    profile["learn"] |= {"steps": 3, "batch": 4, "grid": [0.1, 0.3]}
    profile["learn"]["methods"] = ["adamerging_layerwise", "task_arithmetic_tuned"]
    profile["robustness"] |= {"tasks": ["cars"], "corruptions": ["contrast"], "images": 6}
    profile["robustness"]["adapted"]["steps"] = 2
    splits = {"unseen_dtd": {"seen": ["cars"], "unseen": ["dtd"]}}
    methods = ["ties", "adamerging_layerwise"]
    profile["generalization"] = {"methods": methods, "steps": 2, "splits": splits}
    (folder / "profiles").mkdir()
    (folder / "profiles" / "ci.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    (folder / "params.yaml").write_text("profile: ci\ndevice: cpu\n", encoding="utf-8")


def write_inputs(folder):
    """What `fetch` writes, without its worker processes."""
    config, layout = load_config(folder), Layout(folder, "ci")
    layout.pretrained.parent.mkdir(parents=True)
    shutil.copy(folder / config.profile.checkpoint.path, layout.pretrained)
    for task in TASKS:
        fetch.draw_task(layout, config.profile.data.model_dump(), 0, task)
    return layout


def call(name, capsys, **options):
    """Exit code and what a stage prints on stderr; any other exception than an exit gets out."""
    capsys.readouterr()
    try:
        importlib.import_module(f"stages.{name}").main(**options)
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    return code, capsys.readouterr().err


def refused(name, capsys, **options):
    """The one sentence with which a stage refuses."""
    code, error = call(name, capsys, **options)
    assert code == 2, error
    assert error.startswith("Error: ") and error.count("\n") == 1
    assert error.rstrip()[-1] in ".?"
    return error


def tree(folder):
    """Every file with its content's hash, without MLflow's lock."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def half_written(folder):
    return [path for path in folder.rglob(".*") if path.is_file() and path.suffix != ".lock"]


FIRST = {
    "fetch": "git checkout -- zoo/mini-clip.safetensors",
    "experts": "python -m stages.fetch",
    "vectors": "python -m stages.fetch",
    "learn": "python -m stages.fetch",
    "merge": "python -m stages.fetch",
    "evaluate": "python -m stages.fetch",
    "robustness": "python -m stages.fetch",
    "generalization": "python -m stages.fetch",
    "report": "python -m stages.evaluate",
}


@pytest.mark.parametrize(
    ("stage", "dry_run"), [*((stage, True) for stage in STAGES), ("fetch", False), ("merge", False)]
)
def test_a_stage_before_its_inputs_names_the_one_to_run(stage, dry_run, root, capsys):
    shutil.rmtree(root / "zoo")
    before = tree(root)
    error = refused(stage, capsys, dry_run=dry_run)
    assert "is missing" in error and FIRST[stage] in error
    assert tree(root) == before


@pytest.mark.parametrize("stage", STAGES)
def test_dry_run_says_what_would_be_done_and_writes_nothing(stage, project, capsys):
    before = tree(project)
    importlib.import_module(f"stages.{stage}")
    with pytest.raises(typer.Exit) as end:
        sys.modules[f"stages.{stage}"].main(dry_run=True)
    assert end.value.exit_code == 0
    assert capsys.readouterr().out.startswith(f"{stage}: ")
    assert tree(project) == before


READS = {
    "experts": ["pretrained", "data/train"],
    "vectors": ["pretrained", "experts"],
    "learn": ["pretrained", "data/adapt", "data/select", "heads", "vectors"],
    "merge": ["pretrained", "vectors", "coefficients"],
    "evaluate": ["pretrained", "data/eval", "heads", "experts", "merged"],
    "robustness": [
        *("pretrained", "data/eval", "data/adapt", "heads"),
        *("experts", "vectors", "merged", "predictions"),
    ],
    "generalization": ["pretrained", "data/eval", "data/adapt", "heads", "vectors"],
}
WRITERS = {"pretrained": "fetch", "data": "fetch", "heads": "experts", "coefficients": "learn"}
WRITERS |= {"merged": "merge", "predictions": "evaluate"}


def read_by(kind, artifacts):
    """The files of a kind that every stage which reads the kind needs; `cars` is tested by all."""
    folder, _, split = kind.partition("/")
    if folder == "pretrained":
        return [artifacts / "pretrained.safetensors"]
    if folder == "data":
        return sorted(artifacts.glob(f"data/seed-0/cars/{split}/*.npy"))
    found = [path for path in artifacts.glob(f"{folder}/**/*") if path.suffix != ".json"]
    return sorted(path for path in found if path.is_file() and path.stem != "dtd")


@pytest.mark.parametrize("stage", READS)
def test_everything_that_a_stage_reads_is_checked_before_it_starts(stage, project, capsys):
    for kind in READS[stage]:
        made_by = WRITERS.get(kind.partition("/")[0], kind)
        paths = read_by(kind, project / "artifacts" / "ci")
        assert paths
        for path in paths:
            path.rename(project / "away")
            error = refused(stage, capsys, dry_run=True)
            assert str(path) in error and f"made by 'python -m stages.{made_by}'" in error
            (project / "away").rename(path)


@pytest.mark.parametrize("stage", STAGES)
def test_unknown_profile(stage, root, capsys):
    assert "'cii'. Did you mean ci?" in refused(stage, capsys, profile="cii")


def test_outside_of_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no params.yaml" in refused("learn", capsys)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_unreachable_mlflow_server_is_said_before_anything_is_done(
    dry_run, root, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    before = tree(root)
    error = refused("fetch", capsys, dry_run=dry_run)
    assert "MLflow server at http://127.0.0.1:9 does not answer" in error
    assert "secret" not in error and tree(root) == before


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
    import torch

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


def test_a_read_only_tracking_folder(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/mlflow.db")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "MLflow cannot record in /proc/mlflow.db" in refused("fetch", capsys)


def test_cuda_where_there_is_none(project, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (project / "params.yaml").write_text("profile: ci\ndevice: cuda\n", encoding="utf-8")
    assert "there is no CUDA GPU: set 'auto' in params.yaml" in refused("vectors", capsys)


def test_a_second_run_finds_everything_in_the_cache(project, capsys):
    before = tree(project / "artifacts")
    for stage in ("experts", "vectors", "learn", "merge", "evaluate"):
        assert call(stage, capsys)[0] == 0
    after = tree(project / "artifacts")
    changed = {name for name in before if before[name] != after[name]}
    # How long something took may differ; what came out may not.
    assert all("/runs/" in name or name.endswith("merged/seed-0/summary.json") for name in changed)


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
