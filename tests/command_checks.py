"""Whether a command of a page can be given: its program, every option, every file it names.

Nothing is run but `make -n` and `git COMMAND -h`. The parsers are the programs' own.
"""

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import typer
import yaml
from documented import Command
from tiny import ROOT

from pipeline.config.sections import Profile

# Of the shell and of every system; of the cluster: nothing to hold them against here.
PLAIN = (".", "source", "cd", "export", "set", "ls", "cp", "mv", "rm", "sed", "cat", "head", "tail")
PLAIN += ("curl", "mkdir", "tar", "unzip", "kill", "wait", "test", "trap", "wc", "sort", "git-lfs")
CLUSTER = ("sbatch", "squeue", "scontrol")
# Of profiles that a page tells its reader to write.
MADE = ("mine", "digits", "four")


def check(command: Command) -> None:
    """Raise `AssertionError` unless the command's program and all that stands behind it exist."""
    try:
        _check(command)
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{command.page}: '{command}': {error}") from error


def _check(command: Command) -> None:
    words, program = command.arguments, command.program
    if program == "srun":
        program, words = words[0], words[1:]
    if program in CHECKS:
        CHECKS[program](words)
    else:
        assert program in (*PLAIN, *CLUSTER, "") or (ROOT / program).is_file(), "no way to check"


def _python(words: list[str]) -> None:
    if words[0] == "-c":
        compile(words[1], "page", "exec")
        return
    assert words[0] == "-m", words
    module, rest = words[1], words[2:]
    if module.startswith("stages."):
        _click(f"python -m {module}", _of_module(module), rest)
    elif module in CHECKS:
        CHECKS[module](rest)
    else:
        assert importlib.util.find_spec(module), module


def _of_module(module: str) -> click.Command:
    app = typer.Typer(add_completion=False)
    app.command()(importlib.import_module(module).main)
    return typer.main.get_command(app)


def _adamerge(words: list[str]) -> None:
    from stages.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "get_command")
    if not words or words[0].startswith("-"):
        known = {name for option in group.params for name in option.opts}
        assert {*words} <= {*known, "--help"}, words
        return
    with group.make_context("adamerge", [words[0]], resilient_parsing=True) as context:
        command = group.get_command(context, words[0])
        assert command, f"adamerge has no command '{words[0]}'"
        _click(f"adamerge {words[0]}", command, words[1:])


def _click(name: str, command: click.Command, words: list[str]) -> None:
    """Parse; `--help` ends as it should, and a file that is not here is no mistake of the page."""
    try:
        context = command.make_context(name, list(words))
    except click.exceptions.Exit as end:
        assert end.exit_code == 0
        return
    except click.ClickException as error:
        if "does not exist" in error.format_message():
            return
        raise
    values = context.params
    for profile in filter(None, [values.get("profile")]):
        _profile(profile)
    if name.endswith("study"):
        from stages._studies import STUDIES

        assert {*(values.get("only") or ())} <= {*STUDIES}


def _profile(name: str) -> None:
    assert name in MADE or (ROOT / "profiles" / f"{name}.yaml").is_file(), name


def _make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, value = word.partition("=")
        assert not equals or f"$({name})" in makefile or f"$(if $({name})" in makefile, word
        if name == "PROFILE":
            _profile(value)
    known = {*re.findall(r"^([\w-]+):", makefile, re.MULTILINE)}
    assert {*targets} <= known, words
    command = ["make", "--dry-run", "--no-print-directory", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _dvc(words: list[str]) -> None:
    from dvc.cli import parse_args

    found = parse_args(list(words))
    for override in getattr(found, "set_param", None) or ():
        _override(override, queued=found.queue)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if found.cmd == "repro" or getattr(found, "set_param", None):
        assert {*(found.targets or ())} <= {*stages}, words


def _override(text: str, queued: bool) -> None:
    """`-S file:key=value`: the file and the key are there, and every value is one of a profile."""
    place, _, values = text.partition("=")
    file, _, path = place.rpartition(":")
    if not file:
        assert path == "profile", text
        _profile(values)
        return
    _profile(Path(file).stem)
    new, keys = path.startswith("+"), path.lstrip("+").split(".")
    listed = queued and "," in values and not values.startswith("[")
    for value in values.split(",") if listed else [values]:
        profile = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        section = profile
        for key in keys[:-1]:
            section = section.setdefault(key, {}) if new else section[key]
        assert new is (keys[-1] not in section), f"{text}: + is for keys that are not there"
        section[keys[-1]] = yaml.safe_load(re.sub(r",(?=\S)", ", ", value))
        Profile.model_validate(profile)


def _mlflow(words: list[str]) -> None:
    with warnings.catch_warnings():  # its own, of type hints
        warnings.simplefilter("ignore")
        from mlflow.cli import cli

    command: click.Command = cli
    with click.Context(cli) as context:
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found, words
            command, words = found, words[1:]
    _click(f"mlflow {command.name}", command, words)


def _torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    found = get_args_parser().parse_args(words)
    assert found.module, words
    rest = found.training_script_args
    _click("torchrun", _of_module(found.training_script), rest)


def _pip(words: list[str]) -> None:
    assert words[0] == "install" and len(words) > 1, words
    for word in words[1:]:
        if (extra := re.fullmatch(r"\.\[(\w+)\]", word)) is not None:
            assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def _pytest(words: list[str]) -> None:
    for word in words:
        if "/" in word:
            assert (ROOT / word.partition("::")[0]).exists(), word
        elif word.startswith("-"):
            assert re.search(rf"(?m)^ +.*{re.escape(word.partition('=')[0])}\b", _help_of_pytest())


@functools.cache
def _help_of_pytest() -> str:
    command = [sys.executable, "-m", "pytest", "--help", "--noconftest"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _git(words: list[str]) -> None:
    done = subprocess.run(["git", words[0], "-h"], capture_output=True, text=True)
    assert "usage: git" in done.stdout + done.stderr, words
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0].removeprefix("--") in done.stdout + done.stderr, word


CHECKS: Mapping[str, Callable[[list[str]], None]] = {
    "python": _python,
    "adamerge": _adamerge,
    "make": _make,
    "dvc": _dvc,
    "mlflow": _mlflow,
    "torchrun": _torchrun,
    "pip": _pip,
    "pytest": _pytest,
    "git": _git,
}
assert all(shutil.which(program) for program in ("make", "git"))
