"""What a shell is offered: through the protocol that bash, zsh and fish speak, and through bash."""

import os
import resource
import shutil
import subprocess
import sys

import pytest
import yaml
from stage_project import TASKS
from test_command_line import HELP_CPU_SECONDS
from tiny import ROOT

from pipeline.config import profile_names
from pipeline.merging.methods import METHODS

HEAVY = ("torch", "open_clip", "mlflow", "pandas", "matplotlib", "scipy")


@pytest.fixture(scope="module")
def adamerge(tmp_path_factory):
    """The console script as an installation writes it."""
    path = tmp_path_factory.mktemp("bin") / "adamerge"
    path.write_text(f"#!{sys.executable}\nfrom stages.cli import main\nmain()\n")
    path.chmod(0o755)
    return path


def environment(adamerge, **variables):
    path = f"{adamerge.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables}


def offered(adamerge, words, folder=ROOT):
    """What bash offers for the last of these words, of which it may be the beginning."""
    asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [adamerge],
        cwd=folder,
        env=environment(adamerge, _ADAMERGE_COMPLETE="complete_bash", **asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options(adamerge):
    assert set(offered(adamerge, ["adamerge", "me"])) == {"merge"}
    assert {"--profile", "--method"} <= set(offered(adamerge, ["adamerge", "merge", "--"]))
    assert "doctor" in offered(adamerge, ["adamerge", ""])


def test_profiles(adamerge, tmp_path):
    assert offered(adamerge, ["adamerge", "learn", "--profile", ""]) == profile_names(ROOT)
    assert offered(adamerge, ["adamerge", "doctor", "--profile", "mi"]) == ["mini"]
    # A shell is offered nothing, and told nothing, where there is no project.
    assert offered(adamerge, ["adamerge", "learn", "--profile", ""], tmp_path) == []
    (tmp_path / "profiles").mkdir()
    for name in ("mine.yaml", "mine.lock.yaml"):
        (tmp_path / "profiles" / name).write_text("")
    assert offered(adamerge, ["adamerge", "learn", "--profile", ""], tmp_path) == ["mine"]


def test_methods_of_files_are_all_that_there_are(adamerge):
    assert offered(adamerge, ["adamerge", "merge", "--method", ""]) == list(METHODS)
    assert offered(adamerge, ["adamerge", "merge", "--method", "tie"]) == ["ties"]


@pytest.fixture
def project(tmp_path):
    """Two profiles; params.yaml names the first."""
    profiles = {
        "one": {"tasks": TASKS, "merge": {"methods": ["ties", "experts"]}, "learn": {}},
        "two": {"tasks": ["mine", "dtd"], "learn": {"methods": ["adamerging_layerwise"]}},
        "odd": ["neither", "keys", "nor", "values"],
    }
    (tmp_path / "profiles").mkdir()
    for name, profile in profiles.items():
        (tmp_path / "profiles" / f"{name}.yaml").write_text(yaml.safe_dump(profile))
    (tmp_path / "params.yaml").write_text("profile: one\n")
    return tmp_path


def test_methods_and_tasks_are_those_of_the_profile(adamerge, project):
    export = ["adamerge", "export", "out"]
    assert offered(adamerge, [*export, "--method", ""], project) == ["ties", "experts"]
    two = [*export, "--profile", "two", "--method", ""]
    assert offered(adamerge, two, project) == ["adamerging_layerwise"]
    predict = ["adamerge", "predict", "--task"]
    assert offered(adamerge, ["adamerge", "predict", "--task", ""], project) == ["any", *TASKS]
    two = ["adamerge", "predict", "--profile", "two", "--task", "m"]
    assert offered(adamerge, two, project) == ["mine"]
    # What cannot be read is of no profile: all that there are.
    (project / "params.yaml").write_text("profile: odd\n")
    assert offered(adamerge, [*export, "--method", ""], project) == list(METHODS)
    (project / "params.yaml").write_text("profile: [")
    assert offered(adamerge, [*predict, "ca"], project) == ["cars"]


def test_zsh_and_fish(adamerge):
    """Each asks in its own words: https://typer.tiangolo.com/features/."""
    line = {"_TYPER_COMPLETE_ARGS": "adamerge doctor --profile mi"}
    for shell, answer in (("zsh", '"mini"'), ("fish", "mini")):
        asked = {"_ADAMERGE_COMPLETE": f"complete_{shell}", **line}
        done = subprocess.run(
            [adamerge],
            cwd=ROOT,
            env=environment(adamerge, **asked, _TYPER_COMPLETE_FISH_ACTION="get-args"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer in done.stdout and done.stderr == ""


def test_completion_is_quick_and_imports_nothing_heavy(adamerge):
    costs = []
    while len(costs) < 3 and min(costs, default=1) >= HELP_CPU_SECONDS:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        offered(adamerge, ["adamerge", "predict", "--profile", "mini", "--method", ""])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < HELP_CPU_SECONDS
    asked = {"_ADAMERGE_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    words = "adamerge\npredict\n--task\n"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", adamerge],
        cwd=ROOT,
        env=environment(adamerge, COMP_WORDS=words, **asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "any" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported and not imported & set(HEAVY)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on the PATH")
def test_bash_completes_with_what_is_installed(adamerge, tmp_path):
    """--install-completion writes below HOME; a new bash that reads it completes."""
    variables = environment(adamerge, HOME=str(tmp_path))

    def bash(script):
        command = ["bash", "--norc", "-c", f"{script}\ntrue"]
        return subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
        ).stdout

    # Where the shell is recognised, by its process, it needs no name.
    installed = bash("adamerge --install-completion")
    assert "bash completion installed in" in installed
    assert str(tmp_path / ".bash_completions" / "adamerge.sh") in (tmp_path / ".bashrc").read_text()
    shown = bash("adamerge --show-completion")
    assert shown.strip() == (tmp_path / ".bash_completions" / "adamerge.sh").read_text().strip()
    completed = bash(
        f"source {tmp_path}/.bashrc\n"
        "COMP_WORDS=(adamerge learn --profile vit-b-32-o) COMP_CWORD=3\n"
        "_adamerge_completion adamerge\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
        "complete -p adamerge"
    )
    *profiles, declared = completed.splitlines()
    assert profiles == [name for name in profile_names(ROOT) if name.startswith("vit-b-32-o")]
    assert declared.endswith("-F _adamerge_completion adamerge")
