"""The GitHub workflows: valid, safe, and calling only what is there."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Console scripts of the environment that runs the tests, activated or not.
TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def check(*command: str | Path) -> None:
    """Run a checker; its complaints become the test's."""
    tool = shutil.which(command[0], path=TOOLS)
    assert tool, f"{command[0]} is not installed: make venv"
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """(workflow's file name, step) for every step there is."""
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            yield from ((path.name, step) for step in job["steps"])


def called(pattern: str) -> set[str]:
    """What a pattern's group finds in the commands of all workflows."""
    return {found for _, step in steps() for found in re.findall(pattern, step.get("run", ""))}


def test_both_workflows_are_there():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "weekly.yml"]


@pytest.mark.parametrize(
    "schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"]
)
def test_schema(schema: str):
    check("check-jsonschema", "--builtin-schema", schema, *WORKFLOWS)


def test_no_known_weakness():
    check("zizmor", "--offline", "--persona", "pedantic", "--no-progress", *WORKFLOWS)


def test_actions_are_pinned_to_commits_and_name_their_version():
    lines = [
        line.strip().removeprefix("- ")
        for path in WORKFLOWS
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().removeprefix("- ").startswith("uses:")
    ]
    assert len(lines) == sum("uses" in step for _, step in steps())
    pinned = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_one_version_of_an_action_everywhere():
    used = {step["uses"] for _, step in steps() if "uses" in step}
    assert len({name.partition("@")[0] for name in used}) == len(used)


def test_make_targets_exist():
    rules = re.findall(r"(?m)^([\w. /-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    targets = {target for rule in rules for target in rule.split()}
    wanted = called(r"\bmake ([\w-]+)")
    assert {"repro", "test"} <= wanted
    assert wanted <= targets


def test_scripts_exist_and_are_executable():
    scripts = called(r"(?:^|\s)(\.ci/\w+)")
    assert scripts == {".ci/run", ".ci/lock_is_current"}
    assert [script for script in scripts if not os.access(ROOT / script, os.X_OK)] == []


def test_profiles_on_offer_exist():
    weekly = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text())
    # YAML 1.1 reads the key `on` as true.
    profile = weekly[True]["workflow_dispatch"]["inputs"]["profile"]
    assert profile["default"] in profile["options"]
    for name in profile["options"]:
        assert (ROOT / "profiles" / f"{name}.yaml").is_file(), name


def test_dvc_is_the_one_that_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (asked,) = called(r"'(dvc[^']*)'")
    assert asked in project["dependencies"]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A DVC project of one stage whose lock is up to date and whose output is not there."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "lock_is_current", tmp_path / ".ci")
    (tmp_path / "source.txt").write_text("source")
    stage = {"cmd": "cp source.txt output.txt", "deps": ["source.txt"], "outs": ["output.txt"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}))
    content = {"hash": "md5", "md5": hashlib.md5(b"source").hexdigest(), "size": 6}
    locked = {
        "cmd": stage["cmd"],
        "deps": [{"path": "source.txt", **content}],
        "outs": [{"path": "output.txt", **content}],
    }
    lock = {"schema": "2.0", "stages": {"copy": locked}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [("source", 0, "dvc.lock is up to date."), ("edited", 1, "Running stage 'copy':")],
)
def test_the_lock_check(pipeline: Path, source: str, code: int, message: str):
    (pipeline / "source.txt").write_text(source)
    done = subprocess.run(
        [pipeline / ".ci" / "lock_is_current"],
        cwd="/",
        env={**os.environ, "PATH": TOOLS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stdout + done.stderr
