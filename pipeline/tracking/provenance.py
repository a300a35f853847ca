"""What a run is made from: the commit, and the versions that dvc.lock holds."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

# Written by the pipeline itself: a change there does not make the code another one.
_WRITTEN = (":!dvc.lock", ":!metrics", ":!report", ":!params.yaml")


def git_state(root: Path) -> dict[str, Any]:
    """`commit`, None outside a git repository, and `dirty`: whether sources differ from it."""
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--", ".", *_WRITTEN)
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": False}
    return {"commit": commit, "dirty": bool(changed)}


def git_tags(state: Mapping[str, Any]) -> dict[str, str]:
    """What `git_state` found, as tags; the last one fills a column of MLflow's own pages."""
    if state["commit"] is None:
        return {}
    commit, dirty = state["commit"], str(state["dirty"]).lower()
    return {"git.sha": commit, "git.dirty": dirty, "mlflow.source.git.commit": commit}


def dvc_outputs(root: Path) -> dict[str, str]:
    """Path -> hash of every output in dvc.lock; empty without one."""
    stages = _yaml(root / "dvc.lock").get("stages", {})
    outputs = (out for stage in stages.values() for out in stage.get("outs", ()))
    return {out["path"]: out["md5"] for out in outputs if "md5" in out}


def output_holding(outputs: dict[str, str], path: str) -> dict[str, str]:
    """The tags `dvc.path` and `dvc.md5` of the output that is `path` or a folder above it."""
    above = (path, *(str(parent) for parent in Path(path).parents))
    return next(
        ({"dvc.path": place, "dvc.md5": outputs[place]} for place in above if place in outputs), {}
    )


def inputs_hash(root: Path, stage: str, profile: str) -> str | None:
    """One hash of the versions, in dvc.lock, of the outputs that `stage` reads.

    DVC writes a stage's own entry only after it ran, so that the hashes come from the stages
    before it. Code and parameters are not in it: the commit and the configuration's key are.
    """
    entry = _yaml(root / "dvc.yaml").get("stages", {}).get(stage, {})
    outputs = dvc_outputs(root)
    used: dict[str, str] = {}
    for dependency in entry.get("deps", ()):
        path = dependency if isinstance(dependency, str) else next(iter(dependency))
        path = path.replace("${profile}", profile)
        used |= {out: md5 for out, md5 in outputs.items() if f"{out}/".startswith(f"{path}/")}
        if link := output_holding(outputs, path):
            used[link["dvc.path"]] = link["dvc.md5"]
    return hashlib.md5(repr(sorted(used.items())).encode()).hexdigest() if used else None


def _git(root: Path, *command: str) -> str:
    return subprocess.run(
        ["git", *command], cwd=root, capture_output=True, text=True, check=True, timeout=30
    ).stdout


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError):
        return {}


def experiment_tag() -> dict[str, str]:
    """The tag `dvc.exp` with the experiment's name, where DVC runs one."""
    name = os.environ.get("DVC_EXP_NAME")
    return {"dvc.exp": name} if name else {}


def device_used(wanted: str) -> str:
    """What this process computed on: the GPU's name, or `cpu`, also where torch took no part."""
    torch: Any = sys.modules.get("torch")
    cuda = torch is not None and wanted != "cpu" and torch.cuda.is_available()
    return str(torch.cuda.get_device_name()) if cuda else "cpu"
