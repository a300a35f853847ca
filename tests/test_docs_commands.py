"""Every command of the pages: run in a small project, or held against its program's own options.

What is not run stands in `NOT_RUN` with the reason, or its page in `ELSEWHERE` with the test that
works through it. A command that is in neither is run. One that can be neither run nor checked
fails.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import command_checks
import pytest
import yaml
from documented import SHELLS, Command, commands_of, simple_commands, statements, with_commands
from stage_project import enter
from tiny import ROOT
from tutorial import BLOCK, COMMANDS, FILES, FOLDERS
from typer.testing import CliRunner

# Of MLflow, when it first opens a store and when it looks at a data set.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes"),
]

PAGES = with_commands()
ELSEWHERE = {
    "docs/own-task.md": "test_own_task.py",
    "docs/merge-files.md": "test_merge_command.py",
    "docs/experiments.md": "test_experiments.py",
}
INSTALLS = "installs from a package index"
PIPELINE = "the pipeline takes minutes: .ci/run and tests/test_own_task.py run it"
HUB = "needs the hub: tests/fetching and tests/test_published_suite.py have one on this machine"
HOURS = "minutes to hours, written by a maintainer"
EXPERIMENT = "runs the pipeline as an experiment"
NOT_RUN: Mapping[str, str] = {
    "make venv*": INSTALLS,
    "python -m pip install *": INSTALLS,
    "pip install *": INSTALLS,
    "make repro*": PIPELINE,
    "dvc repro*": PIPELINE,
    "python -c *shapes.png*": "draws a task that the reader has added",
    "cp profiles/vit-b-32.lock.yaml *": "the lock is there after a first fetch",
    "python -m stages.fetch --profile vit-*": HUB,
    "python -m stages.fetch --profile mine*": HUB,
    "python -m stages.fetch --accept": HUB,
    "torchrun *": "several processes; tests/test_parallel.py and tests/learning start them",
    "make test*": "these tests",
    "make lint": "tests do not lint; .ci/run does",
    "pytest *": "these tests",
    "python -m pytest *": "these tests",
    "make study": HOURS,
    "python -m stages.study *": HOURS,
    "make zoo": HOURS,
    "make bench*": HOURS,
    "make *-bench": HOURS,
    "make readme": "writes this repository's own pages",
    "make ui": "a server until Ctrl-C: tests/tracking has it",
    "dvc exp run *": EXPERIMENT,
    "dvc exp show *": "lists experiments, of which there are none here",
    "dvc commit --force": "accepts what all nine stages wrote; the small project lacks two of them",
    "dvc push *": "a remote that is not here",
    "dvc pull": "a remote that is not here",
    "dvc gc *": "empties a cache that others' figures may lie in",
    "adamerge serve*": "a server until Ctrl-C: tests/serving",
    "adamerge demo": "a server until Ctrl-C: tests/serving",
    "mlflow models serve *": "a server until Ctrl-C: tests/serving",
    "mlflow server *": "a server, with a database that is not here",
    "export MLFLOW_*": "a server that is not here",
    "sbatch *": "a cluster",
    "adamerge gate": "needs the committed figures of the profile: tests/test_gate.py",
}
# Snippets of Python that are run besides, page -> what a reader has when they begin.
SNIPPETS = {
    "docs/artifacts.md": "",
    "docs/corruptions.md": "import numpy\nimages, indices = numpy.zeros((1, 3, 32, 32), 'u1'), [0]",
}


def reason(command: Command) -> str:
    """Why a command is not run; "" if it is."""
    if command.script:
        return "a script of a cluster"
    return next((why for like, why in NOT_RUN.items() if fnmatchcase(str(command), like)), "")


def all_commands() -> list[Command]:
    return [command for page in PAGES.values() for command in commands_of(page)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_can_be_given(page: str):
    for command in commands_of(PAGES[page]):
        command_checks.check(command)


@pytest.mark.parametrize(
    "line",
    [
        "make replo",
        "make repro PROFILE=vit-b-33",
        "make repro PROFIL=mini",
        "adamerge exprot out",
        "adamerge track --profil mini",
        "python -m stages.learn --quick",
        "python -m stages.study --only budgets",
        "python -c 'print('",
        "dvc repro lern",
        "dvc exp run --cue",
        "dvc exp run -S profiles/mini.yaml:learn.intial=0.1",
        "dvc exp run -S profiles/mini.yaml:learn.initial=much",
        "mlflow server --backend-uri x",
        "torchrun --procs 4 -m stages.learn",
        "pytest tests/nowhere",
        "pytest --fast",
        "git commit --ammend",
        "docker run adamerge",
    ],
)
def test_a_command_that_cannot_be_given_is_noticed(line: str):
    with pytest.raises(AssertionError, match=re.escape(line.split()[0])):
        command_checks.check(Command("page", tuple(shlex.split(line))))


def test_every_reason_is_one_for_a_command():
    given = [str(command) for command in all_commands()]
    unused = [like for like in NOT_RUN if not any(fnmatchcase(one, like) for one in given)]
    assert not unused
    for page, test in ELSEWHERE.items():
        [path] = (ROOT / "tests").rglob(test)
        assert Path(page).name in path.read_text(encoding="utf-8")


def test_blocks_are_read_as_a_shell_reads_them():
    code = (
        "# nothing\nA=1 run 'a\nb' \\\n  --to x > log  # words\none && two | three; head=$(four)\n"
    )
    found = [words for line in statements(code, False) for words in simple_commands(line)]
    assert found[0] == ("A=1", "run", "a\nb", "--to", "x")
    assert found[1:] == [("one",), ("two",), ("three",), ("head=",), ("four",)]
    assert statements("$ one\nprinted\n$ two\n", True) == ["one", "two"]


def test_scripts_of_a_cluster_are_shell():
    scripts = [code for language, code in blocks("docs/scaling.md") if code.startswith("#!")]
    assert len(scripts) == 2
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        for option in re.findall(r"^#SBATCH (--[\w-]+)", script, re.MULTILINE):
            assert option in KNOWN_TO_SLURM


KNOWN_TO_SLURM = {  # https://slurm.schedmd.com/sbatch.html
    *("--job-name", "--nodes", "--ntasks", "--ntasks-per-node", "--gpus-per-node", "--mem"),
    *("--cpus-per-task", "--time", "--signal", "--requeue", "--output"),
}


# ---- Run for real


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall(PAGES[page].read_text(encoding="utf-8"))


def is_run(page: str) -> bool:
    return page in SNIPPETS or any(not reason(one) for one in commands_of(PAGES[page]))


@pytest.fixture(scope="module")
def small(made: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project whose profile `mini` is the tiny one, run but for the report."""
    folder = tmp_path_factory.mktemp("documented") / "project"
    for name in (*FOLDERS, "zoo", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, ".gitignore"):
        shutil.copy2(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    for kind in ("artifacts", "metrics"):
        shutil.copytree(made / kind / "ci", folder / kind / "mini")
    shutil.copytree(made / "zoo", folder / "zoo", dirs_exist_ok=True)
    profile = yaml.safe_load((made / "profiles" / "ci.yaml").read_text(encoding="utf-8"))
    written = re.sub(r"(?m)^( *)- ", r"\1  - ", yaml.safe_dump(profile, sort_keys=False))
    (folder / "profiles" / "mini.yaml").write_text(written, encoding="utf-8")
    (folder / "params.yaml").write_text("profile: mini\ndevice: cpu\n", encoding="utf-8")
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, module in {**COMMANDS, "adamerge": " -m stages.cli"}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (tools / name).chmod(0o755)
    (folder / ".venv" / "installed").touch()
    (tools / "activate").write_text("")
    who = ("-c", "user.name=reader", "-c", "user.email=reader@example.org")
    for words in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "-m", "clone")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        enter_at_home(folder, empty_store, patch)
        Reader(folder).adamerge(["track"])
    return folder


def enter_at_home(folder: Path, empty_store: Path, patch: pytest.MonkeyPatch) -> None:
    """Enter a project whose runs are recorded in its own mlflow.db, as they are for a reader."""
    enter(folder, empty_store, patch)
    patch.delenv("MLFLOW_TRACKING_URI")
    if not (folder / "mlflow.db").exists():
        shutil.copy(empty_store, folder / "mlflow.db")
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("PATH", f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}")


@pytest.fixture
def reader(
    small: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator["Reader"]:
    folder = tmp_path / "project"
    shutil.copytree(small, folder)
    enter_at_home(folder, empty_store, monkeypatch)
    yield Reader(folder)


class Reader:
    """Gives the commands of a page in a project, those of this project without a new process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def give(self, line: str, command: Command) -> None:
        words = command.arguments
        if command.program == "adamerge":
            self.adamerge(words)
        elif words[:1] == ["-m"] and words[1].startswith("stages."):
            self.adamerge([words[1].removeprefix("stages."), *words[2:]])
        else:
            self.run("bash", "-euo", "pipefail", "-c", line)

    def python(self, code: str) -> None:
        self.run(sys.executable, "-c", code)

    def run(self, *words: str) -> None:
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout}{done.stderr}"

    def adamerge(self, words: list[str]) -> None:
        from stages.cli import app

        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"adamerge {' '.join(words)}\n{result.output}"


@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page) and page not in ELSEWHERE])
def test_the_page_runs(page: str, reader: Reader):
    given = 0
    for language, code in blocks(page):
        if language == "python" and page in SNIPPETS:
            reader.python(f"{SNIPPETS[page]}\n{code}")
            given += 1
        if language not in SHELLS or code.startswith("#!"):
            continue
        for line in statements(code, language == "console"):
            commands = [Command(page, words) for words in simple_commands(line)]
            if not any(reason(command) for command in commands):
                reader.give(line, commands[-1])
                given += 1
    assert given
