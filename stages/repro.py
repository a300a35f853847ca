"""Run the pipeline: what `make repro` calls, and what it adds to `dvc repro`.

    python -m stages.repro --profile study

A profile given here is written to params.yaml. A copy without git (a tarball) is made known to DVC.
What killed runs left half-written is removed a day later.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from stages._progress import say
from stages._stage import ProfileOption, user_errors

HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{8}(\.[\w-]+)?")  # as `pipeline.files.replacing` names it
A_DAY = re.compile(r"\.(19|20)\d{6}(\.|$)")  # in the name of a copy that a user made
DAY = 24 * 3600.0  # seconds: no living run writes at one file for so long without a pause

Force = Annotated[bool, typer.Option("--force", help="Run every stage, changed or not.")]


def main(profile: ProfileOption = None, force: Force = False) -> None:
    """Check the configuration and run `dvc repro`."""
    with user_errors():
        from pipeline.config import load_config

        root = Path.cwd()
        load_config(root, profile)
        if profile is not None:
            choose_profile(root / "params.yaml", profile)
    with user_errors(), alone(root):
        remove_half_written(root)
        release_zombies(root)
        if not inside_git(root):
            command = ["dvc", "config", "--local", "core.no_scm", "true"]
            subprocess.run(command, cwd=root, check=True)
        command = ["dvc", "repro", *(["--force"] if force else [])]
        raise typer.Exit(subprocess.run(command, cwd=root).returncode)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Raise `UserError` where another `make repro` is at work; DVC would end one of the two late.

    A run that was killed is in nobody's way.
    """
    from filelock import FileLock, Timeout

    from pipeline.errors import UserError

    path = root / ".cache" / "repro.lock"
    path.parent.mkdir(exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"Another 'make repro' is at work in {root}: wait for it, or make a clone for this one."
        ) from None


def choose_profile(params: Path, profile: str) -> None:
    """Write `profile: <profile>` into params.yaml, leaving its comments alone."""
    from pipeline.files import write_text

    text = params.read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^profile: *\S+", f"profile: {profile}", text)
    if changed != text:
        write_text(params, changed)
        say(f"params.yaml: profile is now {profile}")


def remove_half_written(root: Path) -> None:
    """Remove files that runs were killed at, untouched for a day: others may be at work now.

    Those below artifacts/ are DVC's, which clears a stage's folders before it runs the stage.
    """
    oldest, freed = time.time() - DAY, []
    ours = [path for name in ("params", "mlflow") for path in root.glob(f".{name}.*")]
    ours = [path for path in ours if not A_DAY.search(path.name)]
    places = [*ours, *(root / ".cache").rglob(".*"), *(root / "metrics").rglob(".*")]
    for path in places:
        with suppress(OSError):  # gone meanwhile, or somebody else's
            facts = path.stat()
            if HALF_WRITTEN.fullmatch(path.name) and path.is_file() and facts.st_mtime < oldest:
                path.unlink()
                freed.append(facts.st_size)
    if freed:
        say(f"removed {len(freed)} half-written files of killed runs, {sum(freed) / 1e6:,.1f} MB")


def release_zombies(root: Path) -> None:
    """Remove DVC's locks where those who hold them are dead, and one is a zombie.

    DVC releases the locks of the dead, but counts a process that nobody has waited for as alive:
    in a container without an init process nobody ever does.
    """
    import psutil

    locks = root / ".dvc" / "tmp" / "rwlock"
    states = set()
    with suppress(OSError):  # no locks
        for pid in re.findall(r'"pid": *(\d+)', locks.read_text(encoding="utf-8")):
            with suppress(psutil.NoSuchProcess):
                states.add(psutil.Process(int(pid)).status())
        if states == {psutil.STATUS_ZOMBIE}:
            locks.unlink()


def inside_git(root: Path) -> bool:
    """Whether the project's own folder is the top of a git working tree."""
    return (root / ".git").exists()


if __name__ == "__main__":
    typer.run(main)
