"""DVC's experiments with profiles: docs/experiments.md, worked through in a small project.

Stages up to `learn` are the project's own; what they make of a profile is there already. `evaluate`
is a stand-in that takes no time: its accuracy is the mean of the coefficients.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from documented import statements
from stage_project import TASKS
from tiny import ROOT
from tutorial import code_blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
]
PAGE = ROOT / "docs" / "experiments.md"
REAL = ("fetch", "experts", "vectors", "learn")
EVALUATE = """
import json
from pathlib import Path
learned = json.loads(Path("metrics/ci/learning.json").read_text())
found = {name: {"avg": round(100 * one["coefficient_mean"], 2)} for name, one in learned.items()}
Path("metrics/ci/clean.json").write_text(json.dumps(found))
"""
# Of what the page shows: what is tested elsewhere, or needs the whole pipeline.
NOT_GIVEN = ("make repro", "adamerge --install-completion")
QUEUE_SECONDS = 600
IDENTITY = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]


class Clone:
    """A clone of a small project, and the commands of a shell in it."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        identity = dict.fromkeys(IDENTITY, "x")
        path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.variables = {**os.environ, **identity, "PATH": path, "OMP_NUM_THREADS": "1"}
        # Records are to find the project's own database from wherever DVC runs a stage.
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            self.variables.pop(name, None)

    def run(self, line: str) -> str:
        """What a line prints; it must succeed."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.variables,
            input="y\n",  # `dvc gc` asks whether it may
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def queued(self) -> dict[str, str]:
        """Experiment -> how it fares, once the queue's worker has ended."""
        deadline = time.monotonic() + QUEUE_SECONDS
        while time.monotonic() < deadline:
            said = self.run("dvc queue status")
            found = dict(re.findall(r"^\w{7} +(\S+) +\S+ \w\w +(\w+)", said, re.MULTILINE))
            if not {"Running", "Queued"} & set(found.values()) and "0 active, 0 idle" in said:
                return found
            time.sleep(2)
        raise AssertionError(f"the queue does not end:\n{said}")

    def experiments(self) -> dict[str, tuple[float, float]]:
        """Experiment -> `learn.initial` and the figure that came of it, as DVC shows them."""
        [base] = json.loads(self.run("dvc exp show --hide-workspace --json"))
        rows = [base, *(row for entry in base["experiments"] or () for row in entry["revs"])]
        return {row["name"]: figures(row["data"]) for row in rows}

    @property
    def initial(self) -> float:
        """`learn.initial` in the working tree."""
        profile = yaml.safe_load((self.folder / "profiles" / "ci.yaml").read_text())
        return profile["learn"]["initial"]

    def recorded(self) -> set[tuple[str, str]]:
        """(stage, experiment) of the runs in the project's MLflow store."""
        asked = (
            "select stage.value, experiment.value from runs"
            " join tags stage on stage.run_uuid = runs.run_uuid and stage.key = 'dvc.stage'"
            " join tags experiment on experiment.run_uuid = runs.run_uuid"
            " and experiment.key = 'dvc.exp' where runs.status = 'FINISHED'"
        )
        with sqlite3.connect(self.folder / "mlflow.db") as database:
            return set(database.execute(asked))


def figures(data):
    initial = data["params"]["profiles/ci.yaml"]["data"]["learn"]["initial"]
    metrics = data["metrics"]["metrics/ci/clean.json"]["data"]
    return initial, metrics["adamerging_layerwise"]["avg"]


@pytest.fixture
def clone(made, tmp_path, empty_store):
    """A project as a clone is after `make repro`, up to the stages that are there."""
    folder, tools = tmp_path / "clone", tmp_path / "tools"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns(".cache"))
    for name in ("pipeline", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / ".dvc").mkdir()
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "evaluate.py").write_text(EVALUATE)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    kept = {name: stages[name] for name in REAL}
    kept["evaluate"] = {
        "cmd": "python evaluate.py",
        "deps": ["evaluate.py", "metrics/ci/learning.json"],
        "metrics": [{"metrics/ci/clean.json": {"cache": False}}],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}))
    (folder / "artifacts" / "ci" / "runs" / "fetch.json").write_text("{}")
    shutil.copy(empty_store, folder / "mlflow.db")
    tools.mkdir()
    (tools / "adamerge").write_text(
        f"#!{sys.executable}\nimport sys; sys.path.insert(0, '.')\n"
        "from stages.cli import main; main()\n"
    )
    (tools / "adamerge").chmod(0o755)
    found = Clone(folder, tools)
    found.run("git init -q -b main && dvc commit --force --quiet && python evaluate.py")
    found.run("dvc commit --force --quiet && git add -A && git commit -qm first")
    return found


def test_the_page_from_start_to_end(clone):
    """Every command of docs/experiments.md, and what must be true after some of them."""
    start = clone.initial
    lines = [
        line
        for language, code in code_blocks(PAGE)
        for line in statements(code, language == "console")
        if not line.startswith(NOT_GIVEN)
    ]
    given = {line: None for line in lines}
    for line in lines:
        if line.startswith("git commit"):
            line += " --allow-empty"  # what `make repro` would have changed
        given[line] = clone.run(line)
        if line.startswith("dvc exp run evaluate -n initial-0.1"):
            assert clone.initial == 0.1 and "Stage 'vectors' didn't change" in given[line]
        elif line.startswith("dvc queue start"):
            assert clone.queued() == {"sweep-1": "Success", "sweep-2": "Success"}
            assert clone.initial == 0.1  # a queue leaves the working tree alone
            check_figures(clone, start)
        elif line.startswith("dvc exp apply"):
            assert clone.initial == 0.2
        elif line.startswith("dvc checkout"):
            assert clone.initial == start and "up to date" in clone.run("dvc status")
        elif line.startswith("dvc exp remove"):
            assert clone.experiments().keys() == {"sweep", "sweep-1"}
    [table] = [said for line, said in given.items() if line.startswith("dvc exp show")]
    assert all(f"[{name}]" in table for name in ("initial-0.1", "sweep-1", "sweep-2"))
    [params] = [said for line, said in given.items() if line.startswith("dvc params diff")]
    assert params.splitlines()[1].split() == [
        "profiles/ci.yaml",
        "learn.initial",
        str(start),
        "0.2",
    ]
    assert "start-at-0.2" in clone.run("git branch")
    assert "up to date" in given["adamerge doctor"]


def check_figures(clone, start):
    """What was set came through to the metrics, and every stage that ran to MLflow."""
    shown = clone.experiments()
    expected = {"sweep": start, "initial-0.1": 0.1, "sweep-1": 0.2, "sweep-2": 0.4}
    assert {name: initial for name, (initial, _) in shown.items()} == expected
    for initial, accuracy in shown.values():
        # Three steps of learning move the coefficients by a few hundredths.
        assert accuracy == pytest.approx(100 * initial, abs=8)
    assert {("learn", name) for name in expected.keys() - {"sweep"}} <= clone.recorded()


def test_what_the_page_says_of_keys(clone):
    """A key that is not there is refused; with a plus it is added; a profile is a key as well."""
    queue = "dvc exp run --queue -n x -S"
    with pytest.raises(AssertionError, match=r"learn\.memory_gb"):
        clone.run(f"{queue} profiles/ci.yaml:learn.memory_gb=2")
    words = re.findall(r"`-S '?(profiles/ci.yaml:[^`']+)'?`", PAGE.read_text(encoding="utf-8"))
    assert len(words) == 3
    for number, word in enumerate([*words, "profile=ci"]):
        clone.run(f"dvc exp run --queue -n key{number} -S '{word}'")
    [base] = json.loads(clone.run("dvc exp show --hide-workspace --json"))
    commits = {row["name"]: row["rev"] for e in base["experiments"] for row in e["revs"]}
    profiles = [
        yaml.safe_load(clone.run(f"git show {commits[f'key{number}']}:profiles/ci.yaml"))
        for number in range(len(words))
    ]
    assert profiles[0]["learn"]["memory_gb"] == 2
    assert profiles[1]["merge"]["options"]["ties"] == {"keep": 0.1}
    assert profiles[2]["seeds"] == [0, 1, 2] and profiles[2]["tasks"] == TASKS
