"""The regression gate as a command, on a small git repository."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from pipeline import tracking
from stages import gate

ROOT = Path(__file__).parents[1]

Metrics = dict[str, Any]

HOW = (
    "gate: 1 of 4 averages compared by their 95 % intervals, the others by an allowance of 1 "
    "point and twice the standard deviation over seeds"
)
FELL = "clean/ties/avg fell: 71.20 -> 68.10 (-3.10, 95 % interval -4.00 to -2.20)"


@pytest.fixture
def metrics() -> Metrics:
    row = {"avg": 71.2, "avg_sd": 0.0, "avg_interval": [70.3, 72.1], "tasks": {"mnist": 71.2}}
    return {
        "clean": {"ties": row},
        "robustness": {"clean": {"ties": {"avg": 55.0, "avg_sd": 0.0}}},
        "generalization": {"unseen_mnist_eurosat": {"ties": {"seen": 72.0, "unseen": 40.0}}},
    }


@pytest.fixture
def worse(metrics: Metrics) -> Metrics:
    """The metrics after a fall beyond noise."""
    changed = copy.deepcopy(metrics)
    changed["clean"]["ties"].update(avg=68.1, avg_interval=[67.2, 69.0])
    return changed


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def write(folder: Path, metrics: Metrics) -> None:
    for name, content in metrics.items():
        path = folder / "metrics" / "mini" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Metrics")


def run(*options: str) -> Result:
    app = typer.Typer()
    app.command()(gate.main)
    return CliRunner().invoke(app, list(options))


@pytest.fixture
def project(tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters and metrics, not yet a repository; it is the working directory."""
    # A commit hook sets these; git would then look at the outer repository.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    folder = tmp_path / "project"
    (folder / "profiles").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / "profiles" / "mini.yaml", folder / "profiles")
    write(folder, metrics)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repository(project: Path) -> Path:
    """The project with its metrics committed."""
    git(project, "init", "--quiet", "--initial-branch", "main")
    commit(project)
    return project


def test_the_gate_opens_for_unchanged_metrics(repository: Path):
    result = run()
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [HOW, "gate: mini is no worse than in HEAD"]


def test_the_gate_shuts_on_a_fall(repository: Path, worse: Metrics):
    write(repository, worse)
    result = run()
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[:2] == [FELL, HOW]
    assert lines[2].startswith("gate: mini has 1 regression against HEAD.")


def test_the_allowance_can_be_chosen(repository: Path, metrics: Metrics):
    metrics["robustness"]["clean"]["ties"]["avg"] = 52.0
    write(repository, metrics)
    assert run().exit_code == 1
    assert run("--max-drop", "4").exit_code == 0


def test_a_rise_beyond_noise_is_listed_and_passes(repository: Path, worse: Metrics):
    better = worse
    better["clean"]["ties"].update(avg=74.3, avg_interval=[73.4, 75.2])
    write(repository, better)
    result = run()
    assert result.exit_code == 0
    assert "clean/ties/avg rose: 71.20 -> 74.30 (+3.10" in result.output
    assert "rose beyond noise: commit the new metrics/mini" in result.output


def test_the_revision_can_be_chosen(repository: Path, worse: Metrics):
    git(repository, "tag", "release")
    write(repository, worse)
    commit(repository)
    assert run().exit_code == 0
    assert run("--against", "release").exit_code == 1


def test_the_project_may_be_a_folder_of_a_repository(project: Path):
    git(project.parent, "init", "--quiet")
    commit(project.parent)
    assert run().exit_code == 0


def test_the_summary_is_appended(repository: Path, worse: Metrics, tmp_path: Path):
    write(repository, worse)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    assert run("--markdown", str(summary)).exit_code == 1
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert "| TIES-merging | 68.10 (-3.10) |" in text
    assert f"- {FELL}\n- {HOW}\n" in text


def test_an_unwritable_summary_is_an_error_of_the_user(repository: Path, tmp_path: Path):
    result = run("--markdown", str(tmp_path))
    assert result.exit_code == 2
    assert "Cannot write" in result.output


def test_without_git_it_says_what_to_do(project: Path):
    result = run()
    assert result.exit_code == 2
    assert "Git knows no commit 'HEAD'" in result.output
    assert "--against" in result.output


def test_an_unknown_revision_is_named(repository: Path):
    result = run("--against", "nowhere")
    assert result.exit_code == 2
    assert "Git knows no commit 'nowhere'" in result.output


def test_metrics_that_were_never_committed(repository: Path, metrics: Metrics):
    git(repository, "rm", "--quiet", "--cached", "metrics/mini/robustness.json")
    git(repository, "commit", "--quiet", "--message", "Without robustness")
    result = run()
    assert result.exit_code == 2
    assert "HEAD has no metrics/mini/robustness.json" in result.output
    assert "make repro PROFILE=mini" in result.output


def test_a_profile_that_was_never_committed_may_be_new(project: Path):
    shutil.copy(project / "profiles" / "mini.yaml", project / "profiles" / "wide.yaml")
    git(project, "init", "--quiet")
    commit(project)
    shutil.copytree(project / "metrics" / "mini", project / "metrics" / "wide")
    assert run("--profile", "wide").exit_code == 2
    result = run("--profile", "wide", "--allow-new")
    assert result.exit_code == 0
    assert "clean/ties/avg 71.20 is new" in result.output


def test_metrics_that_are_new_in_part_are_not_new(repository: Path, metrics: Metrics):
    git(repository, "rm", "--quiet", "--cached", "metrics/mini/robustness.json")
    git(repository, "commit", "--quiet", "--message", "Without robustness")
    result = run("--allow-new")
    assert result.exit_code == 2
    assert "HEAD has no metrics/mini/robustness.json" in result.output


def test_committed_metrics_that_are_damaged(repository: Path, metrics: Metrics):
    (repository / "metrics" / "mini" / "clean.json").write_text("<<<<<<< HEAD\n", encoding="utf-8")
    commit(repository)
    write(repository, metrics)
    result = run()
    assert result.exit_code == 2
    assert "metrics/mini/clean.json in HEAD is damaged" in result.output


def test_metrics_that_were_not_made_yet(repository: Path):
    (repository / "metrics" / "mini" / "clean.json").unlink()
    result = run()
    assert result.exit_code == 2
    assert "python -m stages.evaluate" in result.output


def test_a_negative_allowance_is_refused(repository: Path):
    assert run("--max-drop", "-1").exit_code == 2


@pytest.fixture
def promoted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """What the registry is asked for: (profile, method, seed) of every promotion."""
    asked: list[tuple[str, str, int]] = []

    def promote(config: Any, layout: Any, method: str, seed: int) -> str:
        asked.append((layout.profile, method, seed))
        return "7"

    monkeypatch.setattr(tracking, "promote", promote)
    return asked


def test_an_open_gate_promotes(repository: Path, promoted: list[Any]):
    result = run("--promote", "ties")
    assert result.exit_code == 0, result.output
    assert promoted == [("mini", "ties", 0)]
    assert result.output.splitlines()[-1] == "champion: ties of mini, seed 0, version 7"
    run("--promote", "default")
    assert promoted[1:] == [("mini", "adamerging_layerwise", 0)]


def test_a_shut_gate_promotes_nothing(repository: Path, worse: Metrics, promoted: list[Any]):
    write(repository, worse)
    result = run("--promote", "ties")
    assert result.exit_code == 1
    assert "champion: not moved" in result.output
    assert promoted == []


def test_what_was_compared_with_nothing_is_not_promoted(project: Path, promoted: list[Any]):
    shutil.move(project / "metrics", project.parent / "metrics")
    git(project, "init", "--quiet")
    commit(project)
    shutil.move(project.parent / "metrics", project / "metrics")
    result = run("--allow-new", "--promote", "ties")
    assert result.exit_code == 0, result.output
    assert "champion: not moved" in result.output
    assert promoted == []


def test_without_the_option_nothing_is_promoted(repository: Path, promoted: list[Any]):
    assert run().exit_code == 0
    assert promoted == []


def test_a_method_to_promote_must_be_the_profile_s(repository: Path, promoted: list[Any]):
    result = run("--promote", "adamerging_layer")
    assert result.exit_code == 2
    assert "Did you mean adamerging_layerwise" in result.output
    assert promoted == []
