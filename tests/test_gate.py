"""The regression gate: what counts as a fall, and the command on a small git repository."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from pipeline.regression import compare, summary_table
from stages import gate

ROOT = Path(__file__).parents[1]

Metrics = dict[str, Any]


def robust(average: float, sd: float = 0.0) -> Metrics:
    """A method's row in robustness.json, as far as the gate reads it."""
    return {"avg": average, "avg_sd": sd, "clean": 80.0, "corruptions": {"spatter": {"1": 60.0}}}


def split(seen: float, unseen: float) -> Metrics:
    """A method's row in generalization.json."""
    row = {"seen": seen, "unseen": unseen, "seen_sd": 0.0, "unseen_sd": 0.0}
    return {**row, "tasks": {"mnist": unseen}}


@pytest.fixture
def metrics() -> Metrics:
    return {
        "clean": {
            "ties": {"avg": 71.2, "avg_sd": 0.0, "worst": 50.0, "tasks": {"mnist": 71.2}},
            "experts": {"avg": 90.0, "avg_sd": 0.0, "worst": 80.0, "tasks": {"mnist": 90.0}},
        },
        "robustness": {
            "clean": {"ties": robust(55.0), "experts": robust(70.0)},
            "adapted": {"adamerging_layerwise": robust(60.0)},
        },
        "generalization": {
            "unseen_mnist_eurosat": {"ties": split(72.0, 40.0)},
            "unseen_resisc45_svhn": {"ties": split(70.0, 50.0)},
        },
    }


@pytest.fixture
def worse(metrics: Metrics) -> Metrics:
    """The same metrics, for a test to change."""
    return copy.deepcopy(metrics)


def listed(before: Metrics, after: Metrics, max_drop: float = 1.0) -> list[str]:
    return [str(finding) for finding in compare(before, after, max_drop)]


def test_equal_and_better_metrics_pass(metrics: Metrics, worse: Metrics):
    assert compare(metrics, worse) == []
    worse["clean"]["ties"]["avg"] = 99.0
    assert compare(metrics, worse) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("clean/ties/avg", "71.20 -> 68.10 (-3.10, allowed 1.00)"),
        ("robustness/clean/ties/avg", "55.00 -> 51.90 (-3.10, allowed 1.00)"),
        ("robustness/adapted/adamerging_layerwise/avg", "60.00 -> 56.90 (-3.10, allowed 1.00)"),
        ("generalization/unseen_mnist_eurosat/ties/seen", "72.00 -> 68.90 (-3.10, allowed 1.00)"),
        ("generalization/unseen_resisc45_svhn/ties/unseen", "50.00 -> 46.90 (-3.10, allowed 1.00)"),
    ],
)
def test_a_fall_of_any_average_is_found(metrics: Metrics, worse: Metrics, place: str, line: str):
    *parents, key = place.split("/")
    row = worse
    for parent in parents:
        row = row[parent]
    row[key] -= 3.1
    (finding,) = compare(metrics, worse)
    assert finding.fails
    assert str(finding) == f"{place} {line}"


def test_what_is_no_average_does_not_count(metrics: Metrics, worse: Metrics):
    worse["clean"]["ties"]["worst"] = 0.0
    worse["clean"]["ties"]["tasks"]["mnist"] = 0.0
    worse["robustness"]["clean"]["ties"]["corruptions"]["spatter"]["1"] = 0.0
    assert compare(metrics, worse) == []


def test_a_fall_of_exactly_the_allowance_passes(metrics: Metrics, worse: Metrics):
    worse["clean"]["ties"]["avg"] = 70.2  # 71.2 - 70.2 is a little more than 1 in binary
    assert compare(metrics, worse) == []
    worse["clean"]["ties"]["avg"] = 70.19
    assert listed(metrics, worse) == ["clean/ties/avg 71.20 -> 70.19 (-1.01, allowed 1.00)"]
    assert compare(metrics, worse, max_drop=1.5) == []


@pytest.mark.parametrize("noisy", ["before", "after"])
def test_seed_noise_widens_the_allowance(metrics: Metrics, worse: Metrics, noisy: str):
    worse["clean"]["ties"]["avg"] = 68.1
    {"before": metrics, "after": worse}[noisy]["clean"]["ties"]["avg_sd"] = 1.05
    assert compare(metrics, worse) == []
    worse["clean"]["ties"]["avg"] = 68.0
    assert listed(metrics, worse) == ["clean/ties/avg 71.20 -> 68.00 (-3.20, allowed 3.10)"]


def test_noise_of_one_average_does_not_excuse_another(metrics: Metrics, worse: Metrics):
    row = worse["generalization"]["unseen_mnist_eurosat"]["ties"]
    row.update(unseen=37.0, seen_sd=5.0)
    assert [finding.kind for finding in compare(metrics, worse)] == ["fell"]


def test_vanished_methods_and_splits_fail(metrics: Metrics, worse: Metrics):
    del worse["clean"]["ties"]
    del worse["generalization"]["unseen_resisc45_svhn"]
    assert listed(metrics, worse) == [
        "clean/ties/avg 71.20 -> vanished",
        "generalization/unseen_resisc45_svhn/ties/seen 70.00 -> vanished",
        "generalization/unseen_resisc45_svhn/ties/unseen 50.00 -> vanished",
    ]
    assert all(finding.fails for finding in compare(metrics, worse))


def test_new_ones_are_named_and_pass(metrics: Metrics, worse: Metrics):
    worse["clean"]["unheard_of"] = {"avg": 70.0, "avg_sd": 0.0}
    (finding,) = compare(metrics, worse)
    assert str(finding) == "clean/unheard_of/avg 70.00 is new"
    assert not finding.fails


def test_summary_table_has_titles_and_changes(metrics: Metrics, worse: Metrics):
    worse["clean"]["ties"]["avg"] = 68.1
    worse["generalization"]["unseen_mnist_eurosat"]["ties"]["unseen"] = 42.0
    del worse["clean"]["experts"], worse["robustness"]["clean"]["experts"]
    worse["clean"]["unheard_of"] = {"avg": 70.0}
    assert summary_table(metrics, worse).splitlines() == [
        "| Method | Clean | Robust | Unseen |",
        "| :-- | --: | --: | --: |",
        "| TIES-merging | 68.10 (-3.10) | 55.00 (+0.00) | 46.00 (+1.00) |",
        "| unheard_of | 70.00 (new) |  |  |",
        "| Experts (upper bound) | vanished (90.00) | vanished (70.00) |  |",
    ]


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
    assert result.output == "gate: mini is no worse than in HEAD\n"


def test_the_gate_shuts_on_a_fall(repository: Path, worse: Metrics):
    worse["clean"]["ties"]["avg"] = 68.1
    write(repository, worse)
    result = run()
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "clean/ties/avg 71.20 -> 68.10 (-3.10, allowed 1.00)"
    assert lines[1].startswith("gate: mini has 1 regression against HEAD.")
    assert run("--max-drop", "4").exit_code == 0


def test_the_revision_can_be_chosen(repository: Path, worse: Metrics):
    git(repository, "tag", "release")
    worse["clean"]["ties"]["avg"] = 68.1
    write(repository, worse)
    commit(repository)
    assert run().exit_code == 0
    assert run("--against", "release").exit_code == 1


def test_the_project_may_be_a_folder_of_a_repository(project: Path):
    git(project.parent, "init", "--quiet")
    commit(project.parent)
    assert run().exit_code == 0


def test_the_summary_is_appended(repository: Path, worse: Metrics, tmp_path: Path):
    worse["clean"]["ties"]["avg"] = 68.1
    write(repository, worse)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    assert run("--markdown", str(summary)).exit_code == 1
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert "| TIES-merging | 68.10 (-3.10) |" in text
    assert "- clean/ties/avg 71.20 -> 68.10 (-3.10, allowed 1.00)\n" in text


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
