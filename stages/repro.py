"""Run the pipeline: what `make repro` calls, and what it adds to `dvc repro`.

    python -m stages.repro --profile study

A profile given here is written to params.yaml. A copy without git (a tarball) is made known to DVC.
"""

import re
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from stages._progress import say
from stages._stage import ProfileOption, user_errors

Force = Annotated[bool, typer.Option("--force", help="Run every stage, changed or not.")]


def main(profile: ProfileOption = None, force: Force = False) -> None:
    """Check the configuration and run `dvc repro`."""
    with user_errors():
        from pipeline.config import load_config

        root = Path.cwd()
        load_config(root, profile)
        if profile is not None:
            choose_profile(root / "params.yaml", profile)
    if not inside_git(root):
        subprocess.run(["dvc", "config", "--local", "core.no_scm", "true"], cwd=root, check=True)
    command = ["dvc", "repro", *(["--force"] if force else [])]
    raise typer.Exit(subprocess.run(command, cwd=root).returncode)


def choose_profile(params: Path, profile: str) -> None:
    """Write `profile: <profile>` into params.yaml, leaving its comments alone."""
    from pipeline.files import write_text

    text = params.read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^profile: *\S+", f"profile: {profile}", text)
    if changed != text:
        write_text(params, changed)
        say(f"params.yaml: profile is now {profile}")


def inside_git(root: Path) -> bool:
    """Whether the project's own folder is the top of a git working tree."""
    return (root / ".git").exists()


if __name__ == "__main__":
    typer.run(main)
