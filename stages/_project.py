"""What git and DVC say of the project's folder, as findings of the doctor."""

import configparser
import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.health.environment import search_path
from pipeline.health.findings import Finding

SECONDS = 60.0  # DVC may have to hash large files that it has not seen
CHANGED = {  # of `dvc status --json`, in words
    "changed deps": "inputs",
    "changed outs": "outputs",
    "changed command": "command",
}


def git_findings(root: Path) -> Iterator[Finding]:
    """The commit, and whether git can be asked at all."""
    advice = "Experiments and the gate need a clone of git; 'make repro' does without."
    if not (root / ".git").exists():
        yield Finding("git", f"{root} is not the top of a clone", "warning", advice)
        return
    commit = _output(["git", "rev-parse", "--short", "HEAD"], root)
    if commit is None:
        text = "does not answer: it is not installed, has no commit, or mistrusts the folder"
        yield Finding("git", text, "warning", "Run 'git status' here: it says why.")
        return
    written = (":!dvc.lock", ":!metrics", ":!report", ":!params.yaml")
    dirty = _output(["git", "status", "--porcelain", "--", ".", *written], root)
    changed = ", with changes that are not committed" if dirty else ""
    yield Finding("git", f"commit {commit.strip()}{changed}")


def dvc_findings(root: Path) -> Iterator[Finding]:
    """Whether DVC works here, and which stages it would run for the profile in params.yaml."""
    if not (root / ".dvc").is_dir():
        advice = "Clone the project again, or run 'dvc init' in its root folder."
        yield Finding("DVC", f"there is no .dvc in {root}", "problem", advice)
        return
    yield from _lock(root)
    try:
        done = subprocess.run(
            ["dvc", "status", "--json"],
            cwd=root,
            env={**os.environ, "PATH": search_path()},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except OSError:
        return  # that there is no such command is a finding of its own
    except subprocess.TimeoutExpired:
        text = f"'dvc status' took over {SECONDS:.0f} seconds, as where it hashes large files anew"
        yield Finding("DVC", text, "warning", "Run 'dvc status' to see.")
        return
    try:
        status = json.loads(done.stdout)
    except ValueError:
        yield from _silent(root, done.stderr)
        return
    yield _changes(status)


def cache_folders(root: Path) -> dict[str, Path]:
    """Where runs keep what is large: what it is called -> the folder."""
    folders = {"artifacts": root / "artifacts", ".cache": root / ".cache", "DVC's": _cache(root)}
    with suppress(ImportError):
        from huggingface_hub import constants

        folders["hub's"] = Path(constants.HF_HUB_CACHE)
    return folders


def _lock(root: Path) -> Iterator[Finding]:
    """Whose outputs dvc.lock holds: it knows one profile, the last that ran."""
    import yaml

    path = root / "dvc.lock"
    if not path.exists():
        yield Finding("dvc.lock", "absent: nothing ran here yet")
        return
    advice = "Run 'git checkout -- dvc.lock', or delete it and run 'make repro'."
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        outs = [out["path"] for stage in stages.values() for out in stage["outs"]]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        yield Finding("dvc.lock", "is damaged", "problem", advice)
        return
    parts = (Path(out).parts for out in outs)
    profiles = sorted({part[1] for part in parts if part[0] == "artifacts" and len(part) > 1})
    yield Finding("dvc.lock", f"{len(stages)} stages of {', '.join(profiles)}")


def _changes(status: dict[str, list[object]]) -> Finding:
    """One line on `dvc status`: stages that would run, and for what."""
    if not status:
        return Finding("DVC", "all stages of the profile in params.yaml are up to date")
    reasons = []
    for stage, entries in status.items():
        kinds = [key for entry in entries if isinstance(entry, dict) for key in entry]
        kinds += [entry for entry in entries if isinstance(entry, str)]
        what = " and ".join(dict.fromkeys(CHANGED.get(kind, kind) for kind in kinds))
        reasons.append(f"{stage} ({what})")
    text = f"'dvc repro' has to run or restore: {', '.join(reasons)}"
    return Finding("DVC", text, "ok", "Run 'make repro'.")


def _silent(root: Path, said: str) -> Iterator[Finding]:
    """`dvc status` failed: where the reason is a common one, what to do about it."""
    lines = [line for line in said.strip().splitlines() if line.startswith("ERROR")]
    text = lines[0].removeprefix("ERROR: ") if lines else "'dvc status' failed without a word"
    if "lock" in text.replace("dvc.lock", ""):
        advice = "Wait until the other DVC command has ended."
        yield Finding("DVC", text, "warning", advice)
    elif not (root / ".git").exists():
        advice = "Run 'make repro', which makes this folder known to DVC without git."
        yield Finding("DVC", text, "warning", advice)
    else:
        yield Finding("DVC", text, "problem", "Run 'dvc status --verbose' to see more.")


def _cache(root: Path) -> Path:
    """DVC's cache: in .dvc, or where its configuration says."""
    folder = root / ".dvc"
    place = folder / "cache"
    for name in ("config", "config.local"):
        settings = configparser.ConfigParser(interpolation=None)
        with suppress(configparser.Error, OSError, UnicodeError):
            settings.read(folder / name, encoding="utf-8")
            if wanted := settings.get("cache", "dir", fallback=None):
                place = folder / os.path.expanduser(wanted)
    return place


def _output(command: Iterable[str], root: Path) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(
            [*command], cwd=root, capture_output=True, encoding="utf-8", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
