"""Stages at the command line: quick to start, and what is missing is said before they start."""

import importlib
import os
import resource
import runpy
import shutil
import subprocess
import sys

import pytest
import typer
from stage_project import STAGES, refused, tree
from tiny import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

MODULES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem[0] != "_")
COMMANDS = [name for name in MODULES if name != "cli"]
HEAVY = ("torch", "open_clip", "mlflow", "matplotlib", "pandas", "scipy")
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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_module_has_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"stages.{name}", "--help"])
    monkeypatch.setenv("COLUMNS", "120")
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

    from stages.cli import TOOLS, app

    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    tools = [module.__name__.rpartition(".")[2] for module in TOOLS]
    # `make` alone needs these two: they change the project's own pages and settings.
    assert sorted([*STAGES, *tools]) == sorted({*COMMANDS} - {"readme", "repro"})
    assert all(f" {name} " in result.output for name in (*STAGES, *tools))
    assert "Did you mean" in CliRunner().invoke(app, ["evalute"]).output


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


def test_a_read_only_tracking_folder(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/mlflow.db")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "MLflow cannot record in /proc/mlflow.db" in refused("fetch", capsys)
