"""A page of docs/ as a reader works through it: its commands, in a copy of the project."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tiny import ROOT

# What a clone has and the pipeline reads.
FOLDERS = ("pipeline", "stages", "profiles")
FILES = ("params.yaml", "dvc.yaml", "dvc.lock", "Makefile", "pyproject.toml", ".dvcignore")
COMMANDS = {"python": "", "dvc": " -m dvc"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of a page's blocks, in their order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Reader:
    """A copy of the project, and the environment in which its commands are given."""

    folder: Path
    variables: Mapping[str, str]

    @classmethod
    def at(cls, folder: Path, variables: Mapping[str, str]) -> "Reader":
        """Copy the project to `folder`, which must not exist.

        Its .venv, which `make` finds installed, has the Python that runs the tests. The copy has no
        git, as one from a tarball.
        """
        for name in FOLDERS:
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=without)
        for name in FILES:
            shutil.copy2(ROOT / name, folder)
        (folder / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
        tools = folder / ".venv" / "bin"
        tools.mkdir(parents=True)
        for name, module in COMMANDS.items():
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
            (tools / name).chmod(0o755)
        (tools / "activate").write_text(f'PATH="{tools}:$PATH"\n')
        (folder / ".venv" / "installed").touch()
        return cls(folder, {**os.environ, "OMP_NUM_THREADS": "1", **variables})

    def run(self, code: str) -> str:
        """What a block of commands prints, run to its end; the first that fails fails the test."""
        process = self.start(code)
        printed = process.communicate()[0]
        assert process.returncode == 0, f"{code}\n{printed}"
        return printed

    def run_until(self, code: str, enough: Callable[[str], bool]) -> str:
        """The same, stopped by Ctrl-C at the first line that is `enough`: what it had printed."""
        process = self.start(code)
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if enough(line):
                os.killpg(process.pid, signal.SIGINT)
                break
        printed.append(process.communicate()[0])
        assert process.returncode != 0, f"{code}\n{''.join(printed)}"
        return "".join(printed)

    def start(self, code: str) -> "subprocess.Popen[str]":
        """The commands in a session of their own, in the activated environment."""
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f". .venv/bin/activate\n{code}"],
            cwd=self.folder,
            env=dict(self.variables),
            start_new_session=True,
            # Who starts the tests in the background has Ctrl-C ignored, and all below inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
